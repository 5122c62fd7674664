"""``lightningtune compare``."""

from __future__ import annotations

from collections.abc import Sequence

from lightningtune.cli.output import LINES, print_json, show, width
from lightningtune.cli.parsing import CommandParser
from lightningtune.cli.studies import JSON, STUDY, add_storage, open_study
from lightningtune.cli.suggesting import studies_here, suggest


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = CommandParser(
        "compare",
        "Puts studies side by side: what each has found, how many trials, epochs and how much time that took, and what "
        "differs in their definitions.",
    )
    suggest(parser.add_argument("study", metavar="STUDY", help=STUDY), studies_here)
    suggest(parser.add_argument("others", metavar="OTHER", nargs="+", help="another, or several"), studies_here)
    add_storage(parser)
    parser.add_argument("--json", **JSON)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Compare studies."""
    given = parser().parse_args(arguments)
    studies = [open_study(study, given.storage) for study in (given.study, *given.others)]

    from lightningtune.report.comparison import compare_studies, draw_comparison
    from lightningtune.study.progress import metric_names
    from lightningtune.study.results import collect_results

    definitions = [found.directory.read_definition() for found in studies]
    results = [
        collect_results(found.study, metric_names(found.study, definition), found.directory)
        for found, definition in zip(studies, definitions, strict=True)
    ]
    comparison = compare_studies(results, definitions)
    if given.json:
        print_json(comparison)
    else:
        show(draw_comparison(comparison, width()), LINES)
    return 0
