"""``lightningtune rm``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lightningtune.cli.output import show, tell
from lightningtune.cli.parsing import CommandParser
from lightningtune.cli.studies import add_study, open_study
from lightningtune.errors import ConfigurationError


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = CommandParser(
        "rm",
        "Removes a study: from its storage, and what is its own in its folder. Asks first. A study that is being run "
        "is not removed.",
    )
    add_study(parser)
    parser.add_argument("--weights", action="store_true", help="remove only the checkpoints; the study stays")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Remove a study, or its weights."""
    given = parser().parse_args(arguments)
    found = open_study(given.study, given.storage)

    from lightningtune.study.finding import (
        check_idle,
        check_own,
        find_weights,
        measure_size,
        remove_study,
        remove_weights,
    )
    from lightningtune.study.liveness import find_busy_hosts, find_idle_hosts
    from lightningtune.wording import counted, size

    study, directory = found.study, found.directory
    if not find_busy_hosts(study) and (hosts := find_idle_hosts(study)):
        who = f"{hosts[0]} has" if len(hosts) == 1 else f"{len(hosts)} processes have"
        tell(f"{who[:1].upper()}{who[1:]} worked on it: looking for half a minute whether that goes on.")
    check_idle(study)
    check_own(found)
    weights = find_weights(directory)
    if given.weights:
        if not weights:
            show(f"Study '{study.study_name}' has no weights.")
            return 0
        what = f"{counted(len(weights), 'checkpoint')} of study '{study.study_name}', {size(measure_size(weights))}"
        _ask(f"Remove {what} in {directory.root}?", given.yes)
        remove_weights(found)
        show(f"Removed {what}.")
        return 0
    trials = counted(len(study.get_trials(deepcopy=False)), "trial")
    where = f", {size(measure_size(directory.belongings()))} in {directory.root}" if directory.root.is_dir() else ""
    what = f"study '{study.study_name}' with {trials}{where}"
    _ask(f"Remove {what}?", given.yes)
    stays = remove_study(found)
    show(f"Removed {what}.")
    if stays:
        show(f"What is not the study's stays in {directory.root}: {', '.join(path.name for path in stays)}.")
    return 0


def _ask(question: str, is_yes: bool) -> None:
    """Ask, unless it was said that there is no need.

    Raises:
        ConfigurationError: when there is nobody to answer, or the answer is no.
    """
    if is_yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError("Nothing was removed: nobody is there to be asked. With --yes it is done at once.")
    show(f"{question} [y/N] ", end="")
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise ConfigurationError("Nothing was removed.")
