"""The forms of a parameter, and what is said of one that is none of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightningtune.errors import SearchSpaceError, did_you_mean

FORMS: Mapping[str, tuple[str, ...]] = {
    "uniform": ("low", "high"),
    "loguniform": ("low", "high"),
    "discrete_uniform": ("low", "high", "q"),
    "int": ("low", "high", "step"),
    "int_log": ("low", "high"),
    "categorical": ("choices",),
}
"""The forms of a parameter, each with its arguments; only the ``step`` of ``int`` may be left out."""

_ELSEWHERE = {
    "float": "uniform",
    "real": "uniform",
    "log": "loguniform",
    "log_uniform": "loguniform",
    "log_float": "loguniform",
    "quniform": "discrete_uniform",
    "integer": "int",
    "randint": "int",
    "logint": "int_log",
    "log_int": "int_log",
    "choice": "categorical",
    "choices": "categorical",
}
"""What other libraries call them, for suggestions."""


def form_of(kind: str) -> str:
    """Write a form out.

    Example:
        >>> form_of("int")
        "('int', low, high, [step])"
    """
    arguments = [f"[{a}]" if (kind, a) == ("int", "step") else a for a in FORMS[kind]]
    return f"({', '.join([repr(kind), *arguments])})"


def check_kind(name: str, kind: Any, bare: Sequence[Any] = ()) -> str:
    """Return ``kind`` when it is one.

    Args:
        name: the parameter's name.
        kind: what was given for it.
        bare: the whole sequence it came first in: perhaps a range or choices, written without saying which.

    Raises:
        SearchSpaceError: suggesting what was meant.
    """
    if isinstance(kind, str) and kind in FORMS:
        return kind
    hint = _hint(kind, bare)
    raise SearchSpaceError(f"'{name}': {kind!r} is not a kind of parameter.{hint} Allowed: {', '.join(FORMS)}.")


def _hint(kind: Any, bare: Sequence[Any]) -> str:
    if isinstance(kind, str):
        known = _ELSEWHERE.get(kind.lower())
        hint = f" Did you mean '{known}'?" if known else did_you_mean(kind, FORMS)
        if hint or not all(isinstance(value, str) for value in bare):
            return hint
    if not bare:
        return ""
    likely = repr(("categorical", [*bare]))
    if len(bare) == 2 and {*map(type, bare)} <= {int, float} and bare[0] < bare[1]:
        is_integral = {*map(type, bare)} == {int}
        likely = f"{('int' if is_integral else 'uniform', *bare)!r} or {likely}"
    return f" Did you mean {likely}?"


def nested_path(name: str, spec: Any) -> str | None:
    """Return the dotted name of the first parameter in a mapping of parameters; None where it is no such mapping.

    Example:
        >>> nested_path("model", {"init_args": {"lr": ("uniform", 0, 1)}})
        'model.init_args.lr'
    """
    arguments = {"type", "paths", *(argument for form in FORMS.values() for argument in form)}
    while isinstance(spec, Mapping) and spec and not arguments & spec.keys():
        key, spec = next(iter(spec.items()))
        name += f".{key}"
    # imported where it is used: the command line reads the forms without waiting for Optuna
    from optuna.distributions import BaseDistribution

    is_spec = "type" in spec if isinstance(spec, Mapping) else isinstance(spec, (list, tuple, BaseDistribution))
    return name if is_spec else None
