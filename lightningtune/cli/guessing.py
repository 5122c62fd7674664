"""Guessing a search space from the arguments of a class: by name, by annotation and by default."""

from __future__ import annotations

import enum
import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from lightningtune.config.signatures import REQUIRED, signature_of, type_hints


@dataclass(frozen=True)
class Guess:
    """What one argument might vary over.

    Attributes:
        name: the argument's.
        spec: its entry in a search space; None where nothing could be guessed.
        is_sure: whether it is to be tuned without anybody having looked at it.
        note: why it is not, or what the default is.
        value: what a config needs to hold for it, where it has no default or one that is no YAML value.
        is_required: whether it has no default.
    """

    name: str
    spec: Mapping[str, Any] | None
    is_sure: bool
    note: str
    value: Any = None
    is_required: bool = False


def guess_space(target: Callable[..., Any]) -> list[Guess]:
    """Guess what the arguments of a class or a function might vary over, in their order.

    Example:
        >>> def net(lr: float = 1e-3, hidden: int = 64, num_classes: int = 10): ...
        >>> for guess in guess_space(net):
        ...     print(guess.name, guess.is_sure, guess.spec, guess.note)
        lr True {'type': 'loguniform', 'low': 1e-05, 'high': 0.1} default 0.001
        hidden True {'type': 'categorical', 'choices': [16, 32, 64, 128, 256]} default 64
        num_classes False None the task or the data decides it; default 10
    """
    hints = type_hints(target)
    return [_guess(name, hints.get(name), default) for name, default in signature_of(target).defaults.items()]


def _guess(name: str, hint: Any, default: Any) -> Guess:
    is_required = default is REQUIRED
    shown = "no default" if is_required else f"default {_shown(default)}"
    kind = _kind(hint, default)
    is_fixed = _matches(_FIXED, name)
    spec = None if is_fixed else _of_choices(hint, default) or _of_number(name, kind, default)
    if spec is None:
        reason = "the task or the data decides it" if is_fixed else _unknown(name, hint, kind)
        return Guess(name, None, False, f"{reason}; {shown}", is_required=is_required)
    doubt = next((said for words, said in _DOUBTS.items() if _matches(words, name)), None)
    tuned = _TUNED if kind in (int, float) else (_CHOICES,) if kind is not bool else ()
    is_above = isinstance(default, (int, float)) and default > 1 and _matches(_SHARES, name)  # no share of anything
    if doubt is None and (is_above or not any(_matches(words, name) for words in tuned)):
        doubt = "perhaps"
    note = f"{doubt}; {shown}" if doubt else shown
    value = _middle(spec) if is_required else default.name if isinstance(default, enum.Enum) else None
    return Guess(name, spec, doubt is None, note, value, is_required)


_FIXED = (
    r"seeds?|random_state|.*workers|.*classes|n_?class|num_labels|vocab.*|.*_vocab|pad_(idx|token)|.*_idx|.*_index|task|mode|"
    r"in_(channels|features|dim|size)|out_(channels|features|dim|size)|input.*|output.*|n?_?channels_in|num_channels|"
    r"n_(features|inputs|outputs|channels)|num_(features|inputs|outputs)|im(age|g)_?(size|channels|height|width)|.*(path|dir|root|folder|file|url)|"
    r"max_epochs|max_steps|num_epochs|epochs|total_steps|.*_every.*|log_.*|.*verbose|debug|pin_memory|.*download|"
    r"persistent.*|shuffle|drop_last|size|dim|features|channels|resolution|crop.*|(.*_)?shape|(train|val|test)_.*(size|split|fraction|ratio)|sequence_length|seq_len.*|max_len.*|context_length|"
    r"horizon|.*checkpoint.*|compile|device|threshold"
)
"""Names of what a search had better not touch."""
_PARTS = r"(_(backbone|body|head|encoder|decoder|generator|discriminator|actor|critic|[gd]|init|base|max|\d+))?"
_RATES = r"(.*_)?(lr|learning_?rate|eta)" + _PARTS
_DECAYS = (
    r"(.*_)?(wd|weight_decay|l1|l2|reg|regulari[sz]ation|lambda_?)(_(coeff?(icient)?|weight|strength|penalty|loss))?"
    + _PARTS
)
_FACTORS = (
    r"(?!.*(weight|ema)_decay)(.*_)?(decay|factor|discount)(_rate)?|(lr|learning_?rate)_(gamma|mult(iplier)?|scale)"
)
"""What something is multiplied with, again and again."""
_DROPS = r"(.*_)?(p_?)?drop(out|path)?(_?(p|prob|rate|connect|path|out))*|.*drop(out|path).*"
_SHARES = r"(.*_)?(p|prob|probability|fraction|ratio|smoothing|label_smoothing|mixup|cutmix|noise)(_.*)?"
_AVERAGES = r"(.*_)?(momentum|beta_?\d?|betas?|ema|ema_decay|gamma|rho)"
_SIZES = r".*(hidden|width|units|neurons|embed|emb|d_model|d_ff|ffn|latent|filters|channels|dim|size|features|rank).*"
_CHOICES = (
    r"(.*_)?(act(ivation)?|non_?linearity|norm(ali[sz]ation)?|optim(izer)?|solver|(lr_)?sched(uler)?|init(iali[sz]ation)?)"
    r"(_(fn|layer|name|type))?"
)
_BATCH = r"(.*_)?batch_?size"
_COUNTS = r"(n|num|n_)?_?.*(layers?|blocks?|depth|stages?)$"
_TUNED = (_RATES, _DECAYS, _DROPS, _SHARES, _AVERAGES, _SIZES, _BATCH, _COUNTS)
_DOUBTS = {
    r".*heads": "must divide another size",
    r"(.*_)?(kernel|stride|padding|dilation|patch|window|pool|bins).*": "changes the shapes",
    r"(?!.*(hidden|base|mid|inner|conv|stem|latent)).*channels.*": "the data may decide it",
    r"(.*_)?(warm_?up.*|step_size|patience|t_max)|" + _FACTORS: "depends on how long a trial trains",
    r"(.*_)?eps(ilon)?": "seldom worth it",
}
"""Names that may be tuned, though not by themselves."""


def _matches(words: str, name: str) -> bool:
    return re.fullmatch(words, name.lower().strip("_")) is not None


def _kind(hint: Any, default: Any) -> Any:
    """Return the plain type of an argument, by its annotation, else by its default."""
    inner = [one for one in get_args(hint) if one is not NoneType] if get_origin(hint) in (Union, UnionType) else [hint]
    if hint is None or hint is Any:
        return None if default is REQUIRED or default is None else type(default)
    return inner[0] if len(inner) == 1 else float if {*inner} == {int, float} else None


def _of_choices(hint: Any, default: Any) -> dict[str, Any] | None:
    """Guess for booleans, Literals and Enums: all of them."""
    kind = _kind(hint, default)
    choices: list[Any] = []
    if kind is bool:
        choices = [True, False]
    elif get_origin(kind) is Literal:
        choices = [choice for choice in get_args(kind) if isinstance(choice, (str, int, type(None)))]
    elif inspect.isclass(kind) and issubclass(kind, enum.Enum):
        choices = [member.name for member in kind]
    if choices and NoneType in get_args(hint):
        choices.append(None)
    return {"type": "categorical", "choices": choices} if len(choices) > 1 else None


def _of_number(name: str, kind: Any, default: Any) -> dict[str, Any] | None:
    given = default if isinstance(default, (int, float)) and not isinstance(default, bool) else None
    if given is not None and not math.isfinite(given):
        return None
    if kind is float:
        return _of_real(name, given)
    return _of_integer(name, given) if kind is int else None


def _of_real(name: str, given: float | None) -> dict[str, Any] | None:
    if given is not None and given < 0:
        return None
    if _matches(_RATES, name):
        middle = 1e-3 if given is None else given
        return _log(middle / 100, max(middle * 10, min(middle * 100, 1.0))) if middle else None
    if _matches(_DECAYS, name):
        if given == 0:  # which no logarithmic range holds
            return {"type": "categorical", "choices": [0.0, 1e-5, 1e-4, 1e-3, 1e-2]}
        middle = given or 1e-4
        return _log(middle / 100, middle * 100)
    if given is not None and given > 1:
        return _log(given / 10, given * 10)
    if _matches(_DROPS, name):
        return _range(0.0, max(0.5, given or 0.0))
    if _matches(_AVERAGES, name):
        middle = 0.9 if given is None else given
        return _range(min(0.8, middle), 0.99 if middle <= 0.99 else max(0.9999, middle))
    if _matches(_FACTORS, name) and (given is None or given >= 0.5):
        middle = 0.5 if given is None else given
        return _range(_rounded(middle / 2), _rounded((1 + middle) / 2))
    if _matches(_FACTORS, name):
        return _log((given or 0.0) / 10, _below_one(given or 0.0, (given or 0.0) * 10))
    if _matches(_SHARES, name):
        return _range(0.0, max(0.3, _below_one(given or 0.0, 2 * (given or 0.0))))
    return _log(given / 10, _below_one(given, given * 10)) if given else None


def _of_integer(name: str, given: float | None) -> dict[str, Any] | None:
    if given is not None and (given < 0 or given != int(given)):
        return None
    if _matches(_COUNTS, name):
        middle = int(2 if given is None else given)
        return {"type": "int", "low": max(1, middle - 1) if middle else 0, "high": middle + 2}
    if _matches(r"(.*_)?kernel.*", name):
        return {"type": "categorical", "choices": sorted({3, 5, 7, 3 if given is None else int(given)})}
    if given is None and not _matches(_SIZES, name) and not _matches(_BATCH, name):
        return None
    middle = int(64 if given is None else given)
    if middle < 1:
        return None
    if middle & (middle - 1) == 0 and middle > 1:  # a power of two stays one
        factors = (1, 2, 4) if _matches(r".*heads", name) else (1, 2, 4, 8, 16)
        top = middle * factors[len(factors) // 2]
        return {"type": "categorical", "choices": sorted({max(1, top // factor) for factor in factors})}
    return {"type": "int_log" if middle >= 8 else "int", "low": max(1, middle // 4), "high": middle * 4}


def _below_one(given: float, high: float) -> float:
    """Return the high end of a range; below one where the default is, which may be a probability or a factor."""
    high = _rounded(min(high, (1 + given) / 2) if given < 1 else high)
    return given if given < 1 <= high else high


def _log(low: float, high: float) -> dict[str, Any] | None:
    low, high = _rounded(low), _rounded(high)
    return {"type": "loguniform", "low": low, "high": high} if low > 0 and high < math.inf else None


def _range(low: float, high: float) -> dict[str, Any]:
    return {"type": "uniform", "low": low, "high": high}


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _middle(spec: Mapping[str, Any]) -> Any:
    """Return a value from the middle of a range, for a config to hold."""
    if "choices" in spec:
        choices = spec["choices"]
        return choices[len(choices) // 2] if isinstance(choices[0], int) else choices[0]
    if spec["type"] == "loguniform":
        return _rounded(math.sqrt(spec["low"] * spec["high"]))
    middle = (spec["low"] + spec["high"]) / 2
    return int(middle) if spec["type"].startswith("int") else _rounded(middle)


def _unknown(name: str, hint: Any, kind: Any) -> str:
    if kind in (int, float):
        return f"say a range, as {{type: {'int' if kind is int else 'uniform'}, low: …, high: …}}"
    if kind is str:
        return "say the choices, as {type: categorical, choices: […, …]}"
    if inspect.isclass(kind) and kind.__module__ != "builtins":
        return f"a class, as {{class_path: package.{kind.__name__}, init_args: {{…}}}}"
    annotation = "" if hint is None else f"{inspect.formatannotation(hint)}: "
    return f"{annotation}not guessed"


def _shown(value: Any) -> str:
    if isinstance(value, (bool, type(None))):
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, enum.Enum):
        return value.name
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"{text[:40]}…"
