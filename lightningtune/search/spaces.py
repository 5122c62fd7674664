"""Search spaces: a mapping of parameters, a function of the trial, and several of them joined."""

from __future__ import annotations

import functools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import optuna
from optuna.distributions import FloatDistribution, IntDistribution

from lightningtune.config.values import same
from lightningtune.errors import SearchSpaceError
from lightningtune.files import dump_yaml, load_yaml, read_mapping
from lightningtune.search.parameters import NoDefault, Parameter, describe, parse_parameter, step_too_small
from lightningtune.wording import counted

Answer: TypeAlias = Callable[[Parameter], Any]


class SearchSpace(ABC):
    """What may vary. `SimpleSearchSpace` and `AdvancedSearchSpace` are the two kinds that users write.

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
            >>> from lightningtune import SimpleSearchSpace
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
            if not same(lookup(path), value, as_numbers=True):
                raise NoDefault(f"{path} is {lookup(path)!r} by default, but the search space makes it {value!r}")
        return point

    @property
    def parameters(self) -> tuple[Parameter, ...] | None:
        """The parameters; None where only running a function would tell."""
        return None

    @property
    def size(self) -> int | None:
        """The number of points; None when there is no end to them or no way to tell."""
        size = 1
        for parameter in self.parameters or ():
            if parameter.count is None:
                return None
            size *= parameter.count
        return None if self.parameters is None else size

    def grid(self) -> dict[str, list[Any]] | None:
        """Return every value of every parameter, as ``optuna.samplers.GridSampler`` takes it.

        Returns:
            Parameter name to values; None when a parameter has infinitely many, or only running a function would tell.

        Example:
            >>> from lightningtune import SimpleSearchSpace
            >>> SimpleSearchSpace({"depth": ("int", 1, 3)}).grid()
            {'depth': [1, 2, 3]}
        """
        grid: dict[str, list[Any]] = {}
        for parameter in self.parameters or ():
            values = parameter.grid
            if values is None:
                return None
            grid[parameter.name] = values
        return None if self.parameters is None else grid

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
        feeding: dict[str, str] = {}
        for parameter in self._parameters:
            for path in parameter.paths:
                if path in feeding:
                    raise SearchSpaceError(f"'{path}' is fed by both '{feeding[path]}' and '{parameter.name}'.")
                feeding[path] = parameter.name

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
                values |= dict.fromkeys(paths, answer(parameter))
        return values

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return plain values that the constructor reads back.

        Example:
            >>> SimpleSearchSpace({"lr": ("uniform", 0, 1)}).to_dict()
            {'lr': {'type': 'uniform', 'low': 0.0, 'high': 1.0}}
        """
        return {parameter.name: parameter.to_spec() for parameter in self._parameters}

    def to_yaml(self) -> str:
        """Return the space as YAML text, which `from_yaml` reads back.

        Example:
            >>> print(SimpleSearchSpace({"depth": ("int", 1, 3)}).to_yaml(), end="")
            depth:
              type: int
              low: 1
              high: 3
        """
        return dump_yaml(self.to_dict())

    @classmethod
    def from_yaml(cls, source: str | os.PathLike[str]) -> SimpleSearchSpace:
        """Read a space from YAML text, or from the path of a YAML or JSON file.

        Args:
            source: text that holds a mapping, or a path.

        Raises:
            SearchSpaceError: when an entry is no parameter.
            InvalidConfigError: when the file does not exist, or holds no mapping.

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

    Raises:
        SearchSpaceError: when it is no function.

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


class RecordingTrial:
    """The trial that a function of the user's sees: Optuna's own, which takes any YAML choice and fixed values.

    It records what was suggested, and hands everything but ``suggest_*`` to the trial behind it.
    """

    def __init__(self, trial: Any, answer: Answer, fixed: Mapping[str, Any]) -> None:
        self._trial = trial
        self._answer = answer
        self._fixed = fixed
        self.suggested: dict[str, Any] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Suggest a float, as ``optuna.Trial.suggest_float`` does."""
        value: float = self._suggest(name, lambda: FloatDistribution(low, high, step=step, log=log))
        return value

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Suggest an integer, as ``optuna.Trial.suggest_int`` does."""
        value: int = self._suggest(name, lambda: IntDistribution(low, high, step=step, log=log))
        return value

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Suggest one of ``choices``, which may be any YAML values."""
        return self._suggest(name, lambda: ("categorical", choices))

    def _suggest(self, name: str, spec: Callable[[], Any]) -> Any:
        try:
            parameter = parse_parameter(name, spec())
        except SearchSpaceError:
            raise
        except ArithmeticError:  # Optuna counts the steps
            raise step_too_small(name, "this size") from None
        except ValueError as error:
            raise SearchSpaceError(f"'{name}': {error}") from error
        value = self._fixed[name] if name in self._fixed else self._answer(parameter)
        self.suggested[name] = value
        return value

    def __getattr__(self, name: str) -> Any:
        if name in ("_trial", "_answer", "_fixed", "suggested") or name.startswith("__"):  # a copy has none of them yet
            raise AttributeError(name)
        if name.startswith("suggest_"):
            raise AttributeError(
                f"{name} is not supported in a search space; use suggest_float, suggest_int or suggest_categorical."
            )
        if name == "set_constraint" and not hasattr(self._trial, name):
            raise AttributeError(
                f"set_constraint needs Optuna 5, and this is Optuna {optuna.__version__}. Give a sampler its "
                "constraints_func instead."
            )
        return getattr(self._trial, name)


class ProbingStudy(optuna.Study):
    """A study in memory, whose trials try a search space: without a sampler at random, and always the same points.

    Its ``stop`` is only noted: there is nothing to stop.
    """

    def __init__(self, sampler: optuna.samplers.BaseSampler | None = None) -> None:
        sampler = sampler or optuna.samplers.RandomSampler(seed=0)
        storage = optuna.storages.InMemoryStorage()
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # the user has created no study
        try:
            name = optuna.create_study(storage=storage).study_name
        finally:
            optuna.logging.set_verbosity(verbosity)
        super().__init__(name, storage, sampler)
        self.is_stopped = False

    def stop(self) -> None:
        """Note that a sampler has no more points."""
        self.is_stopped = True


@dataclass(repr=False)
class CombinedSearchSpace(SearchSpace):
    """Several spaces as one, where at least one is a function; made by ``|`` and by `override`.

    Attributes:
        parts: the spaces.
        is_override: whether the first to define a name keeps it; otherwise a second definition is an error.
    """

    parts: tuple[SearchSpace, ...]
    is_override: bool = False

    def collect(self, trial: Any, answer: Answer, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Collect from each part in turn."""
        values: dict[str, Any] = {}
        answered: dict[str, Any] = {}
        for part in self.parts:
            earlier = dict(answered)

            def answer_once(parameter: Parameter, earlier: Mapping[str, Any] = earlier) -> Any:
                if parameter.name in earlier:
                    raise _defined_twice(parameter.name)
                answered[parameter.name] = answer(parameter)
                return answered[parameter.name]

            part_fixed = {**fixed, **earlier, **values} if self.is_override else fixed
            found = part.collect(trial, answer_once, part_fixed)
            for path in values.keys() & found.keys():
                raise _defined_twice(path)
            values |= found
        return values

    def __repr__(self) -> str:
        return f"override({self.parts!r})" if self.is_override else " | ".join(map(repr, self.parts))


@dataclass(repr=False)
class SectionSearchSpace(SearchSpace):
    """A space with a function in it, whose names are parameters of one section; made by `in_section`.

    Attributes:
        section: ``model`` or ``data``.
        space: the space.
    """

    section: str
    space: SearchSpace

    def collect(self, trial: Any, answer: Answer, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Collect from the space, and put the section before each path."""
        found = self.space.collect(trial, lambda parameter: answer(_place(self.section, parameter)), fixed)
        return {f"{self.section}.{path}": value for path, value in found.items()}

    def __repr__(self) -> str:
        return f"in_section({self.section!r}, {self.space!r})"


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


def in_section(section: str, space: SearchSpace) -> SearchSpace:
    """Make a space of a class's own parameters one of config paths, so that no name is ambiguous.

    Example:
        >>> in_section("model", SimpleSearchSpace({"lr": ("uniform", 0, 1)})).parameters[0].paths
        ('model.lr',)
    """
    if not isinstance(space, SimpleSearchSpace):
        return SectionSearchSpace(section, space)
    return SimpleSearchSpace({p.name: _place(section, p) for p in space.parameters})


def _place(section: str, parameter: Parameter) -> Parameter:
    return replace(parameter, paths=tuple(f"{section}.{path}" for path in parameter.paths))


def combine(*spaces: SearchSpace) -> SearchSpace:
    """Make one space of several; a name defined twice is an error."""
    return functools.reduce(_combine_two, spaces)


def _combine_two(one: SearchSpace, other: SearchSpace) -> SearchSpace:
    if not isinstance(one, SimpleSearchSpace) or not isinstance(other, SimpleSearchSpace):
        return CombinedSearchSpace((one, other))
    mine, theirs = ({p.name: p for p in space.parameters} for space in (one, other))
    for name in mine.keys() & theirs.keys():
        raise _defined_twice(name)
    return SimpleSearchSpace(mine | theirs)


def override(child: SearchSpace, parent: SearchSpace) -> SearchSpace:
    """Make one space of two, in which the child's definition of a name wins."""
    if not isinstance(child, SimpleSearchSpace) or not isinstance(parent, SimpleSearchSpace):
        return CombinedSearchSpace((child, parent), is_override=True)
    mine = {parameter.name: parameter for parameter in child.parameters}
    fed = {path for parameter in child.parameters for path in parameter.paths}
    kept = {p.name: p for p in parent.parameters if p.name not in mine and not fed & {*p.paths}}
    return SimpleSearchSpace(mine | kept)


def _defined_twice(name: str) -> SearchSpaceError:
    remedy = (
        "Leave one out."
        if "." in name
        else f'Call one of them differently, {{"other_{name}": {{"type": ..., "paths": ["{name}"]}}}}; or, for a model '
        f"and a datamodule, pass search_space= to the optimizer, with 'model.{name}' and 'data.{name}'."
    )
    return SearchSpaceError(f"'{name}' is defined twice in a combined search space. {remedy}")
