"""An Optuna trial as a reporter."""

import logging
import math

import optuna
import pytest
from fits import PruneAt

from lightningtune.contract import Stop, StopReason, TrialFacts, TrialOutcome
from lightningtune.study.provenance import Provenance
from lightningtune.study.reporter import (
    BASELINE,
    FACTS,
    PROVENANCE,
    OptunaReporter,
    read_config_sum,
    read_data_seed,
    read_facts,
    read_provenance,
    record_config,
    record_outcome,
)


@pytest.fixture(params=["memory", "journal", "sqlite"])
def storage(request, tmp_path):
    if request.param == "memory":
        return None
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    return optuna.storages.JournalStorage(backend)


def test_values_reach_the_trial_and_the_pruners_word_comes_back(storage):
    study = optuna.create_study(storage=storage, pruner=PruneAt(1))
    trial = study.ask()
    reporter = OptunaReporter(trial)
    assert reporter.report((0.5,), 0) is None
    assert reporter.report((0.123456789,), 1) == Stop(StopReason.PRUNED, "pruned by PruneAt with 0.123457")
    assert study.trials[0].intermediate_values == {0: 0.5, 1: 0.123456789}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_value_that_is_no_number_becomes_that_of_a_pruned_trial(bad, storage):
    study = optuna.create_study(storage=storage, pruner=PruneAt(1))

    def objective(trial):
        reporter = OptunaReporter(trial)
        assert reporter.report((1.0,), 0) is None
        raise optuna.TrialPruned(reporter.report((bad,), 1).detail)

    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert (trial.state.name, trial.value) == ("PRUNED", None)
    assert math.isnan(trial.intermediate_values[1])


def test_several_objectives_are_told_once_that_nothing_is_pruned(caplog):
    study = optuna.create_study(study_name="two", directions=["minimize", "maximize"], pruner=PruneAt(0))
    with caplog.at_level(logging.WARNING, "lightningtune"):
        for _ in range(3):
            trial = study.ask()
            assert OptunaReporter(trial).report((1.0, 2.0), 0) is None
            study.tell(trial, [1.0, 2.0])
    ours = [record for record in caplog.records if record.name.startswith("lightningtune")]
    assert [record.getMessage() for record in ours] == [
        "Study 'two' has several objectives, and Optuna prunes none of them."
    ]


def test_a_study_with_one_objective_hears_nothing(caplog):
    with caplog.at_level(logging.WARNING, "lightningtune"):
        OptunaReporter(optuna.create_study().ask())
    assert [record for record in caplog.records if record.name.startswith("lightningtune")] == []


@pytest.mark.parametrize(
    "trial",
    [optuna.trial.FixedTrial({"lr": 0.1}), optuna.trial.create_trial(value=1.0)],
    ids=["FixedTrial", "FrozenTrial"],
)
def test_a_trial_without_a_study_is_never_pruned(trial):
    assert OptunaReporter(trial).report((1.0,), 0) is None


def test_the_baseline_is_reported_and_never_pruned(storage):
    study = optuna.create_study(storage=storage, pruner=PruneAt(0))
    study.enqueue_trial({"lr": 0.1}, user_attrs={BASELINE: True})
    baseline, other = study.ask(), study.ask()
    assert OptunaReporter(baseline).report((0.5,), 0) is None
    assert OptunaReporter(other).report((0.5,), 0) is not None
    assert study.trials[0].intermediate_values == {0: 0.5}


def test_how_a_trial_ended_is_kept_on_it(storage):
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    facts = TrialFacts(device="cpu (x)", memory=5)
    outcome = TrialOutcome(StopReason.PRUNED, "why", epochs=3, duration=1.23456, facts=facts)
    record_outcome(trial, outcome)
    assert read_facts(study.trials[0]) == (3, 1.235, outcome.facts)
    assert study.trials[0].user_attrs == {
        "lightningtune:reason": "pruned",
        "lightningtune:detail": "why",
        "lightningtune:facts": {"epochs": 3, "seconds": 1.235, "device": "cpu (x)", "memory": 5},
    }


def test_an_outcome_without_a_detail_has_none_kept():
    trial = optuna.create_study().ask()
    record_outcome(trial, TrialOutcome(StopReason.COMPLETED, score=(1.0,)))
    assert trial.user_attrs == {
        "lightningtune:reason": "completed",
        "lightningtune:facts": {"epochs": 0, "seconds": 0.0},
    }


@pytest.mark.parametrize("commit", [("c0ffee", True), (None, None)])
def test_where_a_trial_comes_from_is_kept_on_it(storage, commit):
    study = optuna.create_study(storage=storage)
    record_config(study.ask(), "sum", 5, Provenance({"torch": "2.9"}, *commit))
    study.ask()
    assert [read_config_sum(study, number) for number in (0, 1)] == ["sum", None]
    assert [*map(read_data_seed, study.trials)] == [5, None]
    assert [*map(read_provenance, study.trials)] == [Provenance({"torch": "2.9"}, *commit), None]


def test_of_a_trial_that_never_ended_nothing_is_known():
    assert read_facts(optuna.trial.create_trial(value=1.0)) == (0, 0.0, TrialFacts())


def test_what_another_version_has_kept_beyond_this_ones_is_left_alone():
    attrs = {PROVENANCE: {"config": "x", "versions": {}, "new": 1}, FACTS: {"epochs": 2, "device": "cpu", "new": 1}}
    trial = optuna.trial.create_trial(value=1.0, user_attrs=attrs)
    assert read_provenance(trial) == Provenance({})
    assert read_facts(trial) == (2, 0.0, TrialFacts(device="cpu"))
