"""Real samplers in studies that go on: each proposes other points, or ends where it has none."""

import logging

import numpy as np
import optuna
import pytest
from optuna.samplers import BruteForceSampler, GridSampler, PartialFixedSampler, RandomSampler
from optuna.trial import TrialState

from lightningtune.search.spaces import ProbingStudy, as_search_space
from lightningtune.study.opening import open_study, queue_baseline
from lightningtune.study.sampling import is_exhausted, tell

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

SEEDED = {
    "TPE": lambda: optuna.samplers.TPESampler(seed=1),
    "Random": lambda: RandomSampler(seed=1),
    "QMC": lambda: optuna.samplers.QMCSampler(seed=1, scramble=True),
    "CMA-ES": lambda: optuna.samplers.CmaEsSampler(seed=1),
    "GP": lambda: optuna.samplers.GPSampler(seed=1),
    "NSGA-II": lambda: optuna.samplers.NSGAIISampler(seed=1),
    "NSGA-III": lambda: optuna.samplers.NSGAIIISampler(seed=1),
    "partially fixed": lambda: PartialFixedSampler({"y": 0.5}, RandomSampler(seed=1)),
}


def points_of(sampler_of, runs=2, storage=None):
    """Run a study in parts, each with a new sampler of the same seed, as scripts do that are run again."""
    storage = storage or optuna.storages.InMemoryStorage()
    for _ in range(runs):
        study = open_study("s", storage, ["minimize"], ["loss"], True, sampler_of(), None, 7)
        for _ in range(4):
            trial = study.ask()
            study.tell(trial, (trial.suggest_float("x", 0, 1) - 0.3) ** 2 + trial.suggest_float("y", 0, 1))
    return [tuple(trial.params.values()) for trial in study.trials]


@pytest.mark.parametrize("name", SEEDED)
def test_a_seeded_sampler_proposes_other_points_when_its_study_goes_on(name):
    if name == "CMA-ES":
        pytest.importorskip("cmaes")
    found = points_of(SEEDED[name])
    assert len({*found}) == len(found) == 8
    assert found[:4] == points_of(SEEDED[name], runs=1), "the first part is as its seed has it"
    assert found == points_of(SEEDED[name]), "and the second is as the study's seed has it"


class Own(RandomSampler):
    """Hides where it draws from."""

    def __init__(self, rng):
        self.draw = {"from": [rng]}

    def reseed_rng(self):
        optuna.samplers.BaseSampler.reseed_rng(self)

    def sample_independent(self, study, trial, name, distribution):
        return self.draw["from"][0].uniform(distribution.low, distribution.high)


def test_a_sampler_of_ones_own_is_moved_on_too():
    found = points_of(lambda: Own(np.random.RandomState(1)))
    assert len({*found}) == 8


class Opaque(Own):
    reseed_rng = optuna.samplers.BaseSampler.reseed_rng


def test_of_a_sampler_that_cannot_be_moved_on_it_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        points_of(lambda: Opaque(np.random.default_rng(1)), runs=1)
        assert not caplog.messages
        points_of(lambda: Opaque(np.random.default_rng(1)))
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("Opaque has neither a random state that can be seeded nor a reseed_rng().")


def test_a_study_that_has_only_waiting_trials_begins_with_the_samplers_own_seed():
    storage = optuna.storages.InMemoryStorage()
    study = open_study("s", storage, ["minimize"], ["loss"], True, None, None, 7)
    study.enqueue_trial({"x": 0.5, "y": 0.5})
    found = points_of(SEEDED["Random"], 1, storage)
    assert found[1:] == points_of(SEEDED["Random"], 1)[:3]


# --- samplers that come to an end --------------------------------------------------------------------------------

SPACE = as_search_space({"a": ("int", 1, 3), "b": ("categorical", ["x", "y"])})
GRID = {"a": [1, 2, 3], "b": ["x", "y"]}


EXHAUSTIVE = {
    "grid": (lambda: GridSampler(GRID), 6),
    "brute force": (lambda: BruteForceSampler(seed=1), 6),
    "fixed grid": (lambda: PartialFixedSampler({"b": "x"}, GridSampler(GRID)), 3),
    "fixed brute force": (lambda: PartialFixedSampler({"b": "x"}, BruteForceSampler(seed=1)), 3),
    "all fixed": (lambda: PartialFixedSampler({"b": "x"}, PartialFixedSampler({"a": 1}, BruteForceSampler())), 1),
}


@pytest.mark.parametrize("name", EXHAUSTIVE)
@pytest.mark.parametrize("state", [TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING])
def test_a_sampler_is_exhausted_once_it_has_proposed_each_point(name, state):
    sampler, points = EXHAUSTIVE[name]
    study, tried = ProbingStudy(sampler()), set()
    while not is_exhausted(study, SPACE):
        trial = study.ask()
        tried.add(tuple(SPACE.suggest(trial).items()))
        if state is not TrialState.RUNNING:
            study.tell(trial, state=state)
        assert len(study.trials) <= len(GRID["a"]) * len(GRID["b"])
    assert len(tried) == points


def test_others_are_never_exhausted_and_waiting_trials_come_first():
    assert not is_exhausted(optuna.create_study(sampler=RandomSampler()), SPACE)
    study = optuna.create_study(sampler=GridSampler({"a": [1]}))
    study.add_trial(optuna.trial.create_trial(value=1.0, system_attrs={"grid_id": 0, "search_space": {"a": [1]}}))
    only = as_search_space({"a": ("int", 1, 1)})
    study.enqueue_trial({"a": 1})
    assert not is_exhausted(study, only)


def test_a_grid_has_its_points_whatever_is_queued_beside_them():
    study = ProbingStudy(GridSampler({"a": [1]}))
    queue_baseline(study, {"a": 1})
    trial = study.ask()
    space = as_search_space({"a": ("int", 1, 1)})
    space.suggest(trial)
    assert tell(study, trial, values=[1.0]).state is TrialState.COMPLETE, "Optuna itself raises KeyError: 'grid_id'"
    assert not is_exhausted(study, space)


def test_a_baseline_outside_of_the_space_counts_for_nothing():
    study = optuna.create_study(sampler=BruteForceSampler())
    study.enqueue_trial({"a": 9})
    with pytest.warns(UserWarning, match="out of"):
        study.ask().suggest_int("a", 1, 1)
    assert not is_exhausted(study, as_search_space({"a": ("int", 1, 1)}))
