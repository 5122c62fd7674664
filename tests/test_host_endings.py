"""Trials of a host that die, fail or take too long."""

import collections
import gc
import multiprocessing
import os
import signal
import sys

import lightning as L
import optuna
import pytest
from nets import Line, Points, points
from torch.utils.data import DataLoader

from lightningtune import ConfigurationError

CPU = {"accelerator": "cpu", "max_epochs": 2}


class Dies(Line):
    def on_train_epoch_start(self):
        if self.current_epoch == 1 and self.hparams.act != "relu":
            print("about to end")
            numbers = {"kill": signal.SIGKILL, "term": signal.SIGTERM}
            os._exit(7) if self.hparams.act == "exit" else os.kill(os.getpid(), numbers[self.hparams.act])


@pytest.mark.slow
def test_the_study_survives_any_trial(tune_isolated):
    optimizer = tune_isolated(
        model_class=Dies,
        search_space={"act": ("categorical", ["relu", "kill", "exit", "term"])},
        baseline=False,
        n_trials=4,
        n_jobs=2,
    )
    for act in ("relu", "kill", "exit", "term"):
        optimizer.study.enqueue_trial({"act": act})
    study = optimizer.optimize()
    assert optimizer.results().counts == {"complete": 1, "fail": 3}
    attempts = collections.Counter(trial.params["act"] for trial in study.trials)
    assert attempts == {"relu": 1, "kill": 4, "exit": 4, "term": 4}  # the first, and three that got no further
    ends = {trial.params["act"]: trial for trial in study.trials}
    assert ends["relu"].state.name == "COMPLETE"
    assert ends["term"].user_attrs["lightningtune:reason"] == "killed"
    assert ends["term"].user_attrs["lightningtune:detail"] == "interrupted by SIGTERM"
    for act, said in (("kill", "was killed by SIGKILL"), ("exit", "ended with exit code 7")):
        assert ends[act].state.name == "FAIL"
        assert len(ends[act].intermediate_values) == 1
        assert ends[act].user_attrs["lightningtune:reason"] == "killed"
        detail = f"the trial's process {said}. It printed last: about to end"
        assert ends[act].user_attrs["lightningtune:detail"] == detail
        assert "about to end" in (optimizer.directory / f"trials/{ends[act].number:04d}/error.txt").read_text()


class KillsItsLoader(Line):
    """Kills the worker of its DataLoader once, in the process of the test."""

    killed = False

    def __init__(self, lr: float = 0.1):
        super().__init__(lr)
        self.others = {*multiprocessing.active_children()}

    def training_step(self, batch, batch_idx):
        if not KillsItsLoader.killed:
            KillsItsLoader.killed = True
            for worker in {*multiprocessing.active_children()} - self.others:
                os.kill(worker.pid, signal.SIGKILL)
        return super().training_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # torch leaves it where the worker ends
def test_a_trial_here_that_is_cut_short_is_run_again_and_counts_once(tune_isolated, monkeypatch):
    monkeypatch.setattr(KillsItsLoader, "killed", False)

    def loaded():
        return DataLoader(points(), batch_size=1, num_workers=1), DataLoader(points())

    optimizer = tune_isolated(
        model_class=KillsItsLoader, datamodule_class=loaded, isolate=False, n_trials=2, baseline=False
    )
    study = optimizer.optimize()
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert optimizer.results().counts == {"complete": 2}
    gc.collect()  # the file, while it is ignored


def test_a_trial_here_that_was_given_to_another_host_ends_nothing(tune_isolated):
    class GivenUp(L.Callback):
        def on_validation_end(self, trainer, pl_module):
            if not trainer.sanity_checking and not optimizer.study.trials[0].state.is_finished():
                optimizer.study.tell(0, state=optuna.trial.TrialState.FAIL)

    optimizer = tune_isolated(isolate=False, n_trials=2, baseline=False, callbacks=[GivenUp()])
    study = optimizer.optimize()
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]


def test_optunas_bar_is_shown_where_it_is_asked_for(tune_isolated, capsys):
    tune_isolated(isolate=False, n_trials=2, show_progress_bar=True).optimize()
    assert "2/2" in capsys.readouterr().err


@pytest.mark.slow
def test_a_trial_that_takes_too_long_ends_after_a_validation(tune_isolated):
    for how in ({"isolate": True}, {"isolate": False}):
        optimizer = tune_isolated(
            base_config={"trainer": {**CPU, "max_epochs": 100_000}},
            trial_timeout=0.2,
            n_trials=1,
            study_name=str(how["isolate"]),
            **how,
        )
        (trial,) = optimizer.optimize().trials
        assert trial.state.name == "FAIL"
        assert trial.user_attrs["lightningtune:reason"] == "timed_out"
        assert trial.user_attrs["lightningtune:detail"] == "took longer than trial_timeout=0.2 seconds"
        assert trial.intermediate_values


class Unlogged(Line):
    def validation_step(self, batch, batch_idx):
        self.log("valid_loss", 1.0)


def test_a_mistake_ends_the_study(tune_isolated):
    optimizer = tune_isolated(model_class=Unlogged, n_jobs=2)
    with pytest.raises(ConfigurationError, match="Did you mean 'valid_loss'"):
        optimizer.optimize()
    assert {trial.user_attrs["lightningtune:reason"] for trial in optimizer.study.trials} == {"refused"}


class Broken(Line):
    def training_step(self, batch, batch_idx):
        raise ValueError("shapes do not match")


@pytest.mark.slow
def test_failures_are_recorded_and_catch_is_optunas(tune_isolated):
    optimizer = tune_isolated(model_class=Broken, n_trials=10, n_jobs=2)
    study = optimizer.optimize()
    assert {trial.user_attrs["lightningtune:detail"] for trial in study.trials} == {"ValueError: shapes do not match"}
    assert len(study.trials) < 6
    assert "in training_step" in (optimizer.directory / "trials/0000/error.txt").read_text()
    with pytest.raises(ValueError, match="shapes do not match"):
        tune_isolated(model_class=Broken, catch=(), study_name="strict").optimize()


class Exits(Points):
    def prepare_data(self):
        sys.exit(3)


@pytest.mark.parametrize("how", [{"isolate": False}, pytest.param({"n_jobs": 2}, marks=pytest.mark.slow)], ids=str)
def test_data_that_cannot_be_prepared_leaves_no_trial_running(tune_isolated, how):
    study = tune_isolated(datamodule_class=Exits, **how).optimize()
    assert {trial.state.name for trial in study.trials} == {"FAIL"}
    assert {trial.user_attrs["lightningtune:detail"] for trial in study.trials} == {
        "TrialError: the training called sys.exit(3)"
    }
