import functools

import lightning as L
import optuna
import pytest
from nets import Line, Points

from lightningtune import ConfigurationError
from lightningtune.config.schema import Schema
from lightningtune.contract import Objective
from lightningtune.search.spaces import SimpleSearchSpace, as_search_space
from lightningtune.study.changes import SUBJECT, Subject, check_subject, define, describe_changes
from lightningtune.study.opening import open_study


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({}, {}, None),
        ({"n_trials": 5, "seed": 1}, {"n_trials": 9, "seed": 2}, None),
        ({"base_config": {"data": None}}, {"base_config": {"data": {}}}, None),
        ({"score": "best"}, {"score": "last"}, "score best → last"),
        ({"sampler": "TPESampler"}, {"sampler": "GPSampler"}, "sampler TPESampler → GPSampler"),
        ({"search_space": {"lr": [0, 1], "b": [1]}}, {"search_space": {"lr": [0, 2]}},
         "search_space.b removed, which was [1]; search_space.lr [0, 1] → [0, 2]"),
        ({"search_space": "AdvancedSearchSpace(f)"}, {"search_space": {"lr": [0, 2]}},
         "search_space removed, which was AdvancedSearchSpace(f); search_space.lr added: [0, 2]"),
        ({}, {"base_config": {f"p{i}": i for i in range(10)}},
         "; ".join(f"base_config.p{i} added: {i}" for i in range(8)) + "; and 2 more"),
    ],
)  # fmt: skip
def test_what_differs_is_named_by_its_path(before, now, told):
    expected = told and f"Changed since the last run, for the trials that follow: {told}."
    assert describe_changes(before, now) == expected


def test_what_is_written_down_names_all_that_decides_a_study():
    storage = optuna.storages.InMemoryStorage()
    study = open_study("s", storage, ["maximize"], ["val_acc"], True, None, None, seed=3)
    space = SimpleSearchSpace({"lr": ("uniform", 0.0, 1.0)})
    schema = Schema(Line, Points, L.Trainer)
    found = define(study, Objective(("val_acc",), ("max",)), 5, schema, space, {"trainer": {"max_epochs": 2}})
    assert found["versions"]["optuna"] == optuna.__version__
    assert (found["model_class"], found["datamodule_class"]) == ("nets.Line", "nets.Points")
    assert (found["study_name"], found["metric"], found["direction"]) == ("s", ["val_acc"], ["maximize"])
    assert (found["seed"], found["n_trials"], found["sampler"]) == (3, 5, "TPESampler")
    assert found["search_space"] == space.to_dict()
    assert describe_changes(found, {**found, "pruner": "NopPruner", "n_trials": 9}) == (
        "Changed since the last run, for the trials that follow: pruner MedianPruner → NopPruner."
    )


WIDTH = SimpleSearchSpace({"width": ("int", 2, 8)})


def subject(model=Line, space=WIDTH, config=None):
    return Subject.of(Schema(model, Points, L.Trainer), as_search_space(space), config or {})


@pytest.mark.parametrize(
    ("model", "block", "space", "name"),
    [
        (Line, {}, WIDTH, "nets.Line"),
        (functools.partial(functools.partial(Line, width=2), lr=1.0), {}, WIDTH, "nets.Line"),
        (None, {"class_path": "nets.Line"}, WIDTH, "nets.Line"),
        (Line, {"class_path": "nets.DiesOnce"}, WIDTH, "nets.DiesOnce"),
        (None, {"class_path": "not.there"}, WIDTH, "not.there"),
        (
            None,
            {"class_path": "nets.Line"},
            {"model.class_path": ("categorical", ["nets.Line", "nets.DiesOnce"])},
            None,
        ),
        (None, {"class_path": "nets.Line"}, lambda trial: {"model": trial.suggest_categorical("m", ["x"])}, None),
    ],
)
def test_a_model_is_known_by_its_class_unless_that_is_tuned(model, block, space, name):
    assert subject(model, space, {"model": block}).classes == {"model_class": name, "datamodule_class": "nets.Points"}


def test_a_function_has_the_parameters_that_samples_have(caplog):
    def space(trial):
        for layer in range(trial.suggest_int("depth", 1, 2)):
            trial.suggest_int(f"width_{layer}", 2, 8)
        raise optuna.TrialPruned

    found = subject(space=space)
    assert (found.parameters, found.is_complete) == (("depth", "width_0", "width_1"), False)
    assert "A new study" not in caplog.text, "Optuna says so of each study, also of one that only tries a space"


@pytest.fixture
def study():
    return open_study("s", optuna.storages.InMemoryStorage(), ["minimize"], ["val_loss"], True, None, None, seed=3)


def with_trial(study, state="COMPLETE", **params):
    distributions = {name: optuna.distributions.FloatDistribution(0, 1) for name in params}
    value = 1.0 if state == "COMPLETE" else None
    state = optuna.trial.TrialState[state]
    study.add_trial(optuna.trial.create_trial(state=state, value=value, params=params, distributions=distributions))


@pytest.mark.parametrize("state", ["COMPLETE", "RUNNING"])
def test_a_study_that_has_begun_keeps_its_subject(study, state):
    check_subject(study, subject(Points), "'rm it'")
    check_subject(study, subject(), "'rm it'")
    with_trial(study, state)
    check_subject(study, subject(), "'rm it'")
    with pytest.raises(ConfigurationError, match=r"model_class=nets.Line, but model_class=nets.Points is.*'rm it'"):
        check_subject(study, subject(Points), "'rm it'")
    assert study.user_attrs[SUBJECT]["classes"]["model_class"] == "nets.Line"


def test_a_study_of_an_older_version_goes_on_unless_its_trials_have_other_parameters(study):
    with_trial(study, width=0.5, depth=0.5)
    with pytest.raises(ConfigurationError, match="with the parameters depth, width, but the parameter lr is asked for"):
        check_subject(study, subject(space={"lr": ("uniform", 0.0, 1.0)}), "'rm it'")
    check_subject(study, subject(), "'rm it'")
    assert study.user_attrs[SUBJECT]["parameters"] == ["width"]


def test_only_a_function_without_any_known_parameter_is_refused(study):
    check_subject(study, subject(), "'rm it'")
    with_trial(study, width=0.5, seen=0.5)
    check_subject(study, subject(space=lambda trial: {"lr": trial.suggest_float("seen", 0.0, 1.0)}), "'rm it'")
    with pytest.raises(ConfigurationError, match="with the parameters seen, width, but the parameter lr is asked for"):
        check_subject(study, subject(space=lambda trial: {"lr": trial.suggest_float("lr", 0.0, 1.0)}), "'rm it'")
