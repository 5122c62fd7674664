"""``lightningtune report``."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence

from lightningtune.cli.output import print_json, show
from lightningtune.cli.parsing import CommandParser
from lightningtune.cli.studies import JSON, add_study, open_study
from lightningtune.files import expand_home

_EXAMPLES = """\
example:
  lightningtune report digits --open
"""


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = CommandParser(
        "report",
        "Writes what a study has found so far as one HTML file, which opens anywhere: the answer, figures, and a table "
        "of all trials. A study that runs writes it itself, now and then and at its end.",
        _EXAMPLES,
    )
    add_study(parser)
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=expand_home,
        help="where to write it (default: report.html in the study's folder)",
    )
    parser.add_argument("--open", action="store_true", help="open it in a browser")
    parser.add_argument("--json", **JSON)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Write the report of a study."""
    given = parser().parse_args(arguments)
    found = open_study(given.study, given.storage)

    from lightningtune.errors import ConfigurationError
    from lightningtune.report.html.writer import write_report

    target = found.directory.report if given.output is None else given.output.absolute()
    if target.is_dir():
        raise ConfigurationError(f"'{target}' is a folder; name the file, such as '{target / 'report.html'}'.")
    write_report(found.study, found.directory, target)
    if given.json:
        print_json({"study_name": found.study.study_name, "file": target, "bytes": target.stat().st_size})
    else:
        show(str(target))
    if given.open and not webbrowser.open(target.as_uri()):
        raise ConfigurationError(f"No browser was found to open '{target}' with.")
    return 0
