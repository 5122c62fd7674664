import optuna
import pytest

from lightningtune import ConfigurationError
from lightningtune.contract import StopReason, TrialOutcome
from lightningtune.study.opening import derive_seed, open_study, queue_baseline
from lightningtune.study.reporter import BASELINE, SEED, record_outcome

FAIL, PRUNED = optuna.trial.TrialState.FAIL, optuna.trial.TrialState.PRUNED


def opened(storage=None, **changed):
    given = {
        "study_name": "s",
        "storage": storage or optuna.storages.InMemoryStorage(),
        "directions": ["minimize"],
        "metrics": ["val_loss"],
        "load_if_exists": True,
        "sampler": None,
        "pruner": None,
        "seed": 1,
    }
    return open_study(**{**given, **changed})


def end(study, outcome, state=FAIL):
    trial = study.ask()
    record_outcome(trial, outcome)
    study.tell(trial, state=state)


def test_a_seed_is_drawn_and_kept_when_none_is_given():
    storage = optuna.storages.InMemoryStorage()
    first = opened(storage, seed=None)
    again = opened(storage, seed=None)
    assert first.user_attrs[SEED] == again.user_attrs[SEED]


def test_seeds_differ_by_trial_and_by_study():
    study = opened()
    seeds = [derive_seed(study, number) for number in range(100)]
    assert len({*seeds}) == 100
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert derive_seed(opened(seed=1), 5) == seeds[5]
    assert derive_seed(opened(seed=2), 5) != seeds[5]


def test_a_continued_sampler_draws_other_points():
    storage = optuna.storages.InMemoryStorage()
    first = opened(storage).ask().suggest_float("x", 0, 1)
    assert opened(storage).ask().suggest_float("x", 0, 1) != first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"directions": ["maximize"]}, "exists with direction"),
        ({"metrics": ["loss"]}, "exists with metric"),
        ({"seed": 2}, "exists with seed 1"),
        ({"load_if_exists": False}, "exists already"),
    ],
)
def test_another_study_of_the_same_name_is_refused(change, message):
    storage = optuna.storages.InMemoryStorage()
    study = opened(storage)
    study.tell(study.ask(), 1.0)
    with pytest.raises(ConfigurationError, match=message):
        opened(storage, **change)


def test_the_baseline_is_the_next_trial():
    study = opened()
    queue_baseline(study, {"x": 0.5})
    trial = study.ask()
    assert trial.suggest_float("x", 0, 1) == 0.5
    assert trial.user_attrs[BASELINE] is True


def test_a_metric_that_never_had_a_value_may_be_corrected():
    storage = optuna.storages.InMemoryStorage()
    study = opened(storage, metrics=["val_los"])
    end(study, TrialOutcome.failed(ConfigurationError("not logged"), StopReason.REFUSED))
    assert opened(storage).metric_names == ["val_loss"]
    study.tell(study.ask(), 1.0)
    with pytest.raises(ConfigurationError, match="exists with metric"):
        opened(storage, metrics=["val_acc"])
