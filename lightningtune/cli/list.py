"""``lightningtune list``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightningtune.cli.output import LINES, print_json, show, tell, width
from lightningtune.cli.parsing import CommandParser
from lightningtune.cli.studies import JSON, open_study
from lightningtune.errors import ConfigurationError, LightningTuneError

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
    folder = Path(given.folder)
    if not folder.is_dir():
        raise ConfigurationError(f"There is no folder '{folder}' here. Name the one in which the studies lie.")
    seen = dict(filter(None, map(_look, sorted(folder.glob("*/journal.log")))))
    if not seen:
        if given.json:
            print_json([])
        else:
            show(f"There are no studies in '{folder}'.")
        return 0

    from lightningtune.report.studies import draw_studies

    if given.json:
        print_json([{"directory": root, **progress.as_dict()} for root, progress in seen.items()])
    else:
        show(draw_studies([*seen.values()], width()), LINES)
    return 0


def _look(journal: Path) -> tuple[Path, StudyProgress] | None:
    """Look at a study; of one that cannot be read say so, for the others can."""
    from lightningtune.study.progress import progress_of

    try:
        found = open_study(str(journal.parent), None)
        return found.directory.root, progress_of(found.study, found.directory)
    except (LightningTuneError, OSError) as error:
        tell(f"lightningtune: {error}")
        return None
