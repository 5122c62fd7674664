"""The corners of a search space, in few points: what trials will meet, tried before the first of them."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import optuna

from lightningtune.config.values import same
from lightningtune.errors import ConfigurationError, SearchSpaceError
from lightningtune.search.parameters import Parameter
from lightningtune.search.spaces import ProbingStudy, SearchSpace
from lightningtune.wording import format_value

DEFAULTS, LOW, HIGH = "untuned defaults", "all low", "all high"
SAMPLES = 3
"""Points that are drawn of a space whose branches only a function knows."""
_Choose: TypeAlias = Callable[[Parameter], Any]


@dataclass(frozen=True)
class Corner:
    """A point to try.

    Attributes:
        name: what it is, for a person.
        overrides: config path to value, as a space suggests them.
        values: parameter name to value.
        parameter: the only one that differs from the base; None where several do.
        base: the name of the corner that it differs from.
    """

    name: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    parameter: str | None = None
    base: str | None = None


def corners(space: SearchSpace, default_of: _Choose | None, choices: int = 8, numbers: int = 16) -> list[Corner]:
    """Return the untuned defaults, the two ends of all parameters, and points at which one parameter differs alone.

    Each choice of a categorical is somewhere among them, unless there are many. Of a function of the trial some points
    are drawn, too, and the parameters that these have come by are taken for all.

    Args:
        space: the space.
        default_of: returns the default of a parameter; None where the defaults cannot be trained.
        choices: the most points for choices that no other point has.
        numbers: the most points at which one number differs alone.

    Example:
        >>> from lightningtune import SimpleSearchSpace
        >>> space = SimpleSearchSpace({"lr": ("loguniform", 0.001, 1), "act": ("categorical", ["relu", "gelu", "elu"])})
        >>> for corner in corners(space, lambda parameter: {"lr": 0.1, "act": "relu"}[parameter.name]):
        ...     print(corner.name, dict(corner.values))
        untuned defaults {}
        all low {'lr': 0.001, 'act': 'relu'}
        all high {'lr': 1.0, 'act': 'elu'}
        act=gelu {'act': 'gelu'}
        lr=1 {'lr': 1.0}
    """
    walk = _Walk(space)
    found = [Corner(DEFAULTS)] if default_of is not None else []
    found += walk.to(LOW, lambda parameter: parameter.ends[0])
    low = found[-1] if found and found[-1].name == LOW else None
    more = [*walk.to(HIGH, lambda parameter: parameter.ends[-1])]
    if space.parameters is None:
        for number in range(1, SAMPLES + 1):
            more += walk.to(f"drawn point {number}", None)
    for corner in more:
        _add(found, corner)
    if default_of is not None and space.parameters is not None:
        base = DEFAULTS
        before = {parameter.name: default_of(parameter) for parameter in space.parameters}
    elif low is not None:
        base, before = LOW, {name: parameter.ends[0] for name, parameter in walk.parameters.items()}
    else:
        return found
    for parameter, value in _alone(walk, before, choices, numbers):
        name = f"{parameter.name}={format_value(value)}"
        if base == DEFAULTS:
            overrides = dict.fromkeys(parameter.paths, value)
            alone = [Corner(name, overrides, {parameter.name: value}, parameter.name, base)]
        else:
            alone = [*walk.to(name, _all_but(parameter, value), parameter.name, base)]
        for corner in alone:
            _add(found, corner)
    return found


def _add(found: list[Corner], corner: Corner) -> None:
    """Add a point, unless it is there; of one that is, it is then known in what it differs."""
    for i, one in enumerate(found):
        if one.name != DEFAULTS and same(dict(one.overrides), dict(corner.overrides)):
            found[i] = dataclasses.replace(one, parameter=corner.parameter, base=corner.base)
            return
    found.append(corner)


class _Walk:
    """Goes to points of a space, and remembers what it has come by."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._study = ProbingStudy()
        self.parameters = {parameter.name: parameter for parameter in space.parameters or ()}
        self.seen: dict[str, list[Any]] = {}

    def to(
        self, name: str, choose: _Choose | None, parameter: str | None = None, base: str | None = None
    ) -> Iterator[Corner]:
        """Yield the point that comes of a choice for each parameter, or of drawing; nothing where the space prunes it.

        Raises:
            SearchSpaceError: when the space raises for it.
        """
        trial, values = self._study.ask(), {}

        def answer(asked: Parameter) -> Any:
            self.parameters.setdefault(asked.name, asked)
            values[asked.name] = choose(asked) if choose is not None else asked.suggest(trial)
            return copy.deepcopy(values[asked.name])

        try:
            overrides = self._space.collect(trial, answer, {})
        except optuna.TrialPruned:  # the user's way to say that a point is of no interest
            return
        except ConfigurationError:
            raise
        except Exception as error:  # a user's function may raise anything
            said = f"{type(error).__name__}: {error}"
            raise SearchSpaceError(f"{self._space!r} raised at {name} ({values}): {said}") from error
        if parameter is not None and parameter not in values:  # it belongs to another branch
            return
        for asked, value in values.items():
            self.seen.setdefault(asked, []).append(value)
        yield Corner(name, overrides, values, parameter, base)


def _alone(walk: _Walk, before: Mapping[str, Any], choices: int, numbers: int) -> list[tuple[Parameter, Any]]:
    """Return which parameter is to differ alone, and by which value."""
    of_choices, of_numbers = [], []
    for name, parameter in walk.parameters.items():
        if name not in before:
            continue
        others = [value for value in parameter.ends if not same(value, before[name], as_numbers=True)]
        if not parameter.choices:
            of_numbers += [(parameter, value) for value in others[-1:]]
            continue
        seen = walk.seen.get(name, [])
        new = [value for value in others if not any(same(value, one) for one in seen)]
        of_choices.append([(parameter, value) for value in new or others[-1:]])
    in_turn = [pair for pairs in itertools.zip_longest(*of_choices) for pair in pairs if pair is not None]
    return [*in_turn[:choices], *of_numbers[:numbers]]


def _all_but(parameter: Parameter, value: Any) -> _Choose:
    return lambda asked: value if asked.name == parameter.name else asked.ends[0]
