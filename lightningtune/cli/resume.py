"""``lightningtune resume``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lightningtune.cli.parsing import CommandParser, jobs, positive
from lightningtune.cli.studies import NO_CHECK, add_study, open_study

_EPILOG = """\
A study that a script has begun goes on when that script is run again; resume
says which it is.

example:
  lightningtune resume digits --n_trials 200
"""


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = CommandParser(
        "resume",
        "Goes on with a study that 'lightningtune tune' has begun: as it was asked for then, wherever this is typed. "
        "Trials that were cut short go on from their last checkpoint.",
        _EPILOG,
    )
    add_study(parser)
    parser.add_argument("--n_trials", metavar="N", type=positive(int), help="another total than it has")
    parser.add_argument(
        "--n_jobs", metavar="N", type=jobs, help="another number of trials at a time; -1 for all that fit"
    )
    parser.add_argument("--no-check", **NO_CHECK)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Go on with a study."""
    given = parser().parse_args(arguments)
    changes = {"n_trials": given.n_trials, "n_jobs": given.n_jobs}
    return go_on(given.study, given.storage, changes, is_checked=not given.no_check)


def go_on(study: str, storage: str | None, changes: Mapping[str, Any], is_checked: bool) -> int:
    """Run a study again as it was asked for.

    Args:
        study: its folder, or its name.
        storage: where it is stored; the journal in its folder when not given.
        changes: name to value, in place of what the study was begun with; those that are None are left out.
        is_checked: whether the check comes before.

    Returns:
        The exit code.
    """
    found = open_study(study, storage, is_to_run=True)

    from lightningtune.cli.kept import code_of, read_kept, rebuild, recall, run_kept

    given = {name: value for name, value in changes.items() if value is not None}
    kept, before = recall(found, storage, given), read_kept(found.study)
    optimizer = rebuild(kept)
    if is_checked:
        from lightningtune.cli.check import check_first

        check_first(optimizer, kept.study)
    if before is None or "n_trials" not in given:
        optimizer.optimize()
    else:  # the total is the study's from now on; how many run at a time is this host's
        changed = dataclasses.replace(before.study, n_trials=kept.study.n_trials)
        run_kept(optimizer, changed, kept.folder, kept.started_in)
    return code_of(optimizer.results())
