import lightning as L
import optuna
import pytest
from nets import Line, Points

from lightningtune.config.overrides import Schema
from lightningtune.contract import Objective
from lightningtune.search.spaces import SimpleSearchSpace
from lightningtune.study.changes import define, describe_changes
from lightningtune.study.definition import open_study


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
