"""Which points of a search space a check trains, and from when on a pruner would prune its trials."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import optuna
from optuna.pruners import HyperbandPruner, MedianPruner, PercentilePruner, SuccessiveHalvingPruner

from lightningtune.config.values import same
from lightningtune.errors import ConfigurationError, SearchSpaceError
from lightningtune.search.parameters import Parameter
from lightningtune.search.spaces import ProbingStudy, SearchSpace
from lightningtune.study.opening import quiet_optuna
from lightningtune.wording import format_value

DEFAULTS, LOW, HIGH = "untuned defaults", "all low", "all high"
DRAWN_POINTS = 3
"""Points that are drawn of a space whose branches only a function knows."""
_MAX_CHOICES, _MAX_NUMBERS = 8, 16
"""The most points at which one categorical, or one number, differs alone."""
_PRUNER_CALLS = 6000
"""The most questions to a pruner: about a second."""
_COMPARING_PRUNERS = (MedianPruner, PercentilePruner, SuccessiveHalvingPruner, HyperbandPruner)
"""Pruners that compare trials with each other: if they prune at all, they prune the worst trial of all."""
_Choose: TypeAlias = Callable[[Parameter], Any]


@dataclass(frozen=True)
class DryRunPoint:
    """A point of the space that a dry run trains."""

    name: str
    overrides: Mapping[str, Any] = field(default_factory=dict)  # config path to value
    values: Mapping[str, Any] = field(default_factory=dict)  # parameter name to value
    parameter: str | None = None  # the only one that differs from the base; None where several do
    base: str | None = None  # name of the point that it differs from


def dry_run_points(space: SearchSpace, defaults: Mapping[str, Any] | None) -> list[DryRunPoint]:
    """Return the untuned defaults, the two ends of all parameters, and points at which one parameter differs alone.

    Each choice of a categorical is somewhere among them, unless there are many. Of a function of the trial some points
    are drawn, too; the parameters that these meet are taken for all. ``defaults`` is None where they cannot be
    trained.

    Example:
        >>> from lightningtune import SimpleSearchSpace
        >>> space = SimpleSearchSpace({"lr": ("loguniform", 0.001, 1), "act": ("categorical", ["relu", "gelu", "elu"])})
        >>> for point in dry_run_points(space, {"lr": 0.1, "act": "relu"}):
        ...     print(point.name, dict(point.values))
        untuned defaults {}
        all low {'lr': 0.001, 'act': 'relu'}
        all high {'lr': 1.0, 'act': 'elu'}
        act=gelu {'act': 'gelu'}
        lr=1 {'lr': 1.0}
    """
    walk = _Walk(space)
    if defaults is not None:
        walk.points.append(DryRunPoint(DEFAULTS))
    walk.visit(LOW, lambda parameter: parameter.ends[0])
    has_low = any(point.name == LOW for point in walk.points)
    walk.visit(HIGH, lambda parameter: parameter.ends[-1])
    for number in range(1, DRAWN_POINTS + 1) if space.parameters is None else ():
        walk.visit(f"drawn point {number}", None)
    if defaults is not None and space.parameters is not None:
        for parameter, value in walk.single_changes(defaults):
            name, overrides = f"{parameter.name}={format_value(value)}", dict.fromkeys(parameter.paths, value)
            walk.add(DryRunPoint(name, overrides, {parameter.name: value}, parameter.name, DEFAULTS))
    elif has_low:
        for parameter, value in walk.single_changes({p.name: p.ends[0] for p in walk.parameters.values()}):
            walk.visit(f"{parameter.name}={format_value(value)}", _low_except(parameter, value), parameter.name, LOW)
    return walk.points


def _low_except(parameter: Parameter, value: Any) -> _Choose:
    return lambda asked: value if asked.name == parameter.name else asked.ends[0]


class _Walk:
    """Collects different points of a space, and the parameters and values that they meet."""

    def __init__(self, space: SearchSpace) -> None:
        self.points: list[DryRunPoint] = []
        self.parameters = {parameter.name: parameter for parameter in space.parameters or ()}
        self._space = space
        self._study = ProbingStudy()
        self._seen: dict[str, list[Any]] = {}

    def visit(self, name: str, choose: _Choose | None, changed: str | None = None, base: str | None = None) -> None:
        """Add the point that comes of a choice for each parameter, or of drawing; nothing where the space prunes it."""
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
            reason = f"{type(error).__name__}: {error}"
            raise SearchSpaceError(f"{self._space!r} raised at {name} ({values}): {reason}") from error
        if changed is None or changed in values:  # else the parameter belongs to another branch
            for parameter, value in values.items():
                self._seen.setdefault(parameter, []).append(value)
            self.add(DryRunPoint(name, overrides, values, changed, base))

    def add(self, point: DryRunPoint) -> None:
        """Add a point; where it is there already, note in which parameter it differs alone."""
        for i, other in enumerate(self.points):
            if other.name != DEFAULTS and same(dict(other.overrides), dict(point.overrides)):
                if other.name != point.base:
                    self.points[i] = dataclasses.replace(other, parameter=point.parameter, base=point.base)
                return
        self.points.append(point)

    def single_changes(self, base: Mapping[str, Any]) -> list[tuple[Parameter, Any]]:
        """Return which parameter is to differ alone from the base, and by which value."""
        choices, numbers = [], []
        for name, value in base.items():
            parameter = self.parameters[name]
            others = [end for end in parameter.ends if not same(end, value, as_numbers=True)]
            if parameter.choices:
                seen = self._seen.get(name, [])
                new = [choice for choice in others if not any(same(choice, one) for one in seen)]
                choices.append([(parameter, choice) for choice in new or others[-1:]])
            else:
                numbers += [(parameter, end) for end in others[-1:]]
        in_turn = [pair for pairs in itertools.zip_longest(*choices) for pair in pairs if pair is not None]
        return [*in_turn[:_MAX_CHOICES], *numbers[:_MAX_NUMBERS]]


@dataclass(frozen=True)
class PrunerSchedule:
    """From when on a pruner prunes trials each of which is worse than all before it."""

    pruner: str  # the class
    is_given: bool  # by the user; otherwise it is Optuna's default
    max_resource: int | None = None  # of a HyperbandPruner
    trials: int = 0  # that were tried; none where the pruner does not compare trials
    first_trial: int | None = None  # the number of the first that it pruned
    first_step: int | None = None  # the earliest validation at which it pruned any, from 0
    is_whole: bool = False  # whether all trials of the study were tried, to their ends


def try_pruner(
    pruner: optuna.pruners.BasePruner | None, study_name: str, n_trials: int, validations: int | None
) -> PrunerSchedule:
    """Try a copy of a pruner on a study in memory: no pruner has public attributes that tell when it prunes.

    Hyperband draws a trial's bracket from the study's name. Where ``validations`` is None, nothing is tried.

    Example:
        >>> try_pruner(MedianPruner(n_startup_trials=3), "study", n_trials=9, validations=5).first_trial
        3
    """
    tried = MedianPruner() if pruner is None else pruner
    # Optuna keeps it in a private attribute, and has no other place for it
    largest = getattr(pruner, "_max_resource", None) if isinstance(pruner, HyperbandPruner) else None
    name, largest = type(tried).__name__, largest if isinstance(largest, int) else None
    if type(tried) not in _COMPARING_PRUNERS or validations is None:
        return PrunerSchedule(name, pruner is not None, largest)
    steps = min(validations - 1, _PRUNER_CALLS // 10)
    trials = min(n_trials, max(10, _PRUNER_CALLS // max(steps, 1)))
    pruned: list[tuple[int, int]] = []
    with quiet_optuna():
        sampler = optuna.samplers.RandomSampler(seed=0)
        study = optuna.create_study(study_name=study_name, pruner=copy.deepcopy(tried), sampler=sampler)
        for number in range(trials):
            trial = study.ask()
            step = _run_worst_trial(trial, steps, number)
            if step is None:
                study.tell(trial, float(number))
            else:
                pruned.append((number, step))
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    first_trial = min((number for number, _ in pruned), default=None)
    first_step = min((step for _, step in pruned), default=None)
    is_whole = trials == n_trials and steps == validations - 1
    return PrunerSchedule(name, pruner is not None, largest, trials, first_trial, first_step, is_whole)


def _run_worst_trial(trial: optuna.Trial, steps: int, number: int) -> int | None:
    """Report values that get worse, and are worse than all trials before; return where the pruner ends it."""
    for step in range(steps):
        trial.report(number + step / steps, step)
        if trial.should_prune():
            return step
    return None
