"""The search spaces that users write, a mapping of parameters or a function of the trial, and how they are joined."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from lightningtune.errors import SearchSpaceError
from lightningtune.files import dump_yaml, load_yaml, read_mapping
from lightningtune.search.base import Answer, SearchSpace
from lightningtune.search.combined import CombinedSearchSpace, SectionSearchSpace, defined_twice, placed
from lightningtune.search.distributions import Parameter, describe, parse_parameter
from lightningtune.search.suggest import RecordingTrial
from lightningtune.wording import counted

__all__ = [
    "AdvancedSearchSpace",
    "SearchSpace",
    "SearchSpaceLike",
    "SimpleSearchSpace",
    "as_search_space",
    "combine",
    "in_section",
    "override",
]


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
        if isinstance(source, str) and _is_text(source):
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
        size = self.size
        width = max(len(parameter.name) for parameter in self._parameters)
        points = "infinitely many points" if size is None else counted(size, "point")
        head = f"{counted(len(self._parameters), 'parameter')}, {points}"
        return "\n".join([head, *(f"  {p.name:<{width}}  {describe(p)}" for p in self._parameters)])


def _is_text(source: str) -> bool:
    """Tell YAML or JSON from the path of a file that holds it."""
    is_path = source.endswith((".yaml", ".yml", ".json"))
    return "\n" in source or source.lstrip().startswith("{") or (": " in source and not is_path)


class AdvancedSearchSpace(SearchSpace):
    """A function of the trial, for parameters that depend on each other.

    Args:
        fn: takes an Optuna trial and uses its ``suggest_float``, ``suggest_int`` and ``suggest_categorical``. When it
            returns None or the trial, each suggested name is a config path or a bare parameter name. When it returns
            a mapping of config path to value, that mapping is what the config receives, and suggested names are free.

    Example:
        >>> import optuna
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
    return SimpleSearchSpace({p.name: placed(section, p) for p in space.parameters})


def override(child: SearchSpace, parent: SearchSpace) -> SearchSpace:
    """Make one space of two, in which the child's definition of a name wins."""
    return _join(child, parent, override=True)


def _join(one: SearchSpace, other: SearchSpace, override: bool) -> SearchSpace:
    if not isinstance(one, SimpleSearchSpace) or not isinstance(other, SimpleSearchSpace):
        return CombinedSearchSpace((one, other), override)
    mine, theirs = ({p.name: p for p in space.parameters} for space in (one, other))
    if override:
        fed = {path for parameter in one.parameters for path in parameter.paths}
        theirs = {name: p for name, p in theirs.items() if name not in mine and not fed & {*p.paths}}
    for name in mine.keys() & theirs.keys():
        raise defined_twice(name)
    return SimpleSearchSpace(mine | theirs)
