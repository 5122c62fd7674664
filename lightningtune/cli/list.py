"""``lightningtune list``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightningtune.cli.output import print_json, width
from lightningtune.cli.parsing import CommandParser
from lightningtune.cli.studies import JSON, open_study
from lightningtune.errors import ConfigurationError, LightningTuneError

if TYPE_CHECKING:
    from lightningtune.study.finding import FoundStudy


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
    found = [one for journal in sorted(folder.glob("*/journal.log")) if (one := _open(journal)) is not None]
    if not found:
        if given.json:
            print_json([])
        else:
            print(f"There are no studies in '{folder}'.")
        return 0

    from lightningtune.report.studies import draw_studies
    from lightningtune.study.progress import progress_of

    seen = [progress_of(one.study, one.directory) for one in found]
    if given.json:
        print_json([{"directory": one.directory.root, **how.as_dict()} for one, how in zip(found, seen, strict=True)])
    else:
        print(draw_studies(seen, width()))
    return 0


def _open(journal: Path) -> FoundStudy | None:
    """Open a study; of one that cannot be opened say so, for the others can."""
    try:
        return open_study(str(journal.parent), None)
    except LightningTuneError as error:
        print(f"lightningtune: {error}", file=sys.stderr)
        return None
