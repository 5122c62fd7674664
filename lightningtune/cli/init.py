"""``lightningtune init``: a commented study file for a model of the user's own, whose search space is guessed."""

from __future__ import annotations

import ast
import contextlib
import enum
import inspect
import math
import os
import re
import shlex
import sys
import textwrap
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from lightningtune.cli.output import LINES, show
from lightningtune.cli.parsing import CommandParser
from lightningtune.config.importing import find_script, import_named, search_also
from lightningtune.errors import ConfigurationError
from lightningtune.files import dump_yaml, expand_home, write_text
from lightningtune.wording import as_argument

_REQUIRED: Any = inspect.Parameter.empty
"""The default of an argument that has none."""
_EPILOG = """\
examples:
  lightningtune init train.py:Net --data train.py:Data
  lightningtune init --cli train.py
  lightningtune init mypackage.net.Net --output digits.yaml"""


def init_parser() -> CommandParser:
    """Return the parser of ``init``."""
    parser = CommandParser(
        "init",
        _write_study_file,
        "Writes a commented study file for a model of yours. The search space is guessed from the arguments of its "
        "__init__: by name, annotation and default.",
        _EPILOG,
    )
    named = "as package.module:Name, package.module.Name or train.py:Name"
    parser.add_argument("model", metavar="MODEL", nargs="?", help=f"the LightningModule, {named}")
    parser.add_argument(
        "--cli", metavar="CLI", help="in place of MODEL, a LightningCLI that builds it: a script, or a name as above"
    )
    parser.add_argument(
        "--data", metavar="DATA", help="its LightningDataModule; the one of the model's module when not given"
    )
    parser.add_argument(
        "--output", metavar="FILE", default="study.yaml", help="the file that is written (default: study.yaml)"
    )
    parser.add_argument("--force", action="store_true", help="replace the file if it is there")
    return parser


def _write_study_file(given: Namespace) -> None:
    output = expand_home(given.output)
    if output.suffix not in (".yaml", ".yml"):
        raise ConfigurationError(f"--output must be a file that ends in .yaml, but got '{output}'.")
    if output.exists() and not given.force:
        raise ConfigurationError(
            f"'{output}' is there already. Replace it with --force, or name another with --output."
        )
    if (given.model is None) is (given.cli is None):
        raise ConfigurationError("init takes a model, as train.py:Net, or --cli and the script of a LightningCLI.")
    text, summary = _draft(*_find_parts(given, output.parent))
    write_text(output, text)
    show(f"Wrote '{output}': {summary}", LINES)
    show(f"Then: {shlex.join(['lightningtune', 'tune', *as_argument(str(output))])}")


def _find_parts(given: Namespace, folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Return what the study file names, as it names that, and the model and its data, by section."""
    # deferred imports: keep --help fast
    from lightningtune.arguments import check_target
    from lightningtune.training.cli_call import catch_cli

    search_also(Path())
    targets: dict[str, Any] = {}
    if given.cli is None:
        targets["model"] = import_named("MODEL", given.model)
        names = {"model_class": _name_from(folder, given.model)}
        check_target("model_class", targets["model"])
        data = given.data or _find_datamodule(targets["model"], given.model)
        if data is not None:
            targets["data"] = import_named("--data", data)
            names["datamodule_class"] = _name_from(folder, data)
            check_target("datamodule_class", targets["data"])
        return names, targets
    cli = _name_from(folder, given.cli)
    arguments = catch_cli(find_script("--cli", given.cli) or import_named("--cli", given.cli)).arguments
    for section, argument in (("model", "model_class"), ("data", "datamodule_class")):
        if callable(arguments.get(argument)) and not arguments.get(f"subclass_mode_{section}"):
            targets[section] = arguments[argument]
    if "model" not in targets:
        raise ConfigurationError(
            f"--cli: {cli} takes the class of its model from the config, so no search space can be guessed. "
            f"Write one: lightningtune tune --help names what a study file holds beside 'cli: {cli}'."
        )
    return {"cli": cli}, targets


def _find_datamodule(model: Any, name: str) -> str | None:
    """Return the name of the datamodule in the model's module; None unless there is just one."""
    base: Any = import_named("--data", "lightning.pytorch.LightningDataModule")
    own = [value for value in vars(sys.modules[model.__module__]).values() if inspect.isclass(value)]
    found = [value.__name__ for value in own if issubclass(value, base) and value.__module__ == model.__module__]
    script = name.partition(":")[0]
    is_of_script = script.endswith(".py") and Path(script).stem == model.__module__
    return f"{script if is_of_script else model.__module__}:{found[0]}" if len(found) == 1 else None


def _name_from(folder: Path, name: str) -> str:
    """Return a name as the study file's folder has it: the path of a script leads from there."""
    script, mark, rest = name.partition(":")
    return f"{os.path.relpath(script, folder)}{mark}{rest}" if script.endswith(".py") else name


def _draft(names: Mapping[str, str], targets: Mapping[str, Any]) -> tuple[str, str]:
    """Return the text of a study file, and a summary of it."""
    from lightningtune.search.tunable import search_space_of  # deferred import: keeps --help fast

    guesses = [guess for section, target in targets.items() for guess in guess_space(target, section)]
    spaces = {section: space for section, target in targets.items() if (space := search_space_of(target)) is not None}
    tuned = sum(guess.is_tuned for guess in guesses)
    proposed = len(guesses) - tuned
    if spaces:
        tuned, proposed = sum(len(space.parameters or ()) for space in spaces.values()), 0
    model, name = targets["model"], names.get("model_class", targets["model"].__name__)
    subject = [f"{key}: {value}" for key, value in names.items()]
    missing = [f"base_config.{guess.path}, which has no default" for guess in guesses if guess.value is _REQUIRED]
    if "cli" not in names and "data" not in targets:
        base: Any = import_named("MODEL", "lightning.pytorch.LightningModule")
        if getattr(model, "train_dataloader", base.train_dataloader) is base.train_dataloader:
            missing.append("datamodule_class, the data that the model trains on")
            hint = "package.module:Data  # fill in: a LightningDataModule, or what returns dataloaders"
        else:
            hint = " # the model has dataloaders of its own"
        subject.append(f"# datamodule_class: {hint}")
    logged = find_logged_metrics(model)
    chosen = choose_metric(logged)
    if chosen is None:
        missing.append(f"metric: nothing that a validation logs was found in {name}")
    if not tuned and not spaces:
        missing.append("search_space: nothing could be guessed")
    metric, direction = chosen or ("val_loss", "minimize")
    found = f"the model logs {', '.join(logged)}" if logged else "as the model logs it in a validation"
    text = _TEMPLATE.format(
        name=name,
        subject="\n".join(subject),
        or_a_path=" It may be the path of a config of the CLI." if "cli" in names else "",
        config="".join(_config_lines(guesses)),
        space="\n".join(_declared_lines(spaces) if spaces else _space_lines(guesses)),
        metric=f"{_flow(metric)}  # {'' if chosen else 'fill in: '}{found}",
        direction=f"{direction}  # or {'maximize' if direction == 'minimize' else 'minimize'}",
    )
    return text, f"{tuned} to tune, {proposed} more to look at." + "".join(f"\nFill in: {what}." for what in missing)


_TEMPLATE = """\
# A study of {name}. What is guessed here is a beginning: change it as you like.
# 'lightningtune tune' runs this file; its --help says what else may stand here. Any value can be given on
# the command line too: --n_trials 100 --trainer.max_epochs 20

{subject}

# What is the same in every trial.{or_a_path}
base_config:
  trainer:
    max_epochs: 10
    # accelerator: gpu  # what this machine has, when not given
{config}
{space}

metric: {metric}
direction: {direction}

n_trials: 30  # in all: a larger number, and the study goes on
n_jobs: 1  # trials at a time; -1 for as many as fit this machine
sampler: TPESampler  # any of Optuna's, such as GPSampler, CmaEsSampler, RandomSampler
pruner:  # any of Optuna's; it stops trials that fall behind
  class_path: MedianPruner
  init_args: {{n_startup_trials: 5}}  # trials that are never stopped
# storage: sqlite:///study.db  # or PostgreSQL, for many machines; else a journal in its folder
# trial_timeout: 3600  # seconds that one trial may take
"""


def _config_lines(guesses: list[Guess]) -> Iterator[str]:
    """Yield what the config has to hold beside the defaults."""
    section = None
    for guess in guesses:
        if guess.value is None:
            continue
        if guess.section != section:
            section = guess.section
            yield f"  {section}:\n"
        is_open = guess.value is _REQUIRED
        yield (
            f"    # {guess.name}:  # fill in: {guess.note}\n"
            if is_open
            else f"    {guess.name}: {_flow(guess.value)}\n"
        )


def _space_lines(guesses: list[Guess]) -> Iterator[str]:
    yield "# What varies: each line without a '#'. The types are uniform, loguniform, discrete_uniform, int, int_log"
    yield "# and categorical. The trainer's settings can vary too, as in trainer.gradient_clip_val"
    has_any = any(guess.is_tuned for guess in guesses)
    yield "search_space:" if has_any else "# search_space:  # fill in: nothing could be guessed"
    for guess in guesses:
        spec = "" if guess.spec is None else f" {_flow(guess.spec)}"
        yield f"  {'' if guess.is_tuned else '# '}{guess.path}:{spec}  # {guess.note}"


def _declared_lines(spaces: Mapping[str, Any]) -> Iterator[str]:
    yield "# What varies is declared with @tunable, and can be replaced here as a whole:"
    yield "# search_space:"
    for section, space in spaces.items():
        for name, spec in space.to_dict().items() if hasattr(space, "to_dict") else ():  # else it is a function
            yield f"#   {section}.{name}: {_flow(spec)}"


def _flow(value: Any) -> str:
    """Write a value in one line of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return dump_yaml([value]).removeprefix("- ").strip()


# Words of the arguments' names, which stand between underscores.
_SCALE = (
    r"(lr|learning_?rate|eta)(?!_(min|decay|factor|gamma|mult|scale))|"
    r"wd|weight_decay|(l1|l2)(?!_ratio)|reg|regulari[sz]ation|lambda"
)
_DROPOUT = r"p?drop(out|path)?|drop_(out|path|connect)"
_AVERAGE = r"momentum|beta_?\d?|betas|ema"
_COUNT = r"n?(layers?|blocks?|stages?)|depth"
_SIZE = r"hidden|width|units|neurons|embed|emb|d_model|d_ff|ffn|latent|filters|dim|size|features|rank|batch_?size"
_CHOICE = r"act(ivation)?|non_?linearity|norm(ali[sz]ation)?|optim(izer)?|solver|sched(uler)?|init(iali[sz]ation)?"
_USUAL: Mapping[Any, Mapping[str, Any]] = {
    float: {_SCALE: 1e-3, _DROPOUT: 0.1, _AVERAGE: 0.9},
    int: {_COUNT: 2, _SIZE: 64},
}
"""What is worth tuning, with the value that an argument without a default gets."""
_ADVICE: Mapping[Any, str] = {
    int: "say a range, as {type: int, low: …, high: …}",
    float: "say a range, as {type: uniform, low: …, high: …}",
    str: "say the choices, as {type: categorical, choices: […, …]}",
}
"""What to write for an argument for which nothing could be guessed."""
_DOUBTS = {
    r"heads": "must divide another size; ",
    r"kernel|stride|padding|dilation|patch|window|pool|bins": "changes the shapes; ",
    r"warm_?up|step_size|patience|t_max|(?<!weight_)(?<!ema_)decay|factor|discount|(lr|rate)_(gamma|mult|scale)": (
        "depends on how long a trial trains; "
    ),
}
_FIXED = (
    r"^(in|out|n|num)_(channels?|features?|dim|size|inputs?|outputs?|labels)|^(dim|size|features|channels)$|"
    r"seeds?|random_state|\w*workers|class(es)?|vocab|idx|index|pad|task|mode|image|img|input|output|(?<!drop_)path|dir|"
    r"root|folder|file|url|epochs|(max|total)_steps|every|log|verbose|debug|pin|download|persistent|shuffle|drop_last|"
    r"shape|resolution|crop|train|val|test|seq|sequence|(max|context)_len(gth)?|horizon|checkpoint|compile|device|threshold"
)


def _has(words: str, name: str) -> bool:
    """Whether a name has one of these words, which stand between underscores."""
    return re.search(rf"(^|_)({words})(_|$)", name.lower().strip("_")) is not None


@dataclass(frozen=True)
class Guess:
    """What one argument may vary over; `value` is what a config must hold, `_REQUIRED` if nobody knows it."""

    section: str
    name: str
    spec: Mapping[str, Any] | None
    is_tuned: bool
    note: str
    value: Any

    @property
    def path(self) -> str:
        """Where it stands in a config."""
        return f"{self.section}.{self.name}"


def guess_space(target: Callable[..., Any], section: str = "model") -> list[Guess]:
    """Guess what the arguments of a class or a function may vary over, in their order."""
    from lightningtune.config.signatures import signature_of, type_hints  # deferred import: keeps --help fast

    hints = type_hints(target)
    defaults = signature_of(target).defaults
    return [_guess(section, name, hints.get(name), default) for name, default in defaults.items()]


def _guess(section: str, name: str, hint: Any, default: Any) -> Guess:
    kind, required = _plain_type(hint, default), default is _REQUIRED
    note = "no default" if required else f"default {_format_default(default)}"
    value = default if required else None
    if _has(_FIXED, name):
        return Guess(section, name, None, False, f"the task or the data decides it; {note}", value)
    words, usual, spec = "", default, None
    if kind in (int, float):
        words = next((words for words in _USUAL[kind] if _has(words, name)), "")
        usual = _USUAL[kind].get(words) if required or default is None else default
        if usual is not None and 0 <= usual < math.inf and kind(usual) == usual:
            spec = _number_range(words, kind, kind(usual))
    elif choices := _all_choices(hint, kind):
        words = _CHOICE if kind is not bool and _has(_CHOICE, name) else ""
        usual = default.name if isinstance(default, enum.Enum) else choices[0]
        spec = {"type": "categorical", "choices": choices}
    if spec is None:
        return Guess(section, name, None, False, f"{_ADVICE.get(kind, 'not guessed')}; {note}", value)
    doubt = next((doubt for pattern, doubt in _DOUBTS.items() if _has(pattern, name)), "" if words else "perhaps; ")
    if section == "data" and kind is int and not doubt and not _has("batch_?size", name):
        doubt = "the model may depend on it; "
    needs_value = required or isinstance(default, enum.Enum)  # of an Enum, YAML holds the name
    return Guess(section, name, spec, not doubt, doubt + note, usual if needs_value else None)


def _plain_type(hint: Any, default: Any) -> Any:
    """Return the type of an argument, without None: of its annotation, otherwise of its default."""
    if hint is None or hint is Any:
        return None if default is _REQUIRED or default is None else type(default)
    inner = [one for one in get_args(hint) if one is not NoneType] if get_origin(hint) in (Union, UnionType) else [hint]
    return inner[0] if len(inner) == 1 else float if {*inner} == {int, float} else None


def _number_range(words: str, kind: type, default: Any) -> dict[str, Any] | None:
    """Return what to try around a default, by the words that the argument's name has."""
    if words == _COUNT:
        return {"type": "int", "low": max(1, default - 1) if default else 0, "high": default + 2}
    if words == _DROPOUT and default <= 1:
        return {"type": "uniform", "low": 0.0, "high": max(0.5, default)}
    if words == _AVERAGE and default <= 1:
        return {"type": "uniform", "low": min(0.8, default), "high": 0.99 if default <= 0.99 else max(0.9999, default)}
    if words == _SCALE and default == 0:  # which no logarithmic range holds
        return {"type": "categorical", "choices": [0.0, 1e-5, 1e-4, 1e-3, 1e-2]}
    if not default:
        return None
    if kind is int and default > 1 and default & (default - 1) == 0:  # a power of two stays one
        choices = {max(1, default * 4 // factor) for factor in (1, 2, 4, 8, 16)}
        return {"type": "categorical", "choices": sorted(choices)}
    if kind is int:
        return {"type": "int_log" if default >= 8 else "int", "low": max(1, default // 4), "high": default * 4}
    low, high = default / 10, default * 10
    if words == _SCALE:
        low, high = default / 100, max(high, min(default * 100, 1.0))
    elif default < 1:  # it may be a probability or a factor
        high = max(default, min(high, (1 + default) / 2, 0.9999))
    low, high = float(f"{low:.4g}"), float(f"{high:.4g}")
    return {"type": "loguniform", "low": low, "high": high} if low > 0 and high < math.inf else None


def _all_choices(hint: Any, kind: Any) -> list[Any] | None:
    """Return the values of a type that has few; None where there is no choice."""
    choices: list[Any] = []
    if kind is bool:
        choices = [True, False]
    elif get_origin(kind) is Literal:
        choices = [choice for choice in get_args(kind) if isinstance(choice, (str, int, NoneType))]
    elif inspect.isclass(kind) and issubclass(kind, enum.Enum):
        choices = [member.name for member in kind]
    if choices and NoneType in get_args(hint):
        choices.append(None)
    return choices if len(choices) > 1 else None


def _format_default(value: Any) -> str:
    if isinstance(value, (bool, NoneType)):
        return _flow(value)
    text = value.name if isinstance(value, enum.Enum) else " ".join(repr(value).split())
    return text if len(text) <= 40 else f"{text[:40]}…"


def find_logged_metrics(model: Any) -> list[str]:
    """Return the names that a model's source hands to ``log`` and ``log_dict`` as text, its own before its bases'."""
    names: list[str] = []
    for owner in model.__mro__ if inspect.isclass(model) else (model,):
        if getattr(owner, "__module__", "").split(".")[0] in ("lightning", "torch", "builtins"):
            continue
        with contextlib.suppress(OSError, TypeError, SyntaxError):  # no source, or none that stands alone
            for call in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(owner)))):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.args:
                    first = call.args[0]
                    keys = {"log": [first], "log_dict": getattr(first, "keys", [])}.get(call.func.attr, [])
                    names += [key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
    return list(dict.fromkeys(names))


_VALIDATION = r"(^|[_/ ])(val|valid|validation|dev)([_/ ]|$)"
_HIGHER_IS_BETTER = (
    r"(^|[_/ ])(acc|f1|auc|auroc|ap|precision|recall|dice|iou|r2|psnr|ssim|bleu|rouge|score|reward|kappa|mcc)"
)


def choose_metric(logged: list[str]) -> tuple[str, str] | None:
    """Return which of these metrics to tune, and its direction; None where none is of a validation."""
    validated = [name for name in logged if re.search(_VALIDATION, name.lower())]
    if not validated:
        return None
    chosen = next((name for name in validated if name.lower().endswith("loss")), validated[0])
    return chosen, "maximize" if re.search(_HIGHER_IS_BETTER, chosen.lower()) else "minimize"
