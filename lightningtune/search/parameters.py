"""One parameter of a search space: a tuple, a list, a YAML mapping or an Optuna distribution becomes a `Parameter`."""

from __future__ import annotations

import contextlib
import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
)
from optuna.trial import Trial

from lightningtune.config.values import as_python, briefly, index_of, is_storable, plain, same
from lightningtune.errors import SearchSpaceError, did_you_mean

FORMS: Mapping[str, tuple[str, ...]] = {
    "uniform": ("low", "high"),
    "loguniform": ("low", "high"),
    "discrete_uniform": ("low", "high", "q"),
    "int": ("low", "high", "step"),
    "int_log": ("low", "high"),
    "categorical": ("choices",),
}
"""The kinds of a parameter, each with its arguments; only the ``step`` of ``int`` may be left out."""

_NAMES_ELSEWHERE: Mapping[str, Sequence[str]] = {
    "uniform": ["float", "real"],
    "loguniform": ["log", "log_uniform", "log_float"],
    "discrete_uniform": ["quniform"],
    "int": ["integer", "randint"],
    "int_log": ["logint", "log_int"],
    "categorical": ["choice", "choices"],
}
"""What other libraries call the kinds."""

_MAX_INTEGER = 2**63
"""Storages and tensors hold integers of 64 bits."""


class NoDefault(Exception):  # noqa: N818 - a finding, not an error
    """The user's own defaults cannot be expressed in the search space; the message says why."""


@dataclass(frozen=True)
class Parameter:
    """One dimension of a search space.

    Attributes:
        name: what Optuna knows it by.
        distribution: what Optuna samples from.
        paths: the config paths (or bare parameter names) that receive the value.
        choices: the values of a categorical as the user gave them, in the order of ``distribution.choices``; empty for
            numbers. They differ from ``distribution.choices`` where Optuna cannot store a value itself.
    """

    name: str
    distribution: BaseDistribution
    paths: tuple[str, ...]
    choices: tuple[Any, ...] = ()

    def suggest(self, trial: Any) -> Any:
        """Sample from an Optuna trial, or anything with its ``suggest_*`` methods, and return the value."""
        self._store_queued(trial)
        d = self.distribution
        try:
            if isinstance(d, FloatDistribution):
                return trial.suggest_float(self.name, d.low, d.high, step=d.step, log=d.log)
            if isinstance(d, IntDistribution):
                return trial.suggest_int(self.name, d.low, d.high, step=d.step, log=d.log)
            return self.value_of(trial.suggest_categorical(self.name, self._stored))
        except ValueError as error:
            change = self._describe_change(trial)
            if change is None:
                raise
            raise SearchSpaceError(change) from error

    def _store_queued(self, trial: Any) -> None:
        """Replace a value that a user has queued, such as a list, by what Optuna stores for it."""
        queued = queued_values(trial)
        if self.name not in queued or (self.choices and index_of(self._stored, queued[self.name]) is not None):
            return
        try:
            trial._fixed_params = {**queued, self.name: self.stored_as(queued[self.name])}
        except NoDefault as error:
            raise SearchSpaceError(f"enqueue_trial: {error}.") from None

    def _describe_change(self, trial: Any) -> str | None:
        """Say how this parameter differs from an earlier trial's, where Optuna does not allow the difference."""
        for other in trial.study.get_trials(deepcopy=False) if isinstance(trial, Trial) else ():
            before = other.distributions.get(self.name, self.distribution)
            try:
                check_distribution_compatibility(before, self.distribution)
            except ValueError:
                earlier = Parameter(self.name, before, self.paths, getattr(before, "choices", ()))
                return (
                    f"'{self.name}' is {describe(earlier)} in one trial, and {describe(self)} in another. Optuna keeps "
                    "a parameter's kind, its choices and whether its range is logarithmic. Give each of them a name of "
                    f"its own, such as '{self.name}_{len(self.choices) or 2}', and have the function return "
                    f"{{'{self.paths[0]}': value}}."
                )
        return None

    @property
    def _stored(self) -> tuple[Any, ...]:
        assert isinstance(self.distribution, CategoricalDistribution)
        return self.distribution.choices

    def value_of(self, stored: Any) -> Any:
        """Map what Optuna stores to the value that the config receives."""
        if not self.choices:
            return stored
        index = index_of(self._stored, stored)
        if index is None:
            raise SearchSpaceError(f"{self.name}={stored!r} is not among what is stored: {list(self._stored)!r}.")
        return copy.deepcopy(self.choices[index])

    def stored_as(self, value: Any) -> Any:
        """Map a value to what Optuna stores for it; raise `NoDefault` when this parameter cannot express the value."""
        if self.choices:
            index = index_of(self.choices, value)
            if index is None:
                raise NoDefault(f"{self.name}={value!r} is not among its choices {list(self.choices)!r}")
            return self._stored[index]
        number = as_python(value)
        reason = None
        if not _is_finite_number(number):
            reason = "is not a number"
        elif isinstance(self.distribution, IntDistribution) and number != int(number):
            reason = "is not an integer"
        elif getattr(self.distribution, "log", False) and number <= 0:
            reason = "has no logarithm"
        if reason is not None:
            raise NoDefault(f"{self.name}={number!r} {reason}, its range is {describe(self)}")
        return number

    @property
    def ends(self) -> tuple[Any, ...]:
        """The lowest and the highest value, or every choice."""
        return self.choices or (self.distribution.low, self.distribution.high)  # type: ignore[attr-defined]

    @property
    def count(self) -> int | None:
        """The number of values; None when there is no end to them."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return len(d.choices)
        if isinstance(d, IntDistribution):
            return (d.high - d.low) // d.step + 1
        if isinstance(d, FloatDistribution) and (d.step or d.single()):
            return round((d.high - d.low) / (d.step or 1.0)) + 1
        return None

    @property
    def grid(self) -> list[Any] | None:
        """Every value as Optuna stores it; None when there is no end to them."""
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return list(d.choices)
        if isinstance(d, IntDistribution):
            return list(range(d.low, d.high + 1, d.step))
        if isinstance(d, FloatDistribution) and self.count is not None:
            return [min(d.low + i * (d.step or 0.0), d.high) for i in range(self.count)]
        return None

    def to_spec(self) -> dict[str, Any]:
        """Return the YAML form that `parse_parameter` reads back."""
        d = self.distribution
        form: dict[str, Any]
        if isinstance(d, CategoricalDistribution):
            form = {"type": "categorical", "choices": plain(self.choices)}
        elif isinstance(d, IntDistribution):
            form = {"type": "int_log" if d.log else "int", "low": d.low, "high": d.high}
            form |= {"step": d.step} if d.step != 1 else {}
        else:
            assert isinstance(d, FloatDistribution)
            kind = "discrete_uniform" if d.step else "loguniform" if d.log else "uniform"
            form = {"type": kind, "low": d.low, "high": d.high}
            form |= {"q": d.step} if d.step else {}
        return form if self.paths == (self.name,) else form | {"paths": list(self.paths)}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Parameter):
            return NotImplemented
        return self.name == other.name and same(self.to_spec(), other.to_spec())  # to Optuna, 1 equals True


def queued_values(trial: Any) -> Mapping[str, Any]:
    """Return what was queued for a trial, by name.

    Optuna keeps it in a private attribute of the trial; there is no public way.
    """
    queued: Mapping[str, Any] = getattr(trial, "_fixed_params", {})
    return queued


def describe(parameter: Parameter) -> str:
    """Say a parameter's range in a few words.

    Example:
        >>> describe(parse_parameter("lr", ("loguniform", 1e-5, 0.1)))
        'loguniform 1e-05 … 0.1'
    """
    spec = parameter.to_spec()
    if parameter.choices:
        texts = map(str, parameter._stored)
        text = ", ".join(text if text.isprintable() else repr(text) for text in texts)
    else:
        text = f"{spec['low']} … {spec['high']}"
        text += "".join(f" step {spec[key]}" for key in ("q", "step") if key in spec)
    feeds = "" if parameter.paths == (parameter.name,) else f" → {', '.join(parameter.paths)}"
    return f"{spec['type']} {text}{feeds}"


def parse_parameter(name: str, spec: Any) -> Parameter:
    """Read one entry of a search space.

    Example:
        >>> parse_parameter("hidden", ("int", 16, 64, 16)).grid
        [16, 32, 48, 64]
    """
    if not isinstance(name, str) or not name or any(not part for part in name.split(".")):
        raise SearchSpaceError(f"A parameter's name must be a name or a dotted path, but got {name!r}.")
    if not is_storable(name):
        raise SearchSpaceError(f"A parameter's name must be text that can be stored, but got {name!r}.")
    if isinstance(spec, Parameter):
        return spec
    if isinstance(spec, CategoricalDistribution):
        return _categorical(name, spec.choices, (name,))
    if isinstance(spec, BaseDistribution):
        _check_drawable(name, spec)
        return Parameter(name, spec, (name,))
    if isinstance(spec, Mapping):
        return _parse_mapping(name, spec)
    spec = as_python(spec)
    if isinstance(spec, Sequence) and not isinstance(spec, str) and spec:
        kind, *values = spec
        _check_kind(name, kind, bare=spec)
        arguments = FORMS[kind]
        required = len(arguments) - (kind == "int")
        if not required <= len(values) <= len(arguments):
            raise SearchSpaceError(f"'{name}': {_write_form(kind)} is the form, but got {tuple(spec)!r}.")
        return _parse_mapping(name, {"type": kind, **dict(zip(arguments, values, strict=False))})
    raise SearchSpaceError(f"'{name}': expected one of {', '.join(map(_write_form, FORMS))}, but got {spec!r}.")


def _write_form(kind: str) -> str:
    arguments = [f"[{a}]" if (kind, a) == ("int", "step") else a for a in FORMS[kind]]
    return f"({', '.join([repr(kind), *arguments])})"


def _check_kind(name: str, kind: Any, bare: Sequence[Any] = ()) -> None:
    """Refuse what is no kind of parameter; ``bare`` is the sequence that it came first in."""
    if not isinstance(kind, str) or kind not in FORMS:
        hint = _guess_form(kind, bare)
        raise SearchSpaceError(f"'{name}': {kind!r} is not a kind of parameter.{hint} Allowed: {', '.join(FORMS)}.")


def _guess_form(kind: Any, bare: Sequence[Any]) -> str:
    """Suggest a kind of a similar name, or the kind of a range or of choices that came without one."""
    if isinstance(kind, str):
        known = next((own for own, others in _NAMES_ELSEWHERE.items() if kind.lower() in others), None)
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


def _parse_mapping(name: str, spec: Mapping[str, Any]) -> Parameter:
    if "type" not in spec:
        inner = _nested_path(name, spec)
        if inner is not None:
            raise SearchSpaceError(f"'{name}': a search space is flat, with dotted names. Did you mean '{inner}'?")
        raise SearchSpaceError(f"'{name}': a mapping needs 'type', one of {', '.join(FORMS)}; got {dict(spec)!r}.")
    kind = spec["type"]
    _check_kind(name, kind)
    allowed = ("type", *FORMS[kind], "paths")
    for key in spec:
        if key not in allowed:
            hint = did_you_mean(str(key), allowed)
            raise SearchSpaceError(f"'{name}': {kind} has no '{key}'.{hint} Allowed: {', '.join(allowed)}.")
    missing = [a for a in FORMS[kind] if a not in spec and (kind, a) != ("int", "step")]
    if missing:
        raise SearchSpaceError(f"'{name}': {kind} needs {' and '.join(missing)}; got {dict(spec)!r}.")
    paths = _parse_paths(name, spec.get("paths", [name]))
    if kind == "categorical":
        return _categorical(name, spec["choices"], paths)
    return Parameter(name, _numerical(name, kind, spec), paths)


def _nested_path(name: str, spec: Any) -> str | None:
    """Return the dotted name of the first parameter in a mapping of parameters; None where it is no such mapping."""
    arguments = {"type", "paths", *(argument for form in FORMS.values() for argument in form)}
    while isinstance(spec, Mapping) and spec and not arguments & spec.keys():
        key, spec = next(iter(spec.items()))
        name += f".{key}"
    is_spec = "type" in spec if isinstance(spec, Mapping) else isinstance(spec, (list, tuple, BaseDistribution))
    return name if is_spec else None


def _parse_paths(name: str, paths: Any) -> tuple[str, ...]:
    well_formed = isinstance(paths, Sequence) and not isinstance(paths, str) and bool(paths)
    if not well_formed or not all(isinstance(path, str) and path for path in paths):
        raise SearchSpaceError(f"'{name}': paths must be a list of config paths, but got {paths!r}.")
    if len(set(paths)) != len(paths):
        raise SearchSpaceError(f"'{name}': paths names a path twice: {list(paths)!r}.")
    return tuple(paths)


def _numerical(name: str, kind: str, spec: Mapping[str, Any]) -> BaseDistribution:
    is_integral = kind.startswith("int")
    low, high = (_parse_number(name, key, spec[key], is_integral) for key in ("low", "high"))
    step_key = "q" if kind == "discrete_uniform" else "step"
    step = None if spec.get(step_key) is None else _parse_number(name, step_key, spec[step_key], is_integral)
    if low > high:
        raise SearchSpaceError(f"'{name}': low must not be above high, but got low={low}, high={high}.")
    is_log = kind in ("loguniform", "int_log")
    if is_log and low <= 0:
        raise SearchSpaceError(f"'{name}': a logarithmic range must be above 0, but got low={low}.")
    if step is not None and step <= 0:
        raise SearchSpaceError(f"'{name}': {step_key} must be above 0, but got {step}.")
    distribution: BaseDistribution
    try:
        if is_integral:
            distribution = IntDistribution(low, high, log=is_log, step=step or 1)
        else:
            distribution = FloatDistribution(low, high, log=is_log, step=step)
        _check_drawable(name, distribution)
    except ArithmeticError:  # Optuna counts the steps
        raise step_too_small(name, step) from None
    return distribution


def _check_drawable(name: str, distribution: BaseDistribution) -> None:
    """Refuse a range from which no sampler can draw."""
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    step = distribution.step or 0  # type: ignore[attr-defined]
    is_integral, limit = isinstance(distribution, IntDistribution), _MAX_INTEGER
    if is_integral and not (-limit <= low <= high < limit and step < limit):
        raise SearchSpaceError(f"'{name}': an integer must fit 64 bits, but got low={low}, high={high}, step={step}.")
    if not math.isfinite(high - low + step):
        raise SearchSpaceError(f"'{name}': a range from {low} to {high} is wider than the largest float.")
    if not is_integral and step and (high - low) / step > 2**53:
        raise step_too_small(name, step)


def step_too_small(name: str, step: Any) -> SearchSpaceError:
    """Return the error of a step that divides a range into more points than a float tells apart."""
    return SearchSpaceError(f"'{name}': steps of {step} are too small for the range. Leave the step out.")


def _parse_number(name: str, key: str, value: Any, is_integral: bool) -> Any:
    number: Any = as_python(value)
    if isinstance(number, str):  # plain PyYAML reads 1e-5 as a string
        with contextlib.suppress(ValueError):
            number = float(number)
    if not _is_finite_number(number) or (is_integral and number != int(number)):
        wanted = "an integer" if is_integral else "a finite number"
        raise SearchSpaceError(f"'{name}': {key} must be {wanted}, but got {briefly(value)}.")
    return int(number) if is_integral else float(number)


def _is_finite_number(value: Any) -> bool:
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond the largest float
        return False


def _categorical(name: str, choices: Any, paths: tuple[str, ...]) -> Parameter:
    """Read the choices of a parameter: any values that a config can hold.

    Members of an Enum, paths and tuples stay what they are; arrays and containers of other packages become Python's.
    """
    choices = as_python(choices)
    is_enum = isinstance(choices, type) and issubclass(choices, Enum)
    if not is_enum and (not isinstance(choices, Sequence) or isinstance(choices, (str, bytes))):
        raise SearchSpaceError(f"'{name}': choices must come as one list, but got {choices!r}.")
    values = tuple(choices)
    if not values:
        raise SearchSpaceError(f"'{name}': choices must not be empty.")
    for value in values:
        _check_choice(name, value)
    for i, value in enumerate(values):
        if any(same(value, other) for other in values[:i]):
            raise SearchSpaceError(f"'{name}': the choice {value!r} is given twice.")
    return Parameter(name, CategoricalDistribution(_stored_choices(values)), paths, values)


def _check_choice(name: str, value: Any) -> None:
    try:
        choice = plain(value)
    except TypeError as error:
        raise SearchSpaceError(f"'{name}': a choice must be a YAML value. {error}.") from error
    if isinstance(choice, float) and math.isnan(choice):
        raise SearchSpaceError(f"'{name}': NaN cannot be a choice, since it does not equal itself.")


def _stored_choices(choices: Sequence[Any]) -> list[Any]:
    """Return each choice itself where Optuna can store it and tell it apart, a readable label otherwise.

    Example:
        >>> _stored_choices(["relu", [1, 2], True, 1])
        ['relu', '[1, 2]', True, '1']
    """
    stored: list[Any] = []
    values = [plain(choice) for choice in choices]
    for value in values:
        taken = [*stored, *(text for text in values if isinstance(text, str) and text != value)]
        if (value is None or isinstance(value, (bool, int, float, str))) and value not in taken:
            stored.append(value)
            continue
        label = _label(value)
        labels = [label, json.dumps(value), *(f"{label} #{n}" for n in range(2, len(taken) + 3))]
        stored.append(next(text for text in labels if text not in taken))
    return stored


def _label(value: Any) -> str:
    """Name a choice that Optuna cannot store as it is.

    Example:
        >>> _label({"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}), _label([64, 64])
        ('SGD(lr=0.1)', '[64, 64]')
    """
    if isinstance(value, Mapping) and isinstance(value.get("class_path"), str):
        given = value.get("init_args")
        arguments = ", ".join(f"{k}={_label(v)}" for k, v in given.items()) if isinstance(given, Mapping) else ""
        return f"{value['class_path'].rpartition('.')[2]}({arguments})"
    return json.dumps(value)
