import optuna
import pytest
from reported import constrain

from lightningtune.search.spaces import RecordingTrial
from lightningtune.study.constraints import constraint_attributes, constraints_of, is_feasible


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
    assert [*constraints_of(trial).values()] == [*values]
    assert is_feasible(trial) is feasible


@pytest.mark.filterwarnings("ignore:`?constraints_func:FutureWarning", "ignore::optuna.exceptions.ExperimentalWarning")
def test_the_constraints_of_a_sampler_are_read():
    sampler = optuna.samplers.TPESampler(constraints_func=lambda trial: (1.0, -2.0), seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert {**constraints_of(study.trials[0])} == {"0": 1.0, "1": -2.0}
    assert not is_feasible(study.trials[0])


def test_a_copy_keeps_the_constraints():
    copy = optuna.trial.create_trial(value=0.0, system_attrs=constraint_attributes(told(1.0)))
    assert [*constraints_of(copy).values()] == [1.0]


def test_an_optuna_that_cannot_set_constraints_is_named():
    trial = RecordingTrial(object(), lambda parameter: None, {})
    with pytest.raises(AttributeError, match="set_constraint needs Optuna 5.*constraints_func"):
        trial.set_constraint("memory", 1.0)
