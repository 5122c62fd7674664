"""One parameter: a tuple, a list, a YAML mapping or an Optuna distribution becomes a `Parameter`."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from lightningtune.search.choices import read_choices, storable
from lightningtune.search.forms import FORMS, check_kind, form_of, nested_path


class NoDefault(Exception):  # noqa: N818 - a finding, not an error
    """The user's own defaults cannot be expressed in the search space; the message says why."""


@dataclass(frozen=True)
class Parameter:
    """One dimension of a search space.

    Attributes:
        name: what Optuna knows it by.
        distribution: what Optuna samples from.
        paths: the config paths (or bare parameter names) that receive the value.
        choices: the values of a categorical as they were given, in the order of ``distribution.choices``; empty
            otherwise. They differ from what Optuna stores where Optuna cannot store the value itself.
    """

    name: str
    distribution: BaseDistribution
    paths: tuple[str, ...]
    choices: tuple[Any, ...] = ()

    def suggest(self, trial: Any) -> Any:
        """Sample from an Optuna trial (or anything with its ``suggest_*`` methods) and return the value.

        Raises:
            SearchSpaceError: when the parameter is another than in earlier trials, or a queued value does not fit it.
        """
        self._store_queued(trial)
        try:
            return self._suggest(trial)
        except ValueError as error:
            changed = self._changed(trial)
            if changed is None:
                raise
            raise SearchSpaceError(changed) from error

    def _suggest(self, trial: Any) -> Any:
        d = self.distribution
        if isinstance(d, FloatDistribution):
            return trial.suggest_float(self.name, d.low, d.high, step=d.step, log=d.log)
        if isinstance(d, IntDistribution):
            return trial.suggest_int(self.name, d.low, d.high, step=d.step, log=d.log)
        return self.value_of(trial.suggest_categorical(self.name, self._stored))

    def _store_queued(self, trial: Any) -> None:
        """Replace a value that a user has queued, such as a list, by what Optuna stores for it."""
        queued = queued_values(trial)
        if self.name not in queued or (self.choices and index_of(self._stored, queued[self.name]) is not None):
            return
        try:
            trial._fixed_params = {**queued, self.name: self.stored_as(queued[self.name])}
        except NoDefault as error:
            raise SearchSpaceError(f"enqueue_trial: {error}.") from None

    def _changed(self, trial: Any) -> str | None:
        """Say how this parameter differs from what it was in a trial before, where Optuna does not allow that."""
        trials = trial.study.get_trials(deepcopy=False) if isinstance(trial, Trial) else ()
        for other in trials:
            before = other.distributions.get(self.name)
            if before is None or _is_compatible(before, self.distribution):
                continue
            kept = Parameter(self.name, before, self.paths, getattr(before, "choices", ()))
            return (
                f"'{self.name}' is {describe(kept)} in one trial, and {describe(self)} in another. Optuna keeps a "
                "parameter's kind, its choices and whether its range is logarithmic. Give each of them a name of its "
                f"own, such as '{self.name}_{len(self.choices) or 2}', and have the function return "
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
        """Map a value to what Optuna stores for it.

        Raises:
            NoDefault: when the value cannot be expressed by this parameter.
        """
        if self.choices:
            index = index_of(self.choices, value)
            if index is None:
                raise NoDefault(f"{self.name}={value!r} is not among its choices {list(self.choices)!r}")
            return self._stored[index]
        value = as_python(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not _is_finite(value):
            raise NoDefault(f"{self.name}={value!r} is not a number, its range is {describe(self)}")
        if isinstance(self.distribution, IntDistribution) and value != int(value):
            raise NoDefault(f"{self.name}={value!r} is not an integer, its range is {describe(self)}")
        if getattr(self.distribution, "log", False) and value <= 0:
            raise NoDefault(f"{self.name}={value!r} has no logarithm, its range is {describe(self)}")
        return value

    @property
    def corners(self) -> tuple[Any, ...]:
        """The values at the ends: low and high, or every choice."""
        if self.choices:
            return self.choices
        return (self.distribution.low, self.distribution.high)  # type: ignore[attr-defined]

    @property
    def count(self) -> int | None:
        """How many values there are, or None when there is no end to them."""
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
        """Every value as Optuna stores it, or None when there is no end to them."""
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
        return self.name == other.name and same(self.to_spec(), other.to_spec())  # Optuna's 1 equals its True


def queued_values(trial: Any) -> Mapping[str, Any]:
    """Return what was queued for a trial, by name.

    Optuna keeps it in a private attribute of the trial; there is no public way.
    """
    queued: Mapping[str, Any] = getattr(trial, "_fixed_params", {})
    return queued


def _is_compatible(one: BaseDistribution, other: BaseDistribution) -> bool:
    try:
        check_distribution_compatibility(one, other)
    except ValueError:
        return False
    return True


def describe(parameter: Parameter) -> str:
    """Say a parameter's range in a few words, for people.

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

    Args:
        name: the parameter's name; also the config path it feeds, unless ``spec`` has ``paths``.
        spec: ``("loguniform", 1e-5, 0.1)``, the same as a list, ``{"type": "loguniform", "low": 1e-5, "high": 0.1}``
            (with ``paths`` where one value feeds several), an Optuna distribution, or a parameter of that name.

    Raises:
        SearchSpaceError: naming the parameter, what is wrong and what would be right.

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
        return Parameter(name, _checked(name, spec), (name,))
    if isinstance(spec, Mapping):
        return _from_mapping(name, spec)
    spec = as_python(spec)
    if isinstance(spec, Sequence) and not isinstance(spec, str) and spec:
        kind, *values = spec
        arguments = FORMS[check_kind(name, kind, bare=spec)]
        required = len(arguments) - (kind == "int")
        if not required <= len(values) <= len(arguments):
            raise SearchSpaceError(f"'{name}': {form_of(kind)} is the form, but got {tuple(spec)!r}.")
        return _from_mapping(name, {"type": kind, **dict(zip(arguments, values, strict=False))})
    raise SearchSpaceError(f"'{name}': expected one of {', '.join(map(form_of, FORMS))}, but got {spec!r}.")


def _from_mapping(name: str, spec: Mapping[str, Any]) -> Parameter:
    if "type" not in spec:
        inner = nested_path(name, spec)
        if inner is not None:
            raise SearchSpaceError(f"'{name}': a search space is flat, with dotted names. Did you mean '{inner}'?")
        raise SearchSpaceError(f"'{name}': a mapping needs 'type', one of {', '.join(FORMS)}; got {dict(spec)!r}.")
    kind = check_kind(name, spec["type"])
    allowed = ("type", *FORMS[kind], "paths")
    for key in spec:
        if key not in allowed:
            hint = did_you_mean(str(key), allowed)
            raise SearchSpaceError(f"'{name}': {kind} has no '{key}'.{hint} Allowed: {', '.join(allowed)}.")
    missing = [a for a in FORMS[kind] if a not in spec and (kind, a) != ("int", "step")]
    if missing:
        raise SearchSpaceError(f"'{name}': {kind} needs {' and '.join(missing)}; got {dict(spec)!r}.")
    paths = _paths(name, spec.get("paths", [name]))
    if kind == "categorical":
        return _categorical(name, spec["choices"], paths)
    return Parameter(name, _numerical(name, kind, spec), paths)


def _paths(name: str, paths: Any) -> tuple[str, ...]:
    well_formed = isinstance(paths, Sequence) and not isinstance(paths, str) and bool(paths)
    if not well_formed or not all(isinstance(path, str) and path for path in paths):
        raise SearchSpaceError(f"'{name}': paths must be a list of config paths, but got {paths!r}.")
    if len(set(paths)) != len(paths):
        raise SearchSpaceError(f"'{name}': paths names a path twice: {list(paths)!r}.")
    return tuple(paths)


def _numerical(name: str, kind: str, spec: Mapping[str, Any]) -> BaseDistribution:
    integral = kind.startswith("int")
    number: Callable[[str, str, Any], Any] = _integer if integral else _real
    low, high = number(name, "low", spec["low"]), number(name, "high", spec["high"])
    step_key = FORMS[kind][2] if len(FORMS[kind]) == 3 else None
    step = number(name, step_key, spec[step_key]) if step_key and spec.get(step_key) is not None else None
    if low > high:
        raise SearchSpaceError(f"'{name}': low must not be above high, but got low={low}, high={high}.")
    if kind.endswith(("log", "loguniform")) and low <= 0:
        raise SearchSpaceError(f"'{name}': a logarithmic range must be above 0, but got low={low}.")
    if step is not None and step <= 0:
        raise SearchSpaceError(f"'{name}': {step_key} must be above 0, but got {step}.")
    try:
        if integral:
            return _checked(name, IntDistribution(low, high, log=kind == "int_log", step=step or 1))
        return _checked(name, FloatDistribution(low, high, log=kind == "loguniform", step=step))
    except ArithmeticError:  # Optuna counts the steps
        raise too_fine(name, step) from None


_LONGEST = 2**63
"""Integers below it fit 64 bits, as storages and tensors have them."""


def _checked(name: str, distribution: BaseDistribution) -> BaseDistribution:
    """Refuse a range from which no sampler can draw."""
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    step = distribution.step or 0  # type: ignore[attr-defined]
    if isinstance(distribution, IntDistribution) and not (-_LONGEST <= low <= high < _LONGEST and step < _LONGEST):
        raise SearchSpaceError(f"'{name}': an integer must fit 64 bits, but got low={low}, high={high}, step={step}.")
    if not math.isfinite(high - low + step):
        raise SearchSpaceError(f"'{name}': a range from {low} to {high} is wider than the largest float.")
    if isinstance(distribution, FloatDistribution) and step and (high - low) / step > 2**53:
        raise too_fine(name, step)
    return distribution


def too_fine(name: str, step: Any) -> SearchSpaceError:
    """Return the error of a step that divides a range into more points than a float tells apart."""
    return SearchSpaceError(f"'{name}': steps of {step} are too small for the range. Leave the step out.")


def _real(name: str, key: str, value: Any) -> float:
    return float(_number(name, key, value, "a finite number"))


def _integer(name: str, key: str, value: Any) -> int:
    number = _number(name, key, value, "an integer")
    if number != int(number):
        raise SearchSpaceError(f"'{name}': {key} must be an integer, but got {value!r}.")
    return int(number)


def _number(name: str, key: str, value: Any, wanted: str) -> int | float:
    number = as_python(value)
    if isinstance(number, str):  # plain PyYAML reads 1e-5 as a string
        with contextlib.suppress(ValueError):
            number = float(number)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not _is_finite(number):
        raise SearchSpaceError(f"'{name}': {key} must be {wanted}, but got {briefly(value)}.")
    return number


def _is_finite(number: int | float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer beyond the largest float
        return False


def _categorical(name: str, choices: Any, paths: tuple[str, ...]) -> Parameter:
    values = read_choices(name, choices)
    return Parameter(name, CategoricalDistribution(storable(values)), paths, values)
