"""``lightningtune best``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lightningtune.cli.output import LINES, print_json, show
from lightningtune.cli.parsing import CommandParser, integer
from lightningtune.cli.studies import JSON, add_study, open_study

_EXAMPLES = """\
example:
  lightningtune best digits --config-only > best.yaml
"""


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = CommandParser(
        "best",
        "Shows the best trial: its score, what that is better than the untuned defaults by, and its config.",
        _EXAMPLES,
    )
    add_study(parser)
    parser.add_argument("--number", metavar="N", type=integer, help="another trial, which is complete")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--config-only", action="store_true", help="print the config alone: YAML that runs as it is")
    form.add_argument("--json", **JSON)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Show the best trial."""
    given = parser().parse_args(arguments)
    found = open_study(given.study, given.storage)

    from lightningtune.report.terminal import draw_best
    from lightningtune.study.progress import metric_names
    from lightningtune.study.reporter import read_config_sum
    from lightningtune.study.results import collect_results

    study, directory = found.study, found.directory
    results = collect_results(study, metric_names(study, directory.read_definition()), directory)
    number = results.choose(given.number)
    if given.config_only:
        directory.read_config(number, read_config_sum(study, number))
        sys.stdout.write(directory.config(number).read_text(encoding="utf-8"))
        return 0
    has_config = directory.config(number).is_file()
    config = directory.read_config(number, read_config_sum(study, number)) if has_config else None
    if given.json:
        trial = results.trials[number]
        print_json(
            {
                "study_name": results.study_name,
                "number": number,
                "values": dict(zip(results.metrics, trial.values or (), strict=True)),
                "params": trial.params,
                "baseline": None if results.baseline is None else results.baseline.values,
                "improvement": results.improvement if number in results.best_numbers else None,
                "refits": [refit for refit in results.refits if refit.number == number],
                "checkpoint": trial.checkpoint,
                "config_file": directory.config(number) if has_config else None,
                "config": config,
            }
        )
    else:
        show(draw_best(results, number, directory, config), LINES)
    return 0
