"""Search spaces: a mapping of parameters, a function of the trial, or several of them together."""

from __future__ import annotations

import functools
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import optuna

from lightningtune.errors import SearchSpaceError
from lightningtune.files import dump_yaml, load_yaml, read_mapping
from lightningtune.search.distributions import NoDefault, Parameter, describe, parse_parameter
from lightningtune.search.suggest import RecordingTrial

Answer: TypeAlias = Callable[[Parameter], Any]


class SearchSpace(ABC):
    """What may vary. `SimpleSearchSpace` and `AdvancedSearchSpace` are the two kinds users write.

    Spaces combine with ``|``; a name that both define is an error.
    """

    @abstractmethod
    def collect(self, trial: Any, answer: Answer, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Return config path to value, asking ``answer`` for each parameter whose name is not in ``fixed``."""

    def suggest(self, trial: optuna.trial.BaseTrial, fixed: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Sample this space from an Optuna trial.

        Args:
            trial: the trial that is asked.
            fixed: values that win over the space, by name; they are neither sampled nor returned.

        Returns:
            Config path (or bare parameter name) to value.

        Raises:
            SearchSpaceError: when a function of the trial misbehaves.

        Example:
            >>> space = SimpleSearchSpace({"lr": ("loguniform", 1e-5, 1e-1)})
            >>> space.suggest(optuna.trial.FixedTrial({"lr": 0.01}))
            {'lr': 0.01}
        """
        return self.collect(trial, lambda parameter: parameter.suggest(trial), fixed or {})

    def defaults(self, lookup: Callable[[str], Any]) -> dict[str, Any]:
        """Express the user's own defaults as a point of this space.

        Args:
            lookup: returns the default at a config path, or raises `NoDefault`.

        Returns:
            Parameter name to what Optuna stores for it.

        Raises:
            NoDefault: when there is no such point, saying why.
        """
        point: dict[str, Any] = {}

        def answer(parameter: Parameter) -> Any:
            point[parameter.name] = parameter.stored_as(lookup(parameter.paths[0]))
            return parameter.value_of(point[parameter.name])

        for path, value in self.collect(optuna.trial.FixedTrial({}), answer, {}).items():
            if lookup(path) != value:
                raise NoDefault(f"{path} is {lookup(path)!r} by default, but the search space makes it {value!r}")
        return point

    @property
    def parameters(self) -> tuple[Parameter, ...] | None:
        """The parameters, or None where only running a function would tell."""
        return None

    @property
    def size(self) -> int | None:
        """How many points there are, or None when there is no end to them or no way to tell."""
        grid = self.grid()
        return None if grid is None else math.prod(len(values) for values in grid.values())

    def grid(self) -> dict[str, list[Any]] | None:
        """Return every value of every parameter, as ``optuna.samplers.GridSampler`` takes it.

        Example:
            >>> SimpleSearchSpace({"depth": ("int", 1, 3)}).grid()
            {'depth': [1, 2, 3]}
        """
        if self.parameters is None:
            return None
        grid = {parameter.name: parameter.grid for parameter in self.parameters}
        finite = {name: values for name, values in grid.items() if values is not None}
        return finite if len(finite) == len(grid) else None

    def __or__(self, other: SearchSpaceLike) -> SearchSpace:
        return combine(self, as_search_space(other))

    def __ror__(self, other: SearchSpaceLike) -> SearchSpace:
        return combine(as_search_space(other), self)


class SimpleSearchSpace(SearchSpace):
    """A mapping of parameter names, or dotted config paths, to ranges and choices.

    Args:
        space: name to one of

            - ``("uniform", low, high)``
            - ``("loguniform", low, high)``
            - ``("discrete_uniform", low, high, q)``
            - ``("int", low, high)`` or ``("int", low, high, step)``
            - ``("int_log", low, high)``
            - ``("categorical", choices)``, choices being any YAML values
            - the same as a list, or as a mapping: ``{"type": "int", "low": 8, "high": 64}``; a mapping may have
              ``"paths": [...]`` to feed one value to several config paths
            - any ``optuna.distributions`` object

    Raises:
        SearchSpaceError: naming the parameter and what would be right.

    Example:
        >>> space = SimpleSearchSpace({"hidden": ("int", 32, 128, 32), "act": ("categorical", ["relu", "gelu"])})
        >>> space.size
        8
        >>> print(space)
        2 parameters, 8 points
          hidden  int 32 … 128 step 32
          act     categorical relu, gelu
    """

    def __init__(self, space: Mapping[str, Any]) -> None:
        if not isinstance(space, Mapping):
            raise SearchSpaceError(f"A search space must map names to ranges, but got {space!r}.")
        if not space:
            raise SearchSpaceError("A search space must name at least one parameter, but it is empty.")
        self._parameters = tuple(parse_parameter(name, spec) for name, spec in space.items())
        fed: dict[str, str] = {}
        for parameter in self._parameters:
            for path in parameter.paths:
                if path in fed:
                    raise SearchSpaceError(f"'{path}' is fed by both '{fed[path]}' and '{parameter.name}'.")
                fed[path] = parameter.name

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters, in the order they were given."""
        return self._parameters

    def collect(self, trial: Any, answer: Answer, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Return config path to value; a path in ``fixed`` is left out, a parameter with no path left is not asked."""
        values: dict[str, Any] = {}
        for parameter in self._parameters:
            paths = [path for path in parameter.paths if path not in fixed]
            if parameter.name not in fixed and paths:
                value = answer(parameter)
                values |= dict.fromkeys(paths, value)
        return values

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return plain values that the constructor reads back."""
        return {parameter.name: parameter.to_spec() for parameter in self._parameters}

    def to_yaml(self) -> str:
        """Write the space as YAML."""
        return dump_yaml(self.to_dict())

    @classmethod
    def from_yaml(cls, source: str | os.PathLike[str]) -> SimpleSearchSpace:
        """Read a space from YAML text, or from the path of a YAML or JSON file.

        Example:
            >>> SimpleSearchSpace.from_yaml("lr: {type: loguniform, low: 1e-5, high: 1e-1}").size is None
            True
        """
        if isinstance(source, str) and ("\n" in source or ": " in source):
            return cls(load_yaml(source, "The search space"))
        return cls(read_mapping(source))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SimpleSearchSpace):
            return NotImplemented
        return sorted(self._parameters, key=lambda p: p.name) == sorted(other._parameters, key=lambda p: p.name)

    __hash__ = None  # type: ignore[assignment]  # choices may be lists

    def __repr__(self) -> str:
        return f"SimpleSearchSpace({self.to_dict()!r})"

    def __str__(self) -> str:
        count, size = len(self._parameters), self.size
        width = max(len(parameter.name) for parameter in self._parameters)
        points = "infinitely many points" if size is None else f"{size} point{'s' * (size > 1)}"
        head = f"{count} parameter{'s' * (count > 1)}, {points}"
        return "\n".join([head, *(f"  {p.name:<{width}}  {describe(p)}" for p in self._parameters)])


class AdvancedSearchSpace(SearchSpace):
    """A function of the trial, for parameters that depend on each other.

    Args:
        fn: takes an Optuna trial and uses its ``suggest_float``, ``suggest_int`` and ``suggest_categorical``. When it
            returns None or the trial, each suggested name is a config path or a bare parameter name. When it returns
            a mapping of config path to value, that mapping is what the config receives, and suggested names are free.

    Example:
        >>> def space(trial):
        ...     depth = trial.suggest_int("depth", 1, 3)
        ...     return {"model.hidden": [trial.suggest_int(f"width_{i}", 16, 64) for i in range(depth)]}
        >>> AdvancedSearchSpace(space).suggest(optuna.trial.FixedTrial({"depth": 2, "width_0": 16, "width_1": 32}))
        {'model.hidden': [16, 32]}
    """

    def __init__(self, fn: Callable[[Any], Any]) -> None:
        if not callable(fn):
            raise SearchSpaceError(f"AdvancedSearchSpace takes a function of the trial, but got {fn!r}.")
        self.fn = fn

    def collect(self, trial: Any, answer: Answer, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Run the function and return config path to value, without the paths in ``fixed``."""
        recording = RecordingTrial(trial, answer, fixed)
        result = self.fn(recording)
        if result is None or result is recording:
            result = recording.suggested
        if not isinstance(result, Mapping) or not all(isinstance(path, str) for path in result):
            raise SearchSpaceError(
                f"{self!r} must return None, the trial, or a mapping of config path to value, but returned {result!r}."
            )
        return {path: value for path, value in result.items() if path not in fixed}

    def __eq__(self, other: object) -> bool:
        return self.fn == other.fn if isinstance(other, AdvancedSearchSpace) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.fn)

    def __repr__(self) -> str:
        return f"AdvancedSearchSpace({getattr(self.fn, '__qualname__', self.fn)})"


class CombinedSearchSpace(SearchSpace):
    """Several spaces as one; made by ``|`` and by `override`, where at least one is a function.

    Args:
        parts: the spaces. The first to define a name keeps it when ``override`` is true; otherwise a second
            definition is an error.
        override: whether earlier parts win.
    """

    def __init__(self, parts: tuple[SearchSpace, ...], override: bool = False) -> None:
        self.parts = parts
        self.override = override

    def collect(self, trial: Any, answer: Answer, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Collect from each part in turn."""
        values: dict[str, Any] = {}
        answered: dict[str, Any] = {}
        for part in self.parts:
            own: dict[str, Any] = {}

            once = functools.partial(_answer_once, answer, answered, own)
            found = part.collect(trial, once, {**fixed, **answered, **values} if self.override else fixed)
            twice = values.keys() & found.keys()
            if twice:
                raise SearchSpaceError(f"'{min(twice)}' is defined twice in a combined search space.")
            answered |= own
            values |= found
        return values

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CombinedSearchSpace):
            return NotImplemented
        return (self.parts, self.override) == (other.parts, other.override)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"override({self.parts!r})" if self.override else " | ".join(map(repr, self.parts))


class SectionSearchSpace(SearchSpace):
    """A space with a function in it, whose names are parameters of one section; made by `in_section`.

    Args:
        section: ``model`` or ``data``.
        space: the space.
    """

    def __init__(self, section: str, space: SearchSpace) -> None:
        self.section = section
        self.space = space

    def collect(self, trial: Any, answer: Answer, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Collect from the space, and put the section before each path."""
        found = self.space.collect(trial, lambda parameter: answer(_placed(self.section, parameter)), fixed)
        return {f"{self.section}.{path}": value for path, value in found.items()}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SectionSearchSpace):
            return NotImplemented
        return (self.section, self.space) == (other.section, other.space)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"in_section({self.section!r}, {self.space!r})"


def _answer_once(answer: Answer, earlier: Mapping[str, Any], own: dict[str, Any], parameter: Parameter) -> Any:
    if parameter.name in earlier:
        raise SearchSpaceError(f"'{parameter.name}' is defined twice in a combined search space.")
    own[parameter.name] = answer(parameter)
    return own[parameter.name]


SearchSpaceLike: TypeAlias = SearchSpace | Mapping[str, Any] | Callable[[Any], Any] | str | os.PathLike[str]


def as_search_space(value: SearchSpaceLike) -> SearchSpace:
    """Accept a space wherever one is wanted: itself, a mapping, a function of the trial, or a file's path.

    Raises:
        SearchSpaceError: for anything else.
    """
    if isinstance(value, SearchSpace):
        return value
    if isinstance(value, Mapping):
        return SimpleSearchSpace(value)
    if isinstance(value, (str, os.PathLike)):
        return SimpleSearchSpace(read_mapping(value))
    if callable(value) and not isinstance(value, type):
        return AdvancedSearchSpace(value)
    raise SearchSpaceError(
        f"A search space is a mapping, a function of the trial, a file's path, a SimpleSearchSpace or an "
        f"AdvancedSearchSpace, but got {value!r}."
    )


def combine(*spaces: SearchSpace) -> SearchSpace:
    """Make one space of several; a name defined twice is an error."""
    return functools.reduce(lambda one, other: _join(one, other, override=False), spaces)


def in_section(section: str, space: SearchSpace) -> SearchSpace:
    """Make a space of a class's own parameters one of config paths, so that no name is ambiguous.

    Example:
        >>> in_section("model", SimpleSearchSpace({"lr": ("uniform", 0, 1)})).parameters[0].paths
        ('model.lr',)
    """
    if not isinstance(space, SimpleSearchSpace):
        return SectionSearchSpace(section, space)
    return SimpleSearchSpace({p.name: _placed(section, p).to_spec() for p in space.parameters})


def _placed(section: str, parameter: Parameter) -> Parameter:
    return replace(parameter, paths=tuple(f"{section}.{path}" for path in parameter.paths))


def override(child: SearchSpace, parent: SearchSpace) -> SearchSpace:
    """Make one space of two, in which the child's definition of a name wins."""
    return _join(child, parent, override=True)


def _join(one: SearchSpace, other: SearchSpace, override: bool) -> SearchSpace:
    if not isinstance(one, SimpleSearchSpace) or not isinstance(other, SimpleSearchSpace):
        return CombinedSearchSpace((one, other), override)
    mine, theirs = one.to_dict(), other.to_dict()
    if override:
        fed = {path for parameter in one.parameters for path in parameter.paths}
        theirs = {p.name: theirs[p.name] for p in other.parameters if p.name not in mine and not fed & {*p.paths}}
    for name in mine.keys() & theirs.keys():
        raise SearchSpaceError(f"'{name}' is defined twice in a combined search space.")
    return SimpleSearchSpace(mine | theirs)
