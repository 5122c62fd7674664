"""Trackers of whole studies: as the user gives them, in processes of their own, with ranks, and of the study itself."""

import logging
import re
from pathlib import Path

import optuna
import pytest
from lightning.pytorch.loggers import CSVLogger
from nets import Line, Points
from tracked import study_of

from lightningtune import ConfigurationError, OptunaDrivenOptimizer
from lightningtune.files import load_yaml
from lightningtune.study.directory import StudyDirectory


def tags_of(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return read.Tags()["scalars"]


def test_what_is_recorded_is_what_was_given(tmp_path):
    block = {"class_path": "TensorBoardLogger", "init_args": {"save_dir": str(tmp_path / "logs"), "prefix": "p"}}
    optimizer = study_of(tmp_path, block)
    optimizer.optimize()
    for name in ("0000", "0001"):
        assert "p-val_loss" in tags_of(tmp_path / "logs" / "mine" / name)
    assert optimizer.get_best_config()["trainer"]["logger"] == block, "none of our names"


@pytest.mark.parametrize("as_list", [False, True])
def test_an_object_is_refused_with_the_form_that_works(tmp_path, as_list):
    logger = CSVLogger(tmp_path)
    with pytest.raises(ConfigurationError, match="each trial makes a logger of its own") as refused:
        study_of(tmp_path, [True, logger] if as_list else logger)
    assert "{'class_path': 'lightning.pytorch.loggers.csv_logs.CSVLogger', 'init_args': {...}}" in str(refused.value)


def test_a_function_may_make_the_logger(tmp_path):
    study = study_of(tmp_path, {"class_path": "loggers.make_csv", "init_args": {"folder": str(tmp_path / "logs")}})
    study.optimize()
    assert "val_loss" in (tmp_path / "logs/made/metrics.csv").read_text()


def test_a_tracker_that_fails_is_told_of_once_in_a_study(tmp_path, caplog, capsys):
    block = {"class_path": "loggers.Fails", "init_args": {"at": "made"}}
    with caplog.at_level(logging.WARNING, "lightningtune"):
        study = study_of(tmp_path, [block]).optimize()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("Trial 0: Fails cannot be made: ConnectionError: no route to the server.")
    assert capsys.readouterr().out == ""


def test_what_another_study_has_left_for_trackers_is_no_part_of_a_trial(tmp_path):
    directory = StudyDirectory(tmp_path)
    place = directory.trial(3)
    place.mkdir(parents=True)
    for name in ("events.out.tfevents.1.host", "trackers.json"):
        (place / name).touch()
    directory.begin(place, {})
    assert [path.name for path in place.iterdir()] == ["config.yaml"]


@pytest.mark.slow
def test_trials_in_processes_of_their_own_have_their_runs(tmp_path):
    study = study_of(tmp_path, "TensorBoardLogger", n_jobs=2, n_trials=3).optimize()
    assert len(study.get_trials(states=[optuna.trial.TrialState.COMPLETE])) == 3
    for number in range(3):
        assert {"val_loss", "score/val_loss"} <= {*tags_of(tmp_path / "mine" / "trials" / f"{number:04d}")}


@pytest.mark.slow
def test_of_several_ranks_one_logs(tmp_path):
    settings = {"devices": 2, "strategy": "ddp", "use_distributed_sampler": False}
    study = study_of(tmp_path, "TensorBoardLogger", trainer=settings, n_trials=1, isolate=True).optimize()
    assert study.trials[0].state is optuna.trial.TrialState.COMPLETE
    (file,) = (tmp_path / "mine/trials/0000").glob("events.*")
    assert "score/val_loss" in tags_of(file.parent)


class _Broken:
    """Stands for a study-level tracker whose server is away."""

    __module__ = "optuna_integration.mlflow"

    def __init__(self):
        self.calls = 0

    def __call__(self, study, trial):
        self.calls += 1
        raise ConnectionError("no route")


class _Own(_Broken):
    """A user's subclass of it."""

    __module__ = __name__


@pytest.mark.parametrize("kind", [_Broken, _Own])
def test_a_study_callback_of_optuna_integration_that_fails_ends_no_study(tmp_path, caplog, kind):
    broken = kind()
    with caplog.at_level(logging.WARNING, "lightningtune"):
        study = study_of(tmp_path, False, [broken]).optimize()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]
    assert broken.calls == 2
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == (
        f"{kind.__name__} failed for trial 0: ConnectionError: no route. "
        "The study goes on, and nothing more is said of it."
    )


def test_a_users_own_callback_may_end_the_study(tmp_path):
    def enough(study, trial):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        study_of(tmp_path, False, [enough]).optimize()


@pytest.mark.slow
def test_the_page_shows_what_runs(tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "docs" / "trackers.md").read_text()
    shown, callbacks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(shown, {"OptunaDrivenOptimizer": OptunaDrivenOptimizer, "Net": Line, "Data": Points})
    for name in ("0000", "0001"):
        assert "score/val_loss" in tags_of(tmp_path / "logs/mine" / name)
    (config,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    OptunaDrivenOptimizer(load_yaml(config), {"lr": ("loguniform", 1e-3, 1e-1)}, Line, Points, experiment_dir=tmp_path)
    compile(callbacks, "callbacks", "exec")
