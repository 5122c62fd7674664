import sys

import optuna
import pandas as pd
import pytest
from reported import constrain

from lightningtune import NoResultError
from lightningtune.contract import StopReason, TrialOutcome
from lightningtune.search.spaces import RecordingTrial
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.reporter import BASELINE, record_outcome
from lightningtune.study.results import collect_results, read_trial
from lightningtune.study.tally import TrialTally, get_constraint_attributes, get_constraints, is_feasible


@pytest.fixture
def study():
    """Four trials: the baseline (3.0), a better one (1.0), a pruned and a failed one."""
    study = optuna.create_study()
    study.enqueue_trial({"x": 3.0}, user_attrs={BASELINE: True})
    for value in (3.0, 1.0):
        trial = study.ask()
        trial.suggest_float("x", 0, 5)
        record_outcome(trial, TrialOutcome(StopReason.COMPLETED, score=(value,), epochs=4, duration=1.5))
        study.tell(trial, value)
    pruned = study.ask()
    pruned.report(2.0, 0)
    record_outcome(pruned, TrialOutcome(StopReason.PRUNED, "pruned by hand"))
    study.tell(pruned, state=optuna.trial.TrialState.PRUNED)
    failed = study.ask()
    record_outcome(failed, TrialOutcome.failed(ValueError("no\nluck")))
    study.tell(failed, state=optuna.trial.TrialState.FAIL)
    return study


@pytest.fixture
def results(study, tmp_path):
    return collect_results(study, ("val_loss",), StudyDirectory(tmp_path))


def test_results_say_how_each_trial_ended(results):
    assert [trial.state for trial in results.trials] == ["complete", "complete", "pruned", "fail"]
    assert [trial.reason for trial in results.trials] == ["completed", "completed", "pruned", "failed"]
    assert results.trials[3].detail == "ValueError: no luck"
    assert (results.trials[0].epochs, results.trials[0].duration) == (4, 1.5)
    assert results.counts == {"complete": 2, "pruned": 1, "fail": 1}


def test_the_improvement_is_positive_whatever_the_direction(study, results, tmp_path):
    assert (results.best.number, results.baseline.number, results.improvement) == (1, 0, 2.0)
    upward = optuna.create_study(direction="maximize")
    for value, attrs in ((0.5, {BASELINE: True}), (0.75, {})):
        upward.add_trial(optuna.trial.create_trial(value=value, user_attrs=attrs))
    assert collect_results(upward, ("val_acc",), StudyDirectory(tmp_path)).improvement == 0.25


def test_the_front_of_several_objectives_has_no_single_best(tmp_path):
    study = optuna.create_study(directions=["minimize", "minimize"])
    for values in ((1.0, 3.0), (3.0, 1.0), (4.0, 4.0)):
        study.add_trial(optuna.trial.create_trial(values=values))
    results = collect_results(study, ("loss", "size"), StudyDirectory(tmp_path))
    assert results.best_numbers == (0, 1)
    with pytest.raises(NoResultError, match="2 objectives.*0, 1"):
        results.best  # noqa: B018
    assert results.choose(2) == 2


def test_only_a_completed_trial_can_be_chosen(results):
    assert results.choose(0) == 0
    with pytest.raises(NoResultError, match=r"Trial 2 .* not complete. Complete: 0, 1"):
        results.choose(2)


def test_an_empty_study_says_so(tmp_path):
    results = collect_results(optuna.create_study(study_name="s"), ("loss",), StudyDirectory(tmp_path))
    assert results.improvement is None
    with pytest.raises(NoResultError, match="Study 's': No trial has been run"):
        results.choose()


def test_infeasible_trials_are_never_best():
    study = optuna.create_study()
    for value, constraint in ((1.0, 1.0), (2.0, -1.0), (3.0, 0.0)):
        trial = study.ask()
        constrain(trial, constraint)
        study.tell(trial, value)
    assert TrialTally(study).get_top(3) == [1, 2]
    assert TrialTally(study).best[0] == study.best_trial.number


def test_where_all_are_infeasible_that_is_why_there_is_no_best(tmp_path):
    study = optuna.create_study(study_name="s")
    trial = study.ask()
    constrain(trial, 1.0)
    study.tell(trial, 1.0)
    results = collect_results(study, ("loss",), StudyDirectory(tmp_path))
    with pytest.raises(NoResultError, match="There is no best trial: each that is complete violates a constraint."):
        results.choose()


def test_where_pandas_is_missing_that_is_said(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        results.to_pandas()


def test_defaults_that_violate_a_constraint_are_not_compared_with(tmp_path):
    study = optuna.create_study()
    for value, constraint in ((3.0, 1.0), (2.0, -1.0)):
        trial = study.ask()
        trial.set_user_attr(BASELINE, constraint > 0)
        constrain(trial, constraint)
        study.tell(trial, value)
    found = collect_results(study, ("val_loss",), StudyDirectory(tmp_path))
    assert [trial.is_feasible for trial in found.trials] == [False, True]
    assert (found.baseline.number, found.improvement) == (0, None)


@pytest.mark.parametrize(("trainer", "epochs"), [({"max_epochs": 9}, 2), ({"val_check_interval": 0.5}, 0), (None, 0)])
def test_of_a_trial_that_was_killed_its_validations_tell_the_epochs(study, tmp_path, trainer, epochs):
    trial = study.ask()
    for step in range(2):
        trial.report(0.5, step)
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    directory = StudyDirectory(tmp_path)
    if trainer is not None:
        directory.begin(directory.trial(trial.number), {"trainer": trainer})
    told = read_trial(study.trials[trial.number], directory)
    assert told.epochs == epochs
    assert (told.duration > 0.0) == (trainer is not None), "until it has last written something"
    assert told.duration <= study.trials[trial.number].duration.total_seconds()


def test_running_trials_keep_their_weights(study):
    running = study.ask()
    assert TrialTally(study).find_kept(1) == {1, running.number}


def test_results_become_a_table(results):
    table = results.to_pandas()
    assert isinstance(table, pd.DataFrame)
    assert list(table["state"]) == ["complete", "complete", "pruned", "fail"]
    assert table.loc[0, "params.x"] == 3.0
    assert table.loc[1, "val_loss"] == 1.0
    assert list(table["baseline"]) == [True, False, False, False]


def test_a_notebook_shows_results_as_print_does(results):
    from IPython.lib.pretty import pretty

    assert pretty(results) == str(results)


def told(*values):
    study = optuna.create_study()
    trial = study.ask()
    for value in values:
        constrain(trial, value)
    study.tell(trial, 0.0)
    return study.trials[0]


@pytest.mark.parametrize(("values", "feasible"), [((), True), ((0.0,), True), ((-1.0,), True), ((1.0,), False)])
def test_a_trial_is_feasible_where_each_constraint_is_zero_or_less(values, feasible):
    trial = told(*values)
    assert [*get_constraints(trial).values()] == [*values]
    assert is_feasible(trial) is feasible


@pytest.mark.filterwarnings("ignore:`?constraints_func:FutureWarning", "ignore::optuna.exceptions.ExperimentalWarning")
def test_the_get_constraints_a_sampler_are_read():
    sampler = optuna.samplers.TPESampler(constraints_func=lambda trial: (1.0, -2.0), seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert {**get_constraints(study.trials[0])} == {"0": 1.0, "1": -2.0}
    assert not is_feasible(study.trials[0])


def test_a_copy_keeps_the_constraints():
    copy = optuna.trial.create_trial(value=0.0, system_attrs=get_constraint_attributes(told(1.0)))
    assert [*get_constraints(copy).values()] == [1.0]


def test_an_optuna_that_cannot_set_constraints_is_named():
    trial = RecordingTrial(object(), lambda parameter: None, {})
    with pytest.raises(AttributeError, match="set_constraint needs Optuna 5.*constraints_func"):
        trial.set_constraint("memory", 1.0)
