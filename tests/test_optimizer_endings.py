"""How trials and studies end: failed, pruned, interrupted, at their total."""

import math
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import lightning as L
import optuna
import pytest
import torch
from nets import Line, Points, PrunesItself
from reported import needs_optuna_5

from lightningtune import ConfigurationError, NoResultError, TrialError, tunable

QUICK = {"trainer": {"max_epochs": 2, "accelerator": "cpu"}}


class OutOfMemory(Line):
    def training_step(self, batch, batch_idx):
        if self.lr != 0.1:  # the baseline fits
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return super().training_step(batch, batch_idx)


class Broken(Line):
    def training_step(self, batch, batch_idx):
        raise ValueError("shapes do not match")


class Unlogged(Line):
    def validation_step(self, batch, batch_idx):
        self.log("valid_loss", 1.0)


class PruneAfterFirst(optuna.pruners.BasePruner):
    def prune(self, study, trial):
        return trial.number > 0


def test_a_failing_trial_is_recorded_and_the_study_goes_on(tune):
    optimizer = tune(
        search_space={"lr": ("categorical", [0.1, 9.5])},
        n_trials=8,
        sampler=optuna.samplers.RandomSampler(seed=0),
        max_failures=8,
    )
    study = optimizer.optimize()
    failed = [trial for trial in study.trials if trial.state.name == "FAIL"]
    assert failed
    assert all(trial.params["lr"] == 9.5 for trial in failed)
    for trial in failed:
        assert trial.user_attrs["lightningtune:detail"] == "RuntimeError: lr 9.500 is too high"
        text = (optimizer.directory / f"trials/{trial.number:04d}/error.txt").read_text()
        assert "in training_step" in text
    assert study.best_trial.state.name == "COMPLETE"


class PruningData(Points):
    def __init__(self, at: str = "nowhere"):
        super().__init__()
        self.at = at

    def setup(self, stage):
        if self.at == "data":
            raise optuna.TrialPruned("not worth it, says the data")


class PruningCallback(L.Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        pl_module.reach("callback")


@pytest.mark.parametrize("isolate", [False, True])
def test_a_trial_is_pruned_wherever_its_code_raises_the_signal(tune, isolate):
    places = ["nowhere", "model", "setup", "step", "callback", "data", "space"]

    def space(trial):
        at = trial.suggest_categorical("at", places)
        if at == "space":
            raise optuna.TrialPruned("not worth it, says the space")
        return {"model.at": at, "data.at": at}

    optimizer = tune(
        search_space=space,
        model_class=PrunesItself,
        datamodule_class=PruningData,
        callbacks=[PruningCallback()],
        sampler=optuna.samplers.GridSampler({"at": places}),
        baseline=False,
        n_trials=len(places),
        isolate=isolate,
    )
    study = optimizer.optimize()
    ended = {trial.params["at"]: trial for trial in study.trials}
    assert ended.pop("nowhere").state.name == "COMPLETE"
    assert {trial.state.name for trial in ended.values()} == {"PRUNED"}
    assert {trial.user_attrs["lightningtune:detail"] for trial in ended.values()} == {
        f"not worth it, says the {place}" for place in places[1:]
    }
    assert not list(optimizer.directory.glob("trials/*/error.txt"))


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("fixed", [False, True])
def test_a_study_whose_sampler_has_no_point_left_ends_and_trains_nothing_when_it_is_run_again(tune, fixed, capsys):
    def exhaustive():
        grid = optuna.samplers.GridSampler({"width": [2, 3]})
        whole = optuna.samplers.PartialFixedSampler({"width": 3}, optuna.samplers.BruteForceSampler(seed=1))
        return tune(
            search_space={"width": ("int", 2, 3)},
            sampler=whole if fixed else grid,
            n_trials=9,
            baseline=False,
            verbose=True,
        )

    for _ in range(2):
        study = exhaustive().optimize()
        assert {trial.params["width"] for trial in study.trials} == ({3} if fixed else {2, 3})
        assert len(study.trials) == 2 - fixed
        name = "PartialFixedSampler" if fixed else "GridSampler"
        said = f"{name} has tried all its points: the study ends with {2 - fixed} of 9 trials."
        assert capsys.readouterr().out.count(said) == 1


def test_a_space_may_stop_the_study(tune):
    def space(trial):
        if trial.number == 1 and trial.study.study_name == "ends":
            trial.study.stop()
        if trial.study.study_name != "ends":  # it is only tried
            trial.study.stop()
        return {"lr": trial.suggest_float("lr", 1e-3, 1.0)}

    study = tune(search_space=space, study_name="ends", n_trials=9).optimize()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2


def test_that_nothing_was_found_is_said_where_nothing_is_shown(tune, caplog):
    tune(model_class=Broken, n_trials=1).optimize()
    assert "No trial completed. Trials: 1 fail. Most frequent reason: ValueError: shapes do not match" in caplog.text


@needs_optuna_5
def test_a_study_without_a_feasible_trial_says_so(tune):
    def space(trial):
        trial.suggest_float("lr", 0.1, 0.2)
        trial.set_constraint("size", 1.0)

    optimizer = tune(search_space=space)
    optimizer.optimize()
    with pytest.raises(NoResultError, match="each that is complete violates a constraint. Trials: 3 complete"):
        optimizer.best_model()


def test_a_class_that_was_edited_since_is_named(tune):
    tune().optimize()

    class Edited(Line):
        __module__, __qualname__ = Line.__module__, Line.__qualname__

        def __init__(self, lr: float = 0.1):
            super().__init__(lr=lr, width=5)

    with pytest.raises(TrialError, match="The model's class is not what trial"):
        tune(model_class=Edited).best_model()


@tunable(search_space={"width": ("int", 2, 4)})
class NamedShort(Line):
    pass


@pytest.mark.parametrize(("space", "tuned"), [({"lr": ("loguniform", 1e-3, 1.0)}, "lr"), (None, "width")])
def test_a_class_may_be_named_without_its_module(tune, space, tuned):
    config = {**QUICK, "model": {"class_path": "NamedShort"}}
    study = tune(base_config=config, search_space=space, model_class=None, n_trials=1).optimize()
    assert [*study.best_params] == [tuned]


def test_a_callback_that_cannot_be_made_is_told_in_a_sentence(tune):
    stopping = {"class_path": "EarlyStopping", "init_args": {"monitor": "val_acc", "mode": "maximize"}}
    with pytest.raises(ConfigurationError, match=r"^The config is not valid\. trainer: `mode` can be min, max, got"):
        tune(base_config={"trainer": {**QUICK["trainer"], "callbacks": [stopping]}}).optimize()


def test_more_trials_are_asked_of_an_optimizer_that_has_run(tune):
    optimizer = tune(n_trials=1)
    assert len(optimizer.optimize().trials) == 1
    optimizer.n_trials = 2
    assert len(optimizer.optimize().trials) == optimizer.n_trials == 2
    with pytest.raises(ConfigurationError, match="n_trials must be an integer from 1, but got 0"):
        optimizer.n_trials = 0


def test_a_study_that_only_fails_ends_early_and_says_so(tune, caplog):
    optimizer = tune(model_class=Broken, n_trials=20)
    study = optimizer.optimize()
    assert len(study.trials) == 3
    assert "3 trials in a row failed alike. ValueError: shapes do not match. See" in caplog.text
    assert "a function of the trial can raise optuna.TrialPruned" in caplog.text
    results = optimizer.results()
    assert results.counts == {"fail": 3}
    for call in (optimizer.get_best_config, optimizer.best_model, optimizer.refit, lambda: results.best):
        with pytest.raises(NoResultError, match="No trial completed.*shapes do not match"):
            call()


def test_a_study_that_only_failed_starts_over_once_it_is_corrected(tune):
    tune(model_class=Broken, n_trials=2).optimize()
    optimizer = tune(n_trials=2)
    study = optimizer.optimize()
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert optimizer.results().baseline.number == 2


def test_out_of_memory_is_an_outcome_of_its_own(tune):
    study = tune(model_class=OutOfMemory, n_trials=6).optimize()
    assert len(study.trials) == 6, "running out of memory depends on the parameters: the study goes on"
    assert {trial.user_attrs["lightningtune:reason"] for trial in study.trials[1:]} == {"out_of_memory"}
    assert study.trials[0].state.name == "COMPLETE"


def test_catch_is_optunas(tune):
    with pytest.raises(ValueError, match="shapes do not match"):
        tune(model_class=Broken, catch=()).optimize()


def test_a_metric_that_is_not_logged_ends_the_study_at_once(tune):
    optimizer = tune(model_class=Unlogged)
    with pytest.raises(
        ConfigurationError, match=r"'val_loss' was not logged. Logged: valid_loss. Did you mean 'valid_loss'"
    ):
        optimizer.optimize()
    assert [trial.state.name for trial in optimizer.study.trials] == ["FAIL"]
    corrected = tune(model_class=Unlogged, metric="valid_loss")
    assert corrected.optimize().trials[1].user_attrs["lightningtune:baseline"] is True
    assert len(corrected.study.trials) == 4, "the refused trial does not count"
    assert corrected.results().improvement == 0


class StopsItself(Line):
    def on_train_batch_start(self, batch, batch_idx):
        if self.trainer.current_epoch == 0 and self.lr == 0.5:
            self.trainer.limit_val_batches, self.trainer.should_stop = 0, True


def test_a_mistake_of_one_trial_does_not_end_a_study_in_which_others_succeed(tune):
    study = tune(
        model_class=StopsItself,
        search_space={"lr": ("categorical", [0.1, 0.5])},
        n_trials=2,
        baseline={"lr": 0.1},
        callbacks=[lambda study, trial: study.enqueue_trial({"lr": 0.5})],
    ).optimize()
    assert [trial.state.name for trial in study.trials[:2]] == ["COMPLETE", "FAIL"]
    assert "MetricError" in study.trials[1].user_attrs["lightningtune:detail"]


def test_several_processes_that_share_a_study_stop_at_the_total(tune):
    first = tune(n_trials=3)

    def another_has_its_share(study, trial):
        if trial.number == 0:
            tune(n_trials=2).optimize()

    study = tune(n_trials=3, callbacks=[another_has_its_share]).optimize()
    assert len(study.trials) == 3
    assert first.results().counts == {"complete": 3}


def test_pruned_trials_leave_no_weights_and_no_score(tune):
    optimizer = tune(pruner=PruneAfterFirst())
    study = optimizer.optimize()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "PRUNED"]
    assert {p.parent.name for p in optimizer.directory.glob("trials/*/*.ckpt")} == {"0000"}
    assert (
        optimizer.results().trials[1].detail
        == f"pruned by PruneAfterFirst with {study.trials[1].value:.6g} at validation 1"
    )


def test_a_score_that_is_no_number_fails_its_trial(tune):
    study = tune(score=lambda values: math.nan, n_trials=1).optimize()
    assert study.trials[0].state.name == "FAIL"
    assert study.trials[0].user_attrs["lightningtune:reason"] == "non_finite"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_study_goes_on_where_it_was(tune, tmp_path, number, code):
    script = tmp_path / "study.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys, lightning as L
            from lightningtune import OptunaDrivenOptimizer
            from nets import Line, Points

            class Tell(L.Callback):
                def on_train_epoch_end(self, trainer, pl_module):
                    print("training", flush=True)

            n_trials, max_epochs = map(int, sys.argv[1:])
            OptunaDrivenOptimizer(
                {{"trainer": {{"max_epochs": max_epochs, "accelerator": "cpu"}}}}, {{"lr": ("loguniform", 1e-3, 1.0)}},
                Line, Points, n_trials=n_trials, experiment_dir={str(tmp_path)!r}, verbose=False, seed=0,
                callbacks=[Tell()],
            ).optimize()
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, script, "2", "2"], check=True, env=environment, cwd=tmp_path, capture_output=True)
    child = subprocess.Popen(
        [sys.executable, script, "3", "100000"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    with child:
        assert child.stdout.readline() == b"training\n"
        child.send_signal(number)
        child.stdout.read()
    assert child.returncode in {code, -number}
    stopped = tune(n_trials=4)
    assert [trial.state.name for trial in stopped.study.trials] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert stopped.results().trials[2].reason == "interrupted"
    assert stopped.study.trials[2].intermediate_values, "it reached a validation"
    assert (stopped.directory / "trials/0002/last.ckpt").exists()
    states = [trial.state.name for trial in stopped.optimize().trials]
    assert states.count("COMPLETE") + states.count("PRUNED") == 4


@pytest.mark.slow
def test_memory_does_not_grow_over_200_trials(tune):
    resident = []

    def look(study, trial):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)

    tune(n_trials=200, callbacks=[look], sampler=optuna.samplers.RandomSampler(seed=0)).optimize()
    assert resident[-1] - resident[50] < 20, f"grew from {resident[50]:.0f} to {resident[-1]:.0f} MiB"
