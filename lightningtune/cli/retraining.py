"""The commands that train a trial again: ``replay`` and ``refit``."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightningtune.cli.output import LINES, print_json, show
from lightningtune.cli.parsing import CommandParser, integer, positive
from lightningtune.cli.studies import add_json, add_study, open_study
from lightningtune.errors import ConfigurationError

if TYPE_CHECKING:
    from lightningtune.study.comparison import Replay
    from lightningtune.study.finding import FoundStudy
    from lightningtune.study.results import Refit

_REPLAY_EPILOG = """\
The exit code is 0 where the two are identical or agree within the tolerance,
and 1 where they part.

examples:
  lightningtune replay digits 7
  lightningtune replay digits 7 --script train.py
"""


def replay_parser() -> CommandParser:
    """Return the parser of ``replay``."""
    parser = CommandParser(
        "replay",
        _replay,
        "Trains a trial again, from what was recorded of it, and says whether it comes to the same. The study stays as "
        "it is; the new training is in its folder, under replay.",
        _REPLAY_EPILOG,
    )
    add_study(parser)
    parser.add_argument("number", metavar="N", type=integer, help="the trial's number")
    parser.add_argument(
        "--script", metavar="FILE", help="where the classes are, if a script has run the study; it is imported"
    )
    parser.add_argument(
        "--tolerance", metavar="SHARE", type=float, default=1e-5, help="by how much values may differ (default: 1e-5)"
    )
    add_json(parser)
    return parser


def _replay(given: Namespace) -> int:
    found = open_study(given.study, given.storage)
    # deferred imports: keep --help fast
    from lightningtune.cli.start import plan_restart, read_start
    from lightningtune.study.comparison import Agreement, check_tolerance

    check_tolerance(given.tolerance)
    if given.script is None and read_start(found.study) is not None:
        replayed = plan_restart(found, given.storage, {"verbose": False}).build().replay(given.number, given.tolerance)
    else:
        replayed = _replay_from_definition(found, given.number, given.script, given.tolerance)
    if given.json:
        print_json(
            {
                "number": replayed.number,
                "agreement": replayed.agreement.value,
                "parts_at": replayed.parts_at,
                "largest_difference": replayed.largest,
                "recorded": replayed.recorded,
                "replayed": replayed.replayed,
                "differences": replayed.differences,
                "directory": replayed.directory,
            }
        )
    else:
        show(str(replayed), LINES)
    return 1 if replayed.agreement is Agreement.DIFFERENT else 0


def _replay_from_definition(found: FoundStudy, number: int, script: str | None, tolerance: float) -> Replay:
    """Replay a trial of a study that a script has run, by what is written down in its folder."""
    from lightningtune.config.importing import search_also
    from lightningtune.study.opening import quiet_optuna

    asked_for = found.directory.read_definition()
    if not asked_for:
        raise ConfigurationError(
            f"There is no study.yaml in '{found.directory.root}', which would say how trial {number} was trained."
        )
    search_also(Path())
    model = data = None
    if asked_for.get("cli") is None:
        model, data = (_import(asked_for, name, number, script) for name in ("model_class", "datamodule_class"))
    elif script is None:
        raise ConfigurationError(
            f"Trial {number} was built by the LightningCLI '{asked_for['cli']}'. Say which script constructs it, with "
            "'--script train.py'. Or call replay() of the optimizer."
        )

    # cheap checks first: torch takes seconds to import
    from lightningtune.arguments import what_to_train
    from lightningtune.replay import replay
    from lightningtune.study.objective import make_objective

    score = asked_for.get("score", "best")
    if score not in {"best", "last"}:
        score = _import(asked_for, "score", number, script)
    objective = make_objective(asked_for["metric"], None, asked_for["direction"], score)
    with quiet_optuna():
        cli = None if asked_for.get("cli") is None else script
        config, schema, make = what_to_train(asked_for.get("base_config"), model, data, cli)
        blueprint = make(schema, config, False)
        return replay(found.study, number, found.directory, blueprint, objective, tolerance=tolerance)


def _import(asked_for: Mapping[str, Any], part: str, number: int, script: str | None) -> Callable[..., Any] | None:
    """Import what a definition names; what the script of the study defines is imported from where the user says."""
    from lightningtune.config.importing import import_named

    name = asked_for.get(part)
    if name is None:
        return None
    where = asked_for.get("script") or "train.py"
    mains = ("__main__", Path(where).stem)  # older versions have written the first
    own = next((str(name).removeprefix(f"{main}.") for main in mains if str(name).startswith(f"{main}.")), None)
    if own is not None and script is None:
        raise ConfigurationError(
            f"The {part} of trial {number} is '{own}' of a script. Say which with '--script {where}': it is imported, "
            "so that what it runs belongs under if __name__ == '__main__'. Or call replay() of the optimizer in it."
        )
    return import_named(part, str(name) if own is None else f"{script}:{own}")


_REFIT_EPILOG = """\
The report compares what several seeds come to with the untuned defaults, once
it is written anew.

examples:
  lightningtune refit digits --seeds 1 2 3
  lightningtune refit digits --seeds 1 2 3 --number 0
  lightningtune refit digits --max_epochs 100
"""


def refit_parser() -> CommandParser:
    """Return the parser of ``refit``."""
    parser = CommandParser(
        "refit",
        _refit,
        "Trains the best trial again, or another one, without pruning: with other seeds, or for longer. The study "
        "stays as it is; the new trainings are in its folder, under refit.",
        _REFIT_EPILOG,
    )
    add_study(parser)
    parser.add_argument("--number", metavar="N", type=integer, help="the trial's (default: that of the best)")
    parser.add_argument(
        "--seeds", metavar="SEED", type=integer, nargs="+", help="one training for each (default: the trial's own)"
    )
    parser.add_argument("--max_epochs", metavar="N", type=positive(int), help="train longer, or shorter, than it did")
    add_json(parser)
    return parser


def _refit(given: Namespace) -> None:
    found = open_study(given.study, given.storage)
    # deferred imports: keep --help fast
    from lightningtune.arguments import check_seeds
    from lightningtune.cli.start import plan_restart, read_start
    from lightningtune.report.live import named

    if read_start(found.study) is None:
        raise ConfigurationError(
            f"Study '{found.study.study_name}' was run by a script: call optimizer.refit() of its optimizer there."
        )
    seeds = [None] if given.seeds is None else check_seeds(given.seeds)
    optimizer = plan_restart(found, given.storage, {"verbose": False}).build()
    results = optimizer.results()
    number = results.choose(given.number)
    trained: list[Refit] = []
    for seed in seeds:  # one by one: each is told when it is there
        trained += optimizer.refit(given.max_epochs, seed, number)
        if not given.json:
            show(f"seed {trained[-1].seed}: {named(results.metrics, trained[-1].score)}  {trained[-1].directory}")
    if given.json:
        print_json(trained)
