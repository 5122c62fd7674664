"""Checks of whole studies, each of whose faults is a real model's."""

import json
import os
import re
import threading
from pathlib import Path

import lightning as L
import optuna
import pytest
import torch
from faults import Faulty, Streamed, Writes
from lightning.pytorch.callbacks import ModelCheckpoint
from nets import Line, Points
from torch.utils.data import DataLoader, TensorDataset

from lightningtune import ConfigurationError, OptunaDrivenOptimizer
from lightningtune.check.points import DryRunPoint
from lightningtune.check.report import CheckReport
from lightningtune.check.study import DryRunner, is_hopeless, start_processes
from lightningtune.config.schema import Schema
from lightningtune.contract import Objective
from lightningtune.host import StudyPlan
from lightningtune.search.spaces import as_search_space
from lightningtune.study.directory import StudyDirectory
from lightningtune.training.build import Blueprint
from lightningtune.workers.devices import Slot

CPU = {"accelerator": "cpu", "max_epochs": 5}
LR = {"lr": ("uniform", 0.05, 0.2)}
ONE = {"width": ("categorical", [4])}
"""A space of one point: two runs are enough for what is not of the space."""


@pytest.fixture
def optimizer(tmp_path):
    """Build an optimizer with small defaults, each of which a test may replace."""

    def build(**changed):
        given = {
            "base_config": {"trainer": CPU},
            "search_space": LR,
            "model_class": Faulty,
            "datamodule_class": Points,
            "study_name": "checked",
            "experiment_dir": tmp_path / "runs",
            "n_trials": 20,
            "verbose": False,
        }
        return OptunaDrivenOptimizer(**{**given, **changed})

    return build


def found(report, about=None):
    return [(one.severity, one.text) for one in report.findings if about in (None, one.about)]


def test_a_sound_study_is_told_what_it_takes(optimizer, tmp_path):
    told = []
    report = optimizer().check(told.append)
    assert isinstance(report, CheckReport)
    assert (report.ok, report.findings) == (True, ())
    assert [run.name for run in report.runs] == ["untuned defaults", "all low", "all high"]
    assert told == [f"{i} of 3: {run.name}" for i, run in enumerate(report.runs, 1)]
    assert {run.outcome.reason.value for run in report.runs} == {"completed"}
    assert [heading for heading, _ in report.facts] == ["Tried", "Metric", "Pruner", "Time", "Memory", "Disk"]
    facts = dict(report.facts)
    assert facts["Metric"].startswith("val_loss 0.")
    assert facts["Pruner"] == "MedianPruner: from trial 5 on, and from validation 1 of 5 on"
    assert "20 trials of " in facts["Time"]
    assert "5 epochs of 2 batches of " in facts["Time"]
    assert "4 checkpoints of " in facts["Disk"]
    forecast = report.forecast
    low, mean, high = forecast.trial_seconds
    assert 0 < low <= mean <= high
    assert forecast.seconds == pytest.approx(20 * mean)
    assert forecast.validations == 5
    assert 50e6 < forecast.memory < 4e9
    assert max(map(len, str(report).splitlines())) <= 80
    assert str(report).startswith("Study 'checked': minimize val_loss, 20 trials.\n  Tried   3 runs of two batches in ")
    assert str(report).endswith("\n\nNothing was found.")
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True


@pytest.mark.slow
def test_a_check_leaves_nothing_behind_and_the_study_as_it_is(optimizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = optimizer(
        base_config={"trainer": {**CPU, "callbacks": [{"class_path": "ModelCheckpoint"}], "logger": True}},
        callbacks=[Writes(str(tmp_path / "told")), ModelCheckpoint(tmp_path / "elsewhere", monitor="val_loss")],
        n_trials=2,
    )
    given.check()
    folder, *limits = (tmp_path / "told").read_text().split("\n")[0].split()
    assert limits == ["1.0", "5"]
    assert not os.path.exists(folder)  # noqa: PTH110
    assert [path.name for path in tmp_path.iterdir()] == ["told"]
    study = given.optimize()
    assert len(study.trials) == 2
    given.check()
    assert len(optuna.load_study(study_name="checked", storage=study._storage).trials) == 2


# --- what the runs show ------------------------------------------------------------------------------------------


def test_a_metric_that_no_epoch_can_log_ends_the_check(optimizer):
    report = optimizer(metric="val/loss").check()
    (error, left) = found(report)
    assert not report.ok
    assert error == (
        "error",
        "untuned defaults: The metric 'val/loss' was not logged. Logged: size, val_acc, val_loss. "
        "Did you mean 'val_loss'?",
    )
    assert left == ("note", "Not tried, since those before failed: all low, all high.")
    assert [one.about for one in report.findings] == ["metric", "run"]


def test_a_metric_that_a_later_epoch_may_log_is_a_warning(optimizer):
    report = optimizer(base_config={"model": {"fault": "misspelt"}, "trainer": CPU}).check()
    assert found(report) == [
        (
            "warning",
            "All 3 runs: The metric 'val_loss' was not logged. Logged: val_los. Did you mean 'val_los'? That was the "
            "first epoch: a trial fails unless a later one logs it.",
        )
    ]


@pytest.mark.slow
def test_whatever_happens_at_a_corner_is_a_finding(optimizer):
    choices = ["none", "log", "raise", "segfault", "kill", "memory", "nan"]
    space = {"fault": ("categorical", choices), "width": ("int", 4, 8)}
    report = optimizer(search_space=space).check()
    texts = {text.partition(":")[0]: (severity, text) for severity, text in found(report)}
    assert texts["fault=raise"] == ("error", "fault=raise: RuntimeError: shapes do not match: 4")
    assert texts["fault=segfault"][0] == "error"
    assert "SIGSEGV" in texts["fault=segfault"][1]
    assert "killed by SIGKILL" in texts["fault=kill"][1]
    assert texts["fault=memory"] == ("error", "fault=memory: OutOfMemoryError: tried to allocate 80 GiB")
    severity, text = texts["all high (fault=nan, width=8)"]
    assert severity == "warning"
    assert "is nan" in text
    severity, text = texts["fault=log"]
    assert severity == "error"
    assert "trainer.logger is not set, so each trial has a CSVLogger, whose experiment has no 'add_scalar'." in text
    assert len(report.runs) == 9
    assert len(report.findings) == 6


def test_where_everything_diverges_it_is_an_error(optimizer):
    report = optimizer(search_space=ONE, base_config={"model": {"fault": "nan"}, "trainer": CPU}).check()
    ((severity, text),) = found(report, "metric")
    assert severity == "error"
    assert text.startswith("All 2 runs: ")


def test_runs_that_fail_alike_are_told_of_once_and_the_rest_left_out(optimizer):
    space = {"width": ("int", 4, 8), **LR}
    report = optimizer(base_config={"model": {"fault": "raise"}, "trainer": CPU}, search_space=space).check()
    error, note = found(report)
    assert error == ("error", "All 3 runs: RuntimeError: shapes do not match: 4")
    assert note[1] == "Not tried, since those before failed: width=8, lr=0.2."
    assert dict(report.facts)["Tried"].startswith("3 runs")


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_is_an_error(optimizer):
    given = {"search_space": ONE, "base_config": {"model": {"fault": "checkpoint"}, "trainer": CPU}}
    ((severity, text),) = found(optimizer(**given).check(), "run")
    assert severity == "error"
    assert "cannot pickle" in text
    report = optimizer(**given, save_checkpoints=False).check()
    assert report.ok
    assert report.forecast.disk is None


@pytest.mark.slow
def test_parameters_that_change_nothing_are_named(optimizer):
    space = {
        "unused": ("uniform", 0.1, 0.9),
        "late": ("categorical", [0.1, 0.5, 0.9]),
        "decay": ("loguniform", 1e-20, 1e-10),
        "trainer.max_epochs": ("int", 2, 9),
        **LR,
    }
    report = optimizer(search_space=space).check()
    assert found(report, "parameter") == [
        (
            "warning",
            "'late' (0.9) and 'unused' (0.9) changed nothing in two batches: from the same seed came the same losses, "
            "metrics, weights, optimizer and schedulers as with the untuned defaults, to the last bit. Are they used? "
            "What acts later, or on speed alone, cannot be seen here.",
        )
    ]
    assert report.ok


def needs_lr(lr: float, width: int = 4):
    return Line(lr, width)


def test_without_defaults_the_low_end_is_the_base(optimizer):
    space = {**LR, "width": ("int", 2, 4)}
    report = optimizer(model_class=needs_lr, search_space=space).check()
    assert [run.name for run in report.runs] == ["all low", "all high", "lr=0.2", "width=4"]
    assert report.runs[-1].base == "all low"
    assert found(report) == [("note", "The untuned defaults are not tried first: 'lr' has no default, and the config "
                              "gives no value for it. See baseline=.")]  # fmt: skip


@pytest.mark.slow
def test_the_branches_of_a_function_are_tried(optimizer):
    def space(trial):
        fault = trial.suggest_categorical("fault", ["none", "raise"])
        width = trial.suggest_int("wide", 16, 32) if fault == "raise" else 4
        return {"model.fault": fault, "model.width": width}

    report = optimizer(search_space=space).check()
    errors = [text for severity, text in found(report) if severity == "error"]
    assert len(errors) == 1
    assert errors[0].startswith("fault=raise, all high (fault=raise, wide=32)") or errors[0].startswith("fault=raise")
    assert "shapes do not match" in errors[0]


def test_runs_here_where_nothing_can_travel(optimizer):
    class Local(Line):
        def __init__(self, lr: float = 0.1):
            super().__init__(lr)
            assert os.getpid() == here

        lock = threading.Lock()  # which cannot be pickled

    here = os.getpid()
    report = optimizer(model_class=Local).check()
    assert report.ok, str(report)
    assert len(report.runs) == 3
    with pytest.raises(ConfigurationError, match="lock"):  # as a study would
        optimizer(model_class=Local, isolate=True).optimize()
    report = optimizer(model_class=Local, isolate=True).check()
    assert found(report, "config")[0][0] == "error"


def test_a_logger_that_trials_do_not_have_is_told_of_and_so_it_is_by_the_study(optimizer):
    given = {"search_space": ONE, "base_config": {"model": {"fault": "log"}, "trainer": CPU}, "n_trials": 2}
    expected = "set trainer.logger to true for that, or to the logger that the code is written for"
    (error,) = [text for severity, text in found(optimizer(**given).check()) if severity == "error"]
    assert expected in error
    with pytest.raises(ConfigurationError, match=expected):
        optimizer(**given).optimize()


def test_a_tracker_gets_no_run_and_what_is_not_tried_is_said(optimizer):
    trainer = {**CPU, "logger": {"class_path": "WandbLogger"}, "callbacks": ["LearningRateFinder"]}
    report = optimizer(search_space=ONE, base_config={"trainer": trainer}).check()
    assert ("note", "Not tried: WandbLogger, LearningRateFinder; a dry run makes no run of a tracker, and starts no "
            "search of its own.") in found(report)  # fmt: skip
    assert report.ok


# --- what needs no run ------------------------------------------------------------------------------------------


def test_directions_pruners_and_lengths_are_judged(optimizer):
    report = optimizer(
        search_space=ONE,
        metric="val_acc",
        base_config={"trainer": {**CPU, "max_epochs": 1}},
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=3),
    ).check()
    assert found(report, "metric") == [("warning", "'val_acc' is minimized: is that meant? See direction=.")]
    assert found(report, "pruner") == [
        ("warning", "MedianPruner prunes nothing in this study: a trial has one validation, which is its last.")
    ]


def test_a_trial_that_never_validates_and_one_without_end_are_told_of(optimizer):
    never = {**CPU, "max_epochs": 3, "check_val_every_n_epoch": 9}
    report = optimizer(search_space=ONE, base_config={"trainer": never}).check()
    assert found(report, "metric") == [
        ("error", "untuned defaults: No validation ran (check_val_every_n_epoch=9 is more than max_epochs=3), so "
         "'val_loss' has no value. Training logged: nothing.")
    ]  # fmt: skip
    endless = {"trainer": {"accelerator": "cpu"}}
    report = optimizer(search_space=ONE, base_config=endless, datamodule_class=Streamed).check()
    assert found(report, "config") == [
        ("warning", "trainer.max_epochs is not set: Lightning trains each trial for 1000 epochs.")
    ]
    assert dict(report.facts)["Time"] == "unknown: no run came to its end, or it cannot be told how long a trial is"


def test_several_objectives_have_no_pruner(optimizer):
    report = optimizer(
        search_space=ONE,
        metric=["val_loss", "size"],
        direction=["minimize"] * 2,
        pruner=optuna.pruners.MedianPruner(),
        n_jobs=2,
    ).check()
    assert found(report, "pruner") == [
        ("warning", "MedianPruner prunes nothing: Optuna prunes no trial of several objectives.")
    ]
    assert "2 at a time" in dict(report.facts)["Memory"]
    assert "7 checkpoints" in dict(report.facts)["Disk"]


def test_a_space_that_is_soon_exhausted_and_a_folder_that_cannot_be_written(optimizer):
    report = optimizer(search_space=ONE, experiment_dir="/proc/runs").check()
    assert found(report, "space") == [("note", "The space has 1 point, fewer than the 20 trials.")]
    if os.getuid():
        assert found(report, "disk") == [("error", "The study's folder '/proc/runs/checked' cannot be written to.")]


def test_ctrl_c_ends_a_check(optimizer, tmp_path):
    def interrupt(text):
        if text.startswith("2 of"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimizer().check(interrupt)
    assert not (tmp_path / "runs").exists()


# --- the runner, in this process ---------------------------------------------------------------------------------

WIDTHS = [DryRunPoint(f"width={width}", {"width": width}, {"width": width}) for width in (4, 8, 16, 32)]


@pytest.fixture
def try_points(tmp_path):
    """Try points of a model that has a fault, or none."""

    def run(points, fault="none", told=None, seconds=600.0):
        config = {
            "model": {"fault": fault},
            "data": {"batch_size": 2},
            "trainer": {"accelerator": "cpu", "max_epochs": 5},
        }
        blueprint = Blueprint(Schema(Faulty, Points, L.Trainer), config)
        plan = StudyPlan(
            space=as_search_space({"width": ("int", 4, 32)}),
            blueprint=blueprint,
            objective=Objective(("val_loss",), ("min",)),
            directory=StudyDirectory(tmp_path),
            callbacks=(),
            save_checkpoints=False,
            save_top_k=1,
            max_failures=3,
            n_trials=20,
            trial_timeout=None,
        )
        runner = DryRunner(plan, Slot(), 0, tmp_path, processes=None, is_isolated=False)
        return runner.run_all(points, (told if told is not None else []).append, seconds)

    return run


def test_each_point_is_told_of_and_noted_and_has_the_config_that_a_trial_would_have(try_points):
    told = []
    runs, left = try_points(WIDTHS[:2], told=told)
    assert told == ["1 of 2: width=4", "2 of 2: width=8"]
    assert left == ()
    assert runs[0].notes.metrics["size"] < runs[1].notes.metrics["size"]
    assert runs[0].notes.settings["max_epochs"] == 5


def test_when_the_time_is_up_no_further_point_is_tried(try_points):
    runs, left = try_points(WIDTHS[:2], seconds=0)
    assert [run.name for run in runs] == ["width=4"]
    assert [*left] == WIDTHS[1:2]


def test_when_the_first_three_have_failed_no_further_point_is_tried(try_points):
    runs, left = try_points(WIDTHS, "raise")
    assert is_hopeless(runs)
    assert (len(runs), [*left]) == (3, WIDTHS[3:])


def test_what_only_a_short_epoch_raises_is_in_doubt(try_points):
    runs, left = try_points(WIDTHS, "short")
    assert [run.outcome.detail for run in runs] == ["RuntimeError: the epoch is too short"] * 4
    assert all(run.is_in_doubt for run in runs)
    assert left == (), "a trial may succeed"


def test_a_point_that_is_none_of_the_config_is_a_failure(try_points):
    wrong = DryRunPoint("nowhere", {"model.nowhere": 1}, {"nowhere": 1})
    runs, _ = try_points([WIDTHS[0], wrong])
    assert not is_hopeless(runs)
    assert isinstance(runs[1].outcome.error, ConfigurationError)
    assert runs[1].notes is None
    assert is_hopeless([runs[1]])


def test_what_has_to_run_apart_and_cannot_travel_is_refused():
    def cannot_travel():
        raise ConfigurationError("it cannot travel")

    with pytest.raises(ConfigurationError, match="it cannot travel"), start_processes(cannot_travel, True):
        pass
    with start_processes(cannot_travel, False) as started:
        assert started is None


# --- the page ----------------------------------------------------------------------------------------------------


class Net(Line):
    """Takes ``dropout``, and has forgotten to use it."""

    def __init__(self, lr: float = 0.01, hidden: int = 16, dropout: float = 0.1):
        super().__init__(lr, hidden)


def data(batch_size: int = 32):
    values = TensorDataset(torch.linspace(-1, 1, 4000).reshape(2000, 2))
    return DataLoader(values, batch_size), DataLoader(values, 500)


@pytest.mark.slow
def test_the_page_shows_what_a_check_prints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "check.md").read_text()
    (script,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    scope = {"OptunaDrivenOptimizer": OptunaDrivenOptimizer, "optuna": optuna, "Net": Net, "Data": data}
    exec(script, scope)
    (shown,) = re.findall(r"```text\n(.*?)```", page, flags=re.DOTALL)
    printed = str(scope["report"])
    for part in (shown, printed):
        assert max(map(len, part.splitlines())) <= 80
    shown, printed = (
        re.sub(r"[\d.]+( ?(ms|s|min|h|KiB|MiB|GiB))?", "#", " ".join(t.split())) for t in (shown, printed)
    )
    of_runs = re.compile(r" Metric .*? Pruner |about .*?none pruned")
    assert of_runs.sub("", shown) == of_runs.sub("", printed)
    assert not list(tmp_path.iterdir())
