"""What is tried next: points that were queued, and points that the sampler proposes, until it has none left."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, BruteForceSampler, GridSampler, PartialFixedSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from lightningtune.config.values import plain
from lightningtune.errors import SearchSpaceError, did_you_mean
from lightningtune.search.parameters import Parameter, describe, queued_values
from lightningtune.search.spaces import ProbingStudy, SearchSpace
from lightningtune.study.reporter import BASELINE
from lightningtune.study.succession import CONTINUES


def move_on(sampler: BaseSampler, seed: int) -> bool:
    """Seed a sampler anew: with its own seed it would repeat its points in a study that goes on.

    Return False where that is not possible: a sampler of somebody's own may hide its random state.
    """
    sampler.reseed_rng()  # creates states that are made on first use; takes no seed
    states = list(_random_states(sampler, set()))
    for number, state in enumerate(states):
        state.seed((seed + number) % 2**32)
    return bool(states) or type(sampler).reseed_rng is not BaseSampler.reseed_rng


def _random_states(holder: Any, seen: set[int]) -> Iterator[np.random.RandomState | random.Random]:
    """Yield the random states that an object holds, directly or in its attributes."""
    if id(holder) in seen or isinstance(holder, (type, optuna.Study)):
        return
    seen.add(id(holder))
    if isinstance(holder, (np.random.RandomState, random.Random)):
        yield holder
    elif isinstance(holder, Mapping):
        for inner in holder.values():
            yield from _random_states(inner, seen)
    elif isinstance(holder, (list, tuple)):
        for inner in holder:
            yield from _random_states(inner, seen)
    elif hasattr(holder, "__dict__"):
        yield from _random_states(vars(holder), seen)


def is_exhausted(study: optuna.Study, space: SearchSpace) -> bool:
    """Whether the sampler tries each point once and has none left.

    Optuna ends a study when that happens, but begins again when the study is run again, and does not see it through a
    `PartialFixedSampler`. So a copy of the sampler is asked what it would try next, in a copy of the study.
    """
    base = _base_of(study.sampler)
    if not isinstance(base, (GridSampler, BruteForceSampler)):  # fast path: other samplers never run out
        return False
    trials = study.get_trials(deepcopy=False)
    if any(trial.state is TrialState.WAITING for trial in trials):
        return False
    dry = ProbingStudy(copy.deepcopy(study.sampler))
    for trial in trials:
        dry.add_trial(_without_outcome(trial))
    # queued trials take no point of a grid
    is_grid = isinstance(base, GridSampler)
    tried = [trial.params for trial in trials if not (is_grid and "fixed_params" in trial.system_attrs)]
    while not dry.is_stopped:
        asked = dry.ask()
        with contextlib.suppress(Exception):  # a real trial reports what the space raises
            space.suggest(asked)
        if not asked.params or asked.params not in tried:
            return False
        if not is_grid:  # it repeats a point only when none is left
            return True
        # another point of the grid may have the same parameters once some are fixed
        dry.tell(asked, state=TrialState.FAIL)
    return True


def _without_outcome(trial: FrozenTrial) -> FrozenTrial:
    """Return a copy with what these samplers read: parameters and attributes, not the outcome."""
    state = TrialState.RUNNING if trial.state is TrialState.RUNNING else TrialState.FAIL
    attrs = trial.system_attrs
    try:
        return create_trial(state=state, params=trial.params, distributions=trial.distributions, system_attrs=attrs)
    except ValueError:  # the baseline may lie outside its range
        return create_trial(state=state, system_attrs=attrs)


def tell(study: optuna.Study, trial: optuna.Trial, **outcome: Any) -> FrozenTrial:
    """Tell a study how a trial ended; one that has ended already stays as it is.

    Optuna's `GridSampler` raises at the end of a trial that was queued, while one point of its grid is left. The trial
    has been told then.
    """
    try:
        return study.tell(trial, **outcome, skip_if_finished=True)
    except KeyError as error:
        if error.args != ("grid_id",) or not isinstance(_base_of(study.sampler), GridSampler):
            raise
        return study.get_trials(deepcopy=False)[trial.number]


def _base_of(sampler: BaseSampler) -> BaseSampler:
    """Unwrap `PartialFixedSampler`, for whose inner sampler Optuna has no public attribute."""
    while isinstance(sampler, PartialFixedSampler):
        sampler = sampler._base_sampler
    return sampler


class EnqueuingStudy(optuna.Study):
    """A study whose ``enqueue_trial`` takes choices as the search space has them: lists, members of an Enum, paths.

    Optuna's own takes what JSON holds. A trial finds its choice when it suggests the parameter.
    """

    def enqueue_trial(
        self, params: dict[str, Any], user_attrs: dict[str, Any] | None = None, skip_if_exists: bool = False
    ) -> None:
        """Queue a trial with these parameters, as ``optuna.Study.enqueue_trial`` does."""
        try:
            params = {name: plain(value, str(name)) for name, value in params.items()}
        except TypeError as error:
            raise SearchSpaceError(f"enqueue_trial: {error}.") from error
        super().enqueue_trial(params, user_attrs, skip_if_exists)


def check_queued(trial: optuna.Trial, is_fixed_space: bool, tell: Callable[[str], None]) -> None:
    """Compare a queued point with what the search space suggested.

    Optuna ignores a name that is never suggested, and samples the parameter that was meant.
    """
    suggested = trial.distributions
    is_users = not {BASELINE, CONTINUES} & {*trial.user_attrs}
    for name, value in queued_values(trial).items():
        if name in suggested:
            if is_users and not _is_within(trial.params[name], suggested[name]):
                described = describe(Parameter(name, suggested[name], (name,)))
                tell(f"Trial {trial.number}: {name}={value} was queued, and is tried outside its range ({described}).")
        elif is_fixed_space:
            raise SearchSpaceError(
                f"enqueue_trial: '{name}' is no parameter of the search space.{did_you_mean(name, suggested)} "
                f"It has: {', '.join(suggested)}."
            )
        else:
            tell(f"Trial {trial.number}: '{name}' was queued, and is ignored: the space does not suggest it here.")


def _is_within(value: Any, distribution: Any) -> bool:
    return bool(getattr(distribution, "low", value) <= value <= getattr(distribution, "high", value))
