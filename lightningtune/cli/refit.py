"""``lightningtune refit``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightningtune.cli.output import print_json, show
from lightningtune.cli.parsing import CommandParser, integer, positive
from lightningtune.cli.studies import JSON, add_study, open_study
from lightningtune.errors import ConfigurationError

if TYPE_CHECKING:
    from lightningtune.study.refits import Refit

_EPILOG = """\
The report compares what several seeds come to with the untuned defaults, once
it is written anew.

examples:
  lightningtune refit digits --seeds 1 2 3
  lightningtune refit digits --seeds 1 2 3 --number 0
  lightningtune refit digits --max_epochs 100
"""


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = CommandParser(
        "refit",
        "Trains the best trial again, or another one, without pruning: with other seeds, or for longer. The study "
        "stays as it is; the new trainings are in its folder, under refit.",
        _EPILOG,
    )
    add_study(parser)
    parser.add_argument("--number", metavar="N", type=integer, help="the trial's (default: that of the best)")
    parser.add_argument(
        "--seeds", metavar="SEED", type=integer, nargs="+", help="one training for each (default: the trial's own)"
    )
    parser.add_argument("--max_epochs", metavar="N", type=positive(int), help="train longer, or shorter, than it did")
    parser.add_argument("--json", **JSON)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Train a trial again."""
    given = parser().parse_args(arguments)
    found = open_study(given.study, given.storage)

    # imported where it is used: what is wrong above is told without waiting for torch
    from lightningtune.arguments import check_seeds
    from lightningtune.cli.kept import read_kept, rebuild, recall
    from lightningtune.report.progress import named

    if read_kept(found.study) is None:
        raise ConfigurationError(
            f"Study '{found.study.study_name}' was run by a script: call optimizer.refit() of its optimizer there."
        )
    seeds = [None] if given.seeds is None else check_seeds(given.seeds)
    optimizer = rebuild(recall(found, given.storage, {"verbose": False}))
    results = optimizer.results()
    number = results.choose(given.number)
    trained: list[Refit] = []
    for seed in seeds:  # one by one: each is told when it is there
        trained += optimizer.refit(given.max_epochs, seed, number)
        if not given.json:
            show(f"seed {trained[-1].seed}: {named(results.metrics, trained[-1].score)}  {trained[-1].directory}")
    if given.json:
        print_json(trained)
    return 0
