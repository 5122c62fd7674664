"""The command ``lightningtune``, which works on studies that exist."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lightningtune._version import __version__
from lightningtune.errors import LightningTuneError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: of the command line; this process's when not given.

    Returns:
        The exit code: 0 when it did what it was asked to, 1 when it could not, 2 when it was not understood.
    """
    given = _parser().parse_args(arguments)
    try:
        print(_pause(given.study, given.storage))
    except LightningTuneError as error:
        print(f"lightningtune: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lightningtune", description="Works on studies of LightningTune.")
    parser.add_argument("--version", action="version", version=f"lightningtune {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    pause = commands.add_parser(
        "pause",
        help="pause a study that runs, here or elsewhere",
        description="Running trials end at their next validation and are saved; running the study again goes on.",
    )
    pause.add_argument("study", metavar="STUDY", help="the study's folder, or its name")
    pause.add_argument("--storage", help="where it is stored, unless that is the journal in its folder")
    return parser


def _pause(study: str, storage: str | None) -> str:
    # imported where it is used: --help is not to wait for Optuna
    from optuna.trial import TrialState

    from lightningtune.study.finding import find_study
    from lightningtune.study.pause import pause

    found = find_study(study, storage)
    pause(found)
    running = len(found.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
    what = f"{running} running end at their next validation" if running else "none of its trials runs now"
    return f"Study '{found.study_name}' is asked to pause: {what}."
