"""Which names a tracker is given, and when they are the user's own."""

from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from loggers import Fails, Records

from lightningtune.config.signatures import REQUIRED, signature_of
from lightningtune.errors import InvalidConfigError
from lightningtune.training.tracker_names import (
    TrialName,
    fill_in_names,
    list_imports,
    refuse_shared_runs,
    with_folders,
)

NAME = TrialName("mine", "trial 7", Path("/runs/mine/trials/0007"))


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "WANDB_PROJECT", "WANDB_RUN_GROUP"):
        monkeypatch.delenv(name, raising=False)


def names(kind, run=None, **given):
    """As jsonargparse calls a class: with the defaults of everything that is left open."""
    known = {key: value for key, value in signature_of(kind).defaults.items() if key != "tracking_uri"}
    defaults = {key: None if value is REQUIRED else value for key, value in known.items()}
    return fill_in_names(kind, {**defaults, **given}, NAME, run)


def test_wandb_is_grouped_by_the_study():
    expected = {"name": "trial 7", "save_dir": "/runs/mine/trials/0007", "project": "mine", "group": "mine"}
    assert {key: value for key, value in names(WandbLogger).items() if value is not None} == expected
    assert names(WandbLogger, run="abc")["id"] == "abc"


def test_what_is_said_to_wandb_holds(monkeypatch):
    own = {"name": "n", "save_dir": "d", "project": "p", "group": "g"}
    assert names(WandbLogger, **own) == {"id": None}
    assert names(WandbLogger, dir="d")["save_dir"] == "d"
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_RUN_GROUP", "theirs")
    assert not {"project", "group"} & names(WandbLogger).keys()


def test_mlflow_has_an_experiment_for_the_study(monkeypatch):
    found = names(MLFlowLogger, run="abc")
    assert found == {
        "experiment_name": "mine",
        "run_name": "trial 7",
        "run_id": "abc",
        "tags": {"lightningtune.study": "mine", "lightningtune.trial": "trial 7"},
        "tracking_uri": "sqlite:////runs/mine/mlflow.db",
        "artifact_location": "file:///runs/mine/mlartifacts",
    }
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert names(MLFlowLogger)["tracking_uri"] == "http://server"
    own = {"experiment_name": "e", "run_name": "r", "tracking_uri": "u", "tags": {"a": "b"}}
    assert [*names(MLFlowLogger, **own)] == ["run_id", "tags"]
    assert names(MLFlowLogger, **own)["tags"]["a"] == "b"
    assert "tracking_uri" not in names(MLFlowLogger, save_dir="elsewhere")


def test_a_file_logger_writes_to_the_trials_folder_or_is_named_after_it():
    assert names(CSVLogger, save_dir=str(NAME.directory)) == {"name": "", "version": ""}
    assert names(CSVLogger, save_dir="logs") == {"name": "mine", "version": "0007"}
    assert names(TensorBoardLogger, save_dir="logs", name="n") == {"version": "0007", "default_hp_metric": False}


def test_any_other_logger_is_told_the_folder_where_it_asks_for_one():
    assert names(Records) == {"save_dir": "/runs/mine/trials/0007"}
    assert names(Records, save_dir="own") == {"save_dir": "own/mine/0007"}
    assert names(Fails) == {}


def test_a_folder_is_filled_in_where_one_is_required():
    given = {"logger": ["CSVLogger", {"class_path": "WandbLogger"}, {"class_path": "no.such.Logger"}, 3]}
    expected = [{"class_path": "CSVLogger", "init_args": {"save_dir": "x"}}, *given["logger"][1:]]
    assert with_folders(given, "x") == {"logger": expected}
    own = {"logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "own"}}}
    assert with_folders(own, "x") == own
    assert with_folders({"logger": True}, "x") == {"logger": True}


class Own(TensorBoardLogger):
    """A user's own."""


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("CSVLogger", {"save_dir": "logs", "version": 0}),
        ("lightning.pytorch.loggers.TensorBoardLogger", {"save_dir": "logs", "version": "x"}),
        ("Own", {"save_dir": "logs", "version": "x"}),
        ("WandbLogger", {"id": "x"}),
        ("WandbLogger", {"version": "x"}),
        ("MLFlowLogger", {"run_id": "x"}),
    ],
)
def test_a_run_that_all_trials_would_share_is_refused(kind, given):
    name, value = [*given.items()][-1]
    said = f"each trial has a run of its own, but {kind.rpartition('.')[2]} is given {name}={value!r} for all of them"
    with pytest.raises(InvalidConfigError, match=f"^trainer.logger: {said}. Leave it out"):
        refuse_shared_runs({"logger": ["CSVLogger", {"class_path": kind, "init_args": given}]})


def test_what_leaves_the_run_open_is_not_refused():
    own = {"class_path": "loggers.Records", "init_args": {"version": 3}}
    in_the_trials_folder = {"class_path": "CSVLogger", "init_args": {"version": 3}}
    left_open = {"class_path": "CSVLogger", "init_args": {"save_dir": "logs", "version": None}}
    for logger in (None, True, "CSVLogger", in_the_trials_folder, left_open, own):
        refuse_shared_runs({"logger": logger})
    refuse_shared_runs({})


def test_it_is_known_what_trackers_import():
    assert list_imports({"logger": True}) == ["torch.utils.tensorboard"]
    assert list_imports({"logger": ["CSVLogger", False, 3]}) == []
    assert list_imports({}) == []
    own = {"class_path": "lightning.pytorch.loggers.MLFlowLogger", "init_args": {}}
    assert list_imports({"logger": own})[0] == "mlflow"
