"""What a study tries: its space, its baseline, and what is queued."""

import optuna
import pytest
from nets import Line, Points
from reported import needs_optuna_5

from lightningtune import ConfigurationError, tunable

LR = {"lr": ("loguniform", 1e-3, 1.0)}
QUICK = {"trainer": {"max_epochs": 2, "accelerator": "cpu"}}


def test_the_untuned_defaults_are_the_first_trial(tune):
    optimizer = tune(search_space={**LR, "data.batch_size": ("int", 4, 16)})
    study = optimizer.optimize()
    assert study.trials[0].params == {"lr": 0.1, "data.batch_size": 8}
    results = optimizer.results()
    assert results.baseline.number == 0
    assert results.improvement == pytest.approx(results.baseline.value - study.best_value)
    assert results.improvement >= 0


def test_a_default_outside_its_range_is_tried_all_the_same(tune):
    assert tune(search_space={"lr": ("uniform", 0.2, 0.5)}).optimize().trials[0].params == {"lr": 0.1}


def test_the_base_config_is_the_baseline(tune):
    config = {**QUICK, "model": {"lr": 0.5}}
    assert tune(base_config=config).optimize().trials[0].params == {"lr": 0.5}


def test_the_baseline_can_be_left_out_or_given(tune):
    assert tune(baseline=False, study_name="none").optimize().trials[0].params != {"lr": 0.1}
    given = tune(baseline={"lr": 0.25}, study_name="given")
    assert given.optimize().trials[0].params == {"lr": 0.25}
    assert given.results().baseline.number == 0
    with pytest.raises(ConfigurationError, match="lrr"):
        tune(baseline={"lr": 0.25, "lrr": 1}, study_name="wrong")


def test_a_baseline_may_be_given_by_its_values(tune):
    space = {"width": ("categorical", [[4], [8]])}
    build = {"model_class": lambda width=(4,): Line(width=width[0]), "search_space": space, "n_trials": 1}
    assert tune(**build, baseline={"width": [8]}).optimize().trials[0].params == {"width": "[8]"}


def test_defaults_outside_the_space_are_told_of(tune, capsys):
    tune(search_space={"lr": ("uniform", 0.5, 1.0)}, n_trials=1, verbose=True).optimize()
    said = " ".join(capsys.readouterr().out.split())
    assert "lie outside the search space, and are tried first all the same: lr=0.1 (uniform 0.5 … 1.0)" in said


def prunes_the_defaults(trial):
    if trial.suggest_float("lr", 0.01, 0.2) == 0.1:
        raise optuna.TrialPruned


def test_a_function_that_does_not_take_the_defaults_goes_on_without(tune, capsys):
    study = tune(search_space=prunes_the_defaults, verbose=True).optimize()
    assert len(study.trials) == 3
    assert "not tried first: the search space raises TrialPruned for them. See baseline=." in capsys.readouterr().out


def test_defaults_that_are_no_point_of_the_space_are_told_of(tune, capsys):
    optimizer = tune(search_space={"act": ("categorical", ["gelu", "tanh"])}, verbose=True)
    assert optimizer.optimize().trials[0].params["act"] in {"gelu", "tanh"}
    assert "act='relu' is not among its choices" in " ".join(capsys.readouterr().out.split())


def depth_decides(trial):
    depth = trial.suggest_int("depth", 1, 2)
    return {"model.width": trial.suggest_int(f"width_{depth}", 2, 8)}


def test_what_is_queued_and_not_in_the_space_is_refused_or_told_of(tune, caplog):
    optimizer = tune(baseline=False, n_trials=1)
    optimizer.study.enqueue_trial({"learning_rate": 0.01})
    with pytest.raises(
        ConfigurationError, match=r"'learning_rate' is no parameter .* Did you mean 'lr'\? It has: lr\."
    ):
        optimizer.optimize()
    optimizer = tune(baseline=False, n_trials=2, study_name="function", search_space=depth_decides)
    optimizer.study.enqueue_trial({"depth": 1, "width_1": 2, "width_2": 8})
    optimizer.study.enqueue_trial({"depth": 2, "width_2": 9})
    assert [trial.params for trial in optimizer.optimize().trials] == [
        {"depth": 1, "width_1": 2},
        {"depth": 2, "width_2": 9},
    ]
    assert [record.getMessage() for record in caplog.records if "queued" in record.getMessage()] == [
        "Trial 0: 'width_2' was queued, and is ignored: the space does not suggest it here.",
        "Trial 1: width_2=9 was queued, and is tried outside its range (int 2 … 8).",
    ]


def build(lr: float, width: int = 2):
    return Line(lr, width)


def test_the_space_comes_from_decorated_classes(tune):
    @tunable(search_space=LR)
    class Net(Line):
        pass

    @tunable(search_space={"batch_size": ("int", 4, 8)})
    class Data(Points):
        pass

    study = tune(model_class=Net, datamodule_class=Data, search_space=None).optimize()
    assert set(study.trials[0].params) == {"lr", "batch_size"}


def test_a_function_is_a_space_and_its_helper_choices_reach_no_config(tune):
    def space(trial):
        big = trial.suggest_categorical("big", [True, False])
        return {"model.width": 8 if big else trial.suggest_int("small_width", 1, 3), "model.lr": 0.2}

    optimizer = tune(search_space=space, n_trials=4)
    study = optimizer.optimize()
    for trial in study.trials:
        width = optimizer.get_best_config(trial.number)["model"]["width"]
        assert width == (8 if trial.params["big"] else trial.params["small_width"])


@needs_optuna_5
def test_constraints_stated_in_the_space_hold(tune):
    def space(trial):
        lr = trial.suggest_float("lr", 1e-3, 1.0, log=True)
        trial.set_constraint("not the best", 1.0 if lr == 0.1 else -1.0)

    optimizer = tune(search_space=space, n_trials=4)
    study = optimizer.optimize()
    assert study.trials[0].params["lr"] == 0.1
    assert optimizer.results().best.number == study.best_trial.number != 0
