"""The commands that run a study, or pause it: ``tune``, ``resume``, ``worker`` and ``pause``."""

from __future__ import annotations

import dataclasses
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightningtune.cli.check import check_first
from lightningtune.cli.output import print_json, show, tell
from lightningtune.cli.parsing import CommandParser, jobs, positive
from lightningtune.cli.studies import STORAGE, add_check, add_json, add_study, open_study
from lightningtune.cli.study_file import StudyParser, fill_in_storage
from lightningtune.errors import redact

# What imports Optuna or torch is imported in the functions: --help waits for neither.

_TUNE_EPILOG = """\
What stands inside the config, the space, the sampler or another value is given
by its path:
  --trainer.max_epochs 20   --model.lr 0.1   --search_space.lr.high 1

examples:
  lightningtune init train.py:Net     # writes study.yaml
  lightningtune tune study.yaml
  lightningtune tune study.yaml --n_trials 100 --trainer.max_epochs 20
  lightningtune tune study.yaml --print_config > resolved.yaml"""


def tune_parser() -> StudyParser:
    """Return the parser of ``tune``."""
    parser = StudyParser(
        "tune",
        _tune,
        "Runs the study of a study file, or goes on with it. Each trial runs in a process of its own.",
        _TUNE_EPILOG,
    )
    add_check(parser)
    parser.add_argument("--print_config", action="store_true", help="print the whole study, resolved, and do nothing")
    return parser


def _tune(given: Namespace) -> int:
    study = given.read_study()
    if given.print_config:
        if redact(study.storage or "") != (study.storage or ""):
            tell(f"The storage is left out, since its URL holds a password. Give it with {STORAGE}.")
            study = dataclasses.replace(study, storage=None)
        sys.stdout.write(study.to_yaml())
        return 0
    study = fill_in_storage(study)
    from lightningtune.cli.building import build_optimizer
    from lightningtune.cli.start import StudyStart, get_exit_code, run_started

    folder = Path(given.study or "").parent
    optimizer = build_optimizer(study, folder)
    if given.check:
        check_first(optimizer, study)
    run_started(optimizer, StudyStart(study, folder, Path.cwd()))
    return get_exit_code(optimizer.results())


_RESUME_EPILOG = """\
A study that a script has begun goes on when that script is run again; resume
says which it is.

example:
  lightningtune resume digits --n_trials 200
"""


def resume_parser() -> CommandParser:
    """Return the parser of ``resume``."""
    parser = CommandParser(
        "resume",
        lambda given: _go_on(given, {"n_trials": given.n_trials, "n_jobs": given.n_jobs}),
        "Goes on with a study that 'lightningtune tune' has begun: as it was asked for then, wherever this is typed. "
        "Trials that were cut short go on from their last checkpoint.",
        _RESUME_EPILOG,
    )
    add_study(parser)
    parser.add_argument("--n_trials", metavar="N", type=positive(int), help="another total than it has")
    parser.add_argument(
        "--n_jobs", metavar="N", type=jobs, help="another number of trials at a time; -1 for all that fit"
    )
    add_check(parser)
    return parser


_WORKER_EPILOG = """\
The study's definition lies in the storage. Its modules, scripts and data are to
be where they were when it was begun, or in the working directory.

example, on each further machine:
  lightningtune worker digits --storage postgresql://host/studies
"""


def worker_parser() -> CommandParser:
    """Return the parser of ``worker``."""
    parser = CommandParser(
        "worker",
        lambda given: _go_on(given, {"n_jobs": given.n_jobs}),
        "Works on a study beside the hosts that do so already: one process more, on this machine or on another that "
        "reaches the study's storage. It ends when the study has its trials.",
        _WORKER_EPILOG,
    )
    add_study(parser)
    parser.add_argument("--n_jobs", metavar="N", type=jobs, help="trials at a time, here; -1 for all that fit")
    add_check(parser)
    return parser


def _go_on(given: Namespace, changes: Mapping[str, Any]) -> int:
    """Run a study again as it was asked for, but for the changes that are not None."""
    found = open_study(given.study, given.storage, wait=None)
    from lightningtune.cli.start import get_exit_code, plan_restart, read_start, run_started

    changes = {name: value for name, value in changes.items() if value is not None}
    start, before = plan_restart(found, given.storage, changes), read_start(found.study)
    optimizer = start.build()
    if given.check:
        check_first(optimizer, start.study)
    if before is None or "n_trials" not in changes:
        optimizer.optimize()
    else:  # the total is the study's from now on; how many run at a time is this host's
        changed = dataclasses.replace(before.study, n_trials=start.study.n_trials)
        run_started(optimizer, dataclasses.replace(start, study=changed))
    return get_exit_code(optimizer.results())


def pause_parser() -> CommandParser:
    """Return the parser of ``pause``."""
    parser = CommandParser(
        "pause",
        _pause,
        "Pauses a study that runs, here or elsewhere: its running trials end at their next validation and are saved. "
        "Running the study again goes on.",
    )
    add_study(parser)
    add_json(parser)
    return parser


def _pause(given: Namespace) -> None:
    study = open_study(given.study, given.storage).study
    from optuna.trial import TrialState

    from lightningtune.study.liveness import pause

    pause(study)
    running = len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
    if given.json:
        print_json({"study_name": study.study_name, "running": running})
        return
    what = f"{running} running end at their next validation" if running else "none of its trials runs now"
    show(f"Study '{study.study_name}' is asked to pause: {what}.")
