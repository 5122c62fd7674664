"""What every search space does: it suggests, expresses defaults as a point, and combines with others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import optuna

from lightningtune.config.values import same
from lightningtune.search.distributions import NoDefault, Parameter

if TYPE_CHECKING:
    from lightningtune.search.spaces import SearchSpaceLike

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
        """The parameters, or None where only running a function would tell."""
        return None

    @property
    def size(self) -> int | None:
        """How many points there are, or None when there is no end to them or no way to tell."""
        size = 1
        for parameter in self.parameters or ():
            if parameter.count is None:
                return None
            size *= parameter.count
        return None if self.parameters is None else size

    def grid(self) -> dict[str, list[Any]] | None:
        """Return every value of every parameter, as ``optuna.samplers.GridSampler`` takes it.

        Example:
            >>> from lightningtune import SimpleSearchSpace
            >>> SimpleSearchSpace({"depth": ("int", 1, 3)}).grid()
            {'depth': [1, 2, 3]}
        """
        if self.parameters is None:
            return None
        grid = {parameter.name: parameter.grid for parameter in self.parameters}
        finite = {name: values for name, values in grid.items() if values is not None}
        return finite if len(finite) == len(grid) else None

    def __or__(self, other: SearchSpaceLike) -> SearchSpace:
        from lightningtune.search import spaces  # which imports this file

        return spaces.combine(self, spaces.as_search_space(other))

    def __ror__(self, other: SearchSpaceLike) -> SearchSpace:
        from lightningtune.search import spaces

        return spaces.combine(spaces.as_search_space(other), self)
