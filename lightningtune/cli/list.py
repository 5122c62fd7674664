"""``lightningtune list``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightningtune.cli.output import LINES, print_json, show, width
from lightningtune.cli.parsing import CommandParser
from lightningtune.cli.studies import JSON, open_study
from lightningtune.errors import ConfigurationError, LightningTuneError
from lightningtune.files import expand_home

if TYPE_CHECKING:
    from lightningtune.study.progress import StudyProgress


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = CommandParser("list", "Lists the studies that have a journal in a folder, with the best value of each.")
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default="lightningtune_runs", help="where they lie")
    parser.add_argument("--json", **JSON)
    return parser


def run(arguments: Sequence[str]) -> int:
    """List studies."""
    given = parser().parse_args(arguments)
    folder = expand_home(given.folder)
    if not folder.is_dir():
        raise ConfigurationError(f"There is no folder '{folder}' here. Name the one in which the studies lie.")
    looked = {journal.parent: _look(journal.parent) for journal in sorted(folder.glob("*/journal.log"))}
    if not looked:
        if given.json:
            print_json([])
        else:
            show(f"There are no studies in '{folder}'.")
        return 0

    from lightningtune.report.terminal import draw_studies

    if given.json:
        rows = ({"error": found} if isinstance(found, str) else found.as_dict() for found in looked.values())
        print_json([{"directory": root.absolute(), **row} for root, row in zip(looked, rows, strict=True)])
    else:
        studies = [found for found in looked.values() if not isinstance(found, str)]
        unreadable = {root.name: found for root, found in looked.items() if isinstance(found, str)}
        show(draw_studies(studies, unreadable, width()), LINES)
    return 0


def _look(folder: Path) -> StudyProgress | str:
    """Return how far a study is, or why its folder cannot be read."""
    from lightningtune.study.progress import progress_of

    try:
        found = open_study(str(folder), None)
        return progress_of(found.study, found.directory)
    except Exception as error:  # whatever a spoilt file raises, the other studies are listed
        is_ours = isinstance(error, (LightningTuneError, OSError))
        return " ".join((str(error) if is_ours else f"{type(error).__name__}: {error}").split())
