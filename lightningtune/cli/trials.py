"""``lightningtune trials``."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

from lightningtune.cli.output import LINES, print_json, show, width
from lightningtune.cli.parsing import CommandParser, positive
from lightningtune.cli.studies import JSON, add_study, open_study
from lightningtune.wording import printable

STATES = ("complete", "pruned", "fail", "interrupted", "running", "waiting")

_EXAMPLES = """\
examples:
  lightningtune trials digits --sort val_acc --descending --limit 5
  lightningtune trials digits --where 'val_acc>0.9' --where optimizer=sgd
  lightningtune trials digits --state fail --csv > failed.csv
"""


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = CommandParser("trials", "Lists the trials of a study, all of them or those that are asked for.", _EXAMPLES)
    add_study(parser)
    parser.add_argument(
        "--state", metavar="STATE", action="append", choices=STATES, default=[], help=f"only these: {', '.join(STATES)}"
    )
    parser.add_argument(
        "--where",
        metavar="CONDITION",
        action="append",
        default=[],
        help="only those for which it holds, such as 'lr<1e-3'; the signs are = != < <= > >=; of several, all hold",
    )
    parser.add_argument("--sort", metavar="COLUMN", default="number", help="by a metric, a parameter, duration, ...")
    parser.add_argument("--descending", action="store_true", help="the largest first")
    parser.add_argument("--limit", metavar="N", type=positive(int), help="the first N only")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV, with all columns")
    form.add_argument("--json", **JSON)
    return parser


def run(arguments: Sequence[str]) -> int:
    """List trials."""
    given = parser().parse_args(arguments)
    found = open_study(given.study, given.storage)

    from lightningtune.study.portable import write_table
    from lightningtune.study.progress import metric_names
    from lightningtune.study.results import collect_results
    from lightningtune.study.selection import list_columns, parse_condition, select

    metrics = metric_names(found.study, found.directory.read_definition())
    everything = collect_results(found.study, metrics, found.directory).rows()
    conditions = [parse_condition(text) for text in given.where]
    rows = select(everything, given.state, conditions, given.sort, given.descending, given.limit)
    if given.json:
        print_json(rows)
    elif given.csv:
        text = io.StringIO()
        write_table(rows, list_columns(everything), text)
        # a program gets the values as they are
        sys.stdout.write(printable(text.getvalue(), LINES) if sys.stdout.isatty() else text.getvalue())
    elif rows:
        from lightningtune.report.terminal import draw_trials

        show(draw_trials(rows, metrics, width()), LINES)
    else:
        show(f"Study '{found.study.study_name}' has no trials{' of that kind' if everything else ''}.")
    return 0
