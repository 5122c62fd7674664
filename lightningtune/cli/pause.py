"""``lightningtune pause``."""

from __future__ import annotations

from collections.abc import Sequence

from lightningtune.cli.output import print_json, show
from lightningtune.cli.parsing import CommandParser
from lightningtune.cli.studies import JSON, add_study, open_study


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = CommandParser(
        "pause",
        "Pauses a study that runs, here or elsewhere: its running trials end at their next validation and are saved. "
        "Running the study again goes on.",
    )
    add_study(parser)
    parser.add_argument("--json", **JSON)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Ask a study to pause."""
    given = parser().parse_args(arguments)

    from optuna.trial import TrialState

    from lightningtune.study.liveness import pause

    study = open_study(given.study, given.storage).study
    pause(study)
    running = len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
    if given.json:
        print_json({"study_name": study.study_name, "running": running})
        return 0
    what = f"{running} running end at their next validation" if running else "none of its trials runs now"
    show(f"Study '{study.study_name}' is asked to pause: {what}.")
    return 0
