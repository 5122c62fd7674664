from datetime import datetime, timedelta

import optuna
import pytest

from lightningtune.files import dump_yaml
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.identity import WORKER, Worker
from lightningtune.study.opening import open_study
from lightningtune.study.progress import RunningTrial, StudyProgress, metric_names, progress_of
from lightningtune.study.results import StudyResults

START = datetime(2026, 1, 1, 12)


@pytest.fixture
def study():
    return open_study("s", optuna.storages.InMemoryStorage(), ["maximize"], ["val_acc"], True, None, None, seed=1)


@pytest.fixture
def directory(tmp_path):
    return StudyDirectory(tmp_path / "s")


def ended(seconds, at, value=0.5):
    trial = optuna.trial.create_trial(value=value)
    trial.datetime_start, trial.datetime_complete = at - timedelta(seconds=seconds), at
    return trial


def running(number=0, seconds=0.0, is_dead=False):
    return RunningTrial(number, {}, 0, None, None, None, None, seconds, "process 1 on a", is_dead, False)


def progress(done, total, trials, trial_seconds):
    results = StudyResults("s", ("val_acc",), ("maximize",), (), ())
    return StudyProgress(results, done, total, tuple(trials), trial_seconds)


@pytest.mark.parametrize(
    ("given", "rate", "left"),
    [
        ((2, 10, [running()], 60.0), 60.0, 480.0),
        ((2, 10, [running(), running(1)], 60.0), 120.0, 240.0),
        ((2, 10, [running(seconds=30.0)], 60.0), 60.0, 450.0),
        ((9, 10, [running(seconds=600.0)], 60.0), 60.0, 0.0),  # it takes longer than others did
        ((10, 10, [running(seconds=30.0)], 60.0), 60.0, 30.0),  # one more than was asked for, of another host
        ((2, 10, [running(), running(1, is_dead=True)], 60.0), 60.0, 480.0),
        ((2, None, [running()], 60.0), 60.0, None),
        ((2, 10, [], 60.0), None, None),
        ((0, 10, [running()], None), None, None),
        ((2, 10, [running(is_dead=True)], 60.0), None, None),
    ],
)
def test_the_time_left_is_that_of_the_trials_left_over_those_that_run(given, rate, left):
    seen = progress(*given)
    assert (seen.rate, seen.seconds_left) == (rate, left)


def test_it_is_over_when_it_has_all_its_trials_and_none_runs():
    assert progress(10, 10, [], 1.0).is_over
    assert not progress(10, 10, [running()], 1.0).is_over
    assert not progress(10, None, [], 1.0).is_over


def test_a_trial_takes_as_long_as_the_latest_did_whatever_lies_between_them(study, directory):
    for place in range(30):  # ten of an hour, long ago, then twenty of ten seconds, with a night in between
        study.add_trial(ended(3600 if place < 10 else 10, START + timedelta(hours=place * 10)))
    assert progress_of(study, directory).trial_seconds == 10
    assert progress_of(study, directory).done == 30


@pytest.mark.parametrize(
    ("trainer", "epoch", "limit"),
    [
        ({"max_epochs": 10}, 2, 10),
        ({"max_epochs": 10, "check_val_every_n_epoch": 3}, None, 10),
        ({"max_epochs": 1}, None, 1),
        ({"max_epochs": -1}, 2, None),
        ({"max_epochs": 10, "val_check_interval": 0.5}, None, 10),
        (None, None, None),
    ],
)
def test_a_running_trial_tells_its_epochs_from_its_validations(study, directory, trainer, epoch, limit):
    trial = study.ask()
    trial.suggest_float("lr", 0.0, 1.0)
    trial.set_user_attr(WORKER, vars(Worker.this()))
    for step, value in enumerate((0.7, 0.6)):
        trial.report(value, step)
    if trainer is not None:
        directory.config(0).parent.mkdir(parents=True)
        directory.config(0).write_text(dump_yaml({"trainer": trainer}))
    began = study.trials[0].datetime_start
    (seen,) = progress_of(study, directory, now=began + timedelta(seconds=5)).running
    assert (seen.validations, seen.epoch, seen.max_epochs) == (2, epoch, limit)
    assert (seen.value, seen.best, seen.seconds) == (0.6, 0.7, 5.0)
    assert (seen.where, seen.is_dead) == (str(Worker.this()), False)
    assert seen.params == trial.params


def test_the_total_is_what_was_asked_for_last(study, directory):
    assert progress_of(study, directory).total is None
    directory.root.mkdir()
    directory.write_definition({"n_trials": 7})
    assert progress_of(study, directory).total == 7


def test_metrics_have_names_whoever_made_the_study(study):
    assert metric_names(study, {}) == ("val_acc",)
    assert metric_names(optuna.create_study(), {"metric": ["val_loss"]}) == ("val_loss",)
    assert metric_names(optuna.create_study(), {}) == ("value",)
    assert metric_names(optuna.create_study(directions=["minimize", "minimize"]), {}) == ("value_0", "value_1")
