"""`TuneCallback` in real fits: what is reported, how a trial ends, and what its score is."""

import contextlib
import logging
import math
import multiprocessing
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
from fits import Manual, PruneAt, Scripted, StatusLogger, TrainMetricWithValidation, TrainOnly, Watch, data, trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, StochasticWeightAveraging

from lightningtune import ConfigurationError, TrialError, TuneCallback
from lightningtune.errors import MetricError, NonFiniteError


def run(model=None, pruner=None, callbacks=(), direction="minimize", tune=None, loaders=None, after=None, **given):
    """Run one trial; return it, and the callback."""
    study = optuna.create_study(direction=direction, pruner=pruner or optuna.pruners.NopPruner())
    kept = []

    def objective(trial):
        kept.append(TuneCallback(trial, **(tune or {})))
        fit = trainer(*callbacks, kept[0], **given)
        fit.fit(model if model is not None else Scripted(), *(loaders or (data(), data())))
        if after is not None:
            after(fit)
        return kept[0].score

    study.optimize(objective, n_trials=1, catch=(TrialError,))
    return study.trials[0], kept[0]


# --- what is reported --------------------------------------------------------------------------------------------


def test_every_validation_of_the_fit_is_a_step():
    trial, _ = run()
    assert trial.intermediate_values == {0: 5.0, 1: 4.0, 2: 3.0, 3: 2.0, 4: 1.0}


def test_neither_the_sanity_check_nor_validate_is_reported():
    trial, tune = run(
        num_sanity_val_steps=2,
        max_epochs=2,
        after=lambda fit: fit.validate(fit.lightning_module, data(), verbose=False),
    )
    assert trial.intermediate_values == {0: 5.0, 1: 4.0}
    assert tune.score == 4.0


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        ({"val_check_interval": 0.5, "max_epochs": 2}, 4),
        ({"val_check_interval": 2, "check_val_every_n_epoch": None, "max_epochs": 2}, 4),
        ({"val_check_interval": 6, "check_val_every_n_epoch": None, "max_epochs": 3}, 2),
        ({"check_val_every_n_epoch": 2, "max_epochs": 5}, 2),
        ({"limit_val_batches": 1, "max_epochs": 2}, 2),
        ({"accumulate_grad_batches": 3, "max_epochs": 2}, 2),
        ({"max_steps": 6, "max_epochs": -1, "val_check_interval": 3, "check_val_every_n_epoch": None}, 2),
    ],
)
def test_validations_are_counted_however_often_they_come(given, steps):
    assert list(run(**given)[0].intermediate_values) == list(range(steps))


def test_manual_optimization_is_reported():
    assert len(run(Manual())[0].intermediate_values) == 5


@pytest.mark.parametrize("where", ["step", "hook"])
@pytest.mark.parametrize("model", [TrainOnly, TrainMetricWithValidation])
def test_a_training_metric_is_reported_once_an_epoch(where, model):
    loaders = (data(), data()) if model is TrainMetricWithValidation else (data(),)
    trial, _ = run(model(where), tune={"monitor": "train_loss"}, loaders=loaders, max_epochs=3)
    assert trial.intermediate_values == {0: 0.0, 1: 1.0, 2: 2.0}


def test_a_training_metric_prunes_too():
    trial, _ = run(TrainOnly("hook"), PruneAt(1), tune={"monitor": "train_loss"}, loaders=(data(),))
    assert trial.state.name == "PRUNED"
    assert trial.intermediate_values == {0: 0.0, 1: 1.0}


@pytest.mark.parametrize("where", ["step", "hook"])
@pytest.mark.parametrize(("every", "epochs"), [(2, 4), (9, 3)])
def test_a_training_metric_is_never_read_an_epoch_late(where, every, epochs):
    trial, _ = run(
        TrainMetricWithValidation(where),
        tune={"monitor": "train_loss"},
        max_epochs=epochs,
        check_val_every_n_epoch=every,
    )
    assert trial.intermediate_values == {epoch: float(epoch) for epoch in range(epochs)}


@pytest.mark.parametrize("pruner", [PruneAt(1), PruneAt(99)], ids=["pruned", "complete"])
def test_the_trainer_is_left_as_it_was(pruner, tmp_path):
    study = optuna.create_study(pruner=pruner)
    trial = study.ask()
    logger = StatusLogger(tmp_path)
    given = [TuneCallback(trial), Watch(), EarlyStopping("val_loss"), ModelCheckpoint(tmp_path / "kept")]
    fit = trainer(*given, logger=logger, log_every_n_steps=1)
    before = list(fit.callbacks)
    with contextlib.suppress(optuna.TrialPruned):
        fit.fit(Scripted(), data(), data())
    assert fit.callbacks == before
    assert fit.loggers == [logger]
    assert fit.state.status == "finished"
    assert fit.state.stage is None


# --- the score ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "direction", "expected"),
    [
        ("best", "minimize", 1.0),
        ("best", "maximize", 3.0),
        ("last", "minimize", 2.0),
        (lambda v: sum(v), "minimize", 6.0),
    ],
)
def test_the_score_is_the_best_the_last_or_a_function(score, direction, expected):
    trial, tune = run(Scripted([3.0, 1.0, 2.0]), direction=direction, tune={"score": score}, max_epochs=3)
    assert trial.value == tune.score == expected


def test_there_is_no_score_before_a_fit_and_none_of_a_pruned_trial():
    study = optuna.create_study()
    with pytest.raises(MetricError, match="no value of val_loss was reported"):
        TuneCallback(study.ask()).score  # noqa: B018
    _, tune = run(pruner=PruneAt(0))
    with pytest.raises(optuna.TrialPruned):
        tune.score  # noqa: B018


def test_several_metrics_come_back_as_a_tuple_of_one_validation(caplog):
    class Two(Scripted):
        def on_validation_epoch_end(self):
            self.log("size", float(10 + self.validations))
            super().on_validation_epoch_end()

    study = optuna.create_study(directions=["minimize", "maximize"], pruner=PruneAt(0))

    def objective(trial):
        tune = TuneCallback(trial, monitor=["val_loss", "size"])
        trainer(tune, max_epochs=3).fit(Two([3.0, 1.0, 2.0]), data(), data())
        return tune.score

    with caplog.at_level(logging.WARNING, "lightningtune"):
        study.optimize(objective, n_trials=3)
    assert [trial.values for trial in study.trials] == [[1.0, 11.0]] * 3
    assert caplog.text.count("several objectives") == 1


def test_a_fixed_trial_has_a_score_too():
    tune = TuneCallback(optuna.trial.FixedTrial({}), mode="min")
    trainer(tune).fit(Scripted(), data(), data())
    assert tune.score == 1.0
    with pytest.raises(MetricError, match="mode='min' or mode='max'"):
        TuneCallback(optuna.trial.FixedTrial({}))


# --- pruning -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"min_epochs": 4},
        {"min_steps": 15},
        {"val_check_interval": 0.5},
        {"val_check_interval": 2, "check_val_every_n_epoch": None, "max_steps": 16, "max_epochs": -1},
    ],
)
def test_a_pruned_trial_ends_cleanly_and_at_once(given, tmp_path):
    watch, logger, model = Watch(), StatusLogger(tmp_path), Scripted()
    trial, _ = run(model, PruneAt(1), [watch], **{**given, "logger": logger, "log_every_n_steps": 1})
    assert trial.state.name == "PRUNED"
    assert model.validations == 2, "nothing is trained on"
    assert trial.intermediate_values == {0: 5.0, 1: 4.0}
    assert trial.value == 4.0
    assert watch.seen == ["on_train_end", "on_fit_end", "teardown"]
    assert logger.statuses == ("success",)
    assert trial.user_attrs["lightningtune:reason"] == "pruned"
    assert trial.user_attrs["lightningtune:detail"] == "pruned by PruneAt at validation 1 with 4"


def test_modules_and_datamodules_end_cleanly_too():
    class Data(L.LightningDataModule):
        def __init__(self):
            super().__init__()
            self.seen = []

        def train_dataloader(self):
            return data()

        val_dataloader = train_dataloader

        def teardown(self, stage):
            self.seen.append("teardown")

        def on_exception(self, exception):
            self.seen.append("on_exception")

    class Module(Scripted):
        def on_train_end(self):
            self.seen.append("on_train_end")

        def on_fit_end(self):
            self.seen.append("on_fit_end")

        def teardown(self, stage):
            self.seen.append("teardown")

    model, source = Module(), Data()
    model.seen = []
    assert run(model, PruneAt(0), loaders=(None, None, source))[0].state.name == "PRUNED"
    assert model.seen == ["on_train_end", "on_fit_end", "teardown"]
    assert source.seen == ["teardown"]


def test_every_callback_and_logger_sees_a_good_end_wherever_it_stands(tmp_path):
    before, after = Watch(), Watch()
    loggers = [StatusLogger(tmp_path / "a"), StatusLogger(tmp_path / "b")]
    study = optuna.create_study(pruner=PruneAt(0))
    fit = trainer(before, TuneCallback(study.ask()), after, logger=loggers, log_every_n_steps=1)
    with pytest.raises(optuna.TrialPruned, match="pruned by PruneAt at validation 0 with 5"):
        fit.fit(Scripted(), data(), data())
    assert before.seen == after.seen == ["on_train_end", "on_fit_end", "teardown"]
    assert [logger.statuses for logger in loggers] == [("success",), ("success",)]


@pytest.mark.parametrize("hook", ["on_train_end", "on_fit_end", "teardown"])
def test_what_goes_wrong_while_a_pruned_fit_ends_is_not_hidden(hook):
    def broken(*_, **__):
        raise ValueError("cannot upload")

    watch = Watch()
    setattr(watch, hook, broken)
    with pytest.raises(ValueError, match="cannot upload"):
        run(pruner=PruneAt(0), callbacks=[watch])
    assert watch.seen[-1] == "on_exception ValueError"


def test_no_dataloader_worker_outlives_a_pruned_trial():
    workers = {"num_workers": 1, "persistent_workers": True, "multiprocessing_context": "fork"}
    trial, _ = run(pruner=PruneAt(0), loaders=(data(**workers), data(**workers)))
    assert trial.state.name == "PRUNED"
    assert multiprocessing.active_children() == []


def test_pruned_comes_out_of_fit_itself():
    study = optuna.create_study(pruner=PruneAt(0))

    def objective(trial):
        trainer(TuneCallback(trial)).fit(Scripted(), data(), data())
        return 0.0

    study.optimize(objective, n_trials=1)
    assert study.trials[0].state.name == "PRUNED"


@pytest.mark.parametrize(
    ("given", "last"),
    [
        ({"max_epochs": 2}, 1),
        ({"max_steps": 8, "max_epochs": -1}, 1),
        ({"max_epochs": 2, "val_check_interval": 0.5}, 3),
        ({"max_epochs": 5, "check_val_every_n_epoch": 2}, 1),
        ({"max_epochs": 2, "val_check_interval": 3, "check_val_every_n_epoch": None}, 1),
        ({"max_epochs": 2, "limit_train_batches": 2}, 1),
        ({"max_steps": 4, "max_epochs": -1, "accumulate_grad_batches": 2}, 1),
    ],
)
def test_a_trial_is_not_pruned_at_its_last_validation(given, last):
    trial, _ = run(pruner=PruneAt(last), **given)
    assert trial.state.name == "COMPLETE"
    assert max(trial.intermediate_values) == last
    assert run(pruner=PruneAt(last - 1), **given)[0].state.name == "PRUNED"


def test_a_training_metric_is_not_pruned_at_its_last_epoch():
    given = {"tune": {"monitor": "train_loss"}, "loaders": (data(),)}
    assert run(TrainOnly(), PruneAt(4), **given)[0].state.name == "COMPLETE"
    steps = {"max_steps": 6, "max_epochs": -1}  # an epoch and a half
    assert run(TrainOnly(), PruneAt(1), **given, **steps)[0].state.name == "COMPLETE"
    assert run(TrainOnly(), PruneAt(0), **given, **steps)[0].state.name == "PRUNED"


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("given", [{}, {"val_check_interval": 0.5}, {"min_epochs": 2}, {"accumulate_grad_batches": 2}])
def test_a_trial_that_stops_by_itself_is_complete_in_any_order_of_callbacks(first, given):
    def run_with(step):
        study = optuna.create_study(pruner=PruneAt(step))

        def objective(trial):
            tune, stop = TuneCallback(trial), EarlyStopping("val_loss", patience=1)
            trainer(*([stop, tune] if first else [tune, stop]), **given).fit(Scripted([1.0, 2.0]), data(), data())
            return tune.score

        study.optimize(objective, n_trials=1)
        return study.trials[0]

    stopped = run_with(step=1)
    assert stopped.state.name == "COMPLETE"
    assert stopped.value == 1.0
    assert list(stopped.intermediate_values) == [0, 1], "it is here that EarlyStopping ends it"
    assert run_with(step=0).state.name == "PRUNED"


def test_an_early_stop_that_has_to_wait_does_not_keep_a_trial_from_being_pruned():
    watch = EarlyStopping("val_loss", patience=1)
    trial, _ = run(Scripted([1.0, 2.0]), PruneAt(1), [watch], min_epochs=4)
    assert trial.state.name == "PRUNED"
    assert list(trial.intermediate_values) == [0, 1]


def test_the_steps_of_manual_optimization_are_counted_as_the_model_makes_them():
    class Twice(Manual):
        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)
            super().training_step(batch, batch_idx)

    given = {"max_steps": 22, "max_epochs": -1}  # two epochs of four batches, and three batches
    assert run(Twice(), PruneAt(1), **given)[0].state.name == "COMPLETE"
    assert run(Twice(), PruneAt(0), **given)[0].state.name == "PRUNED"


@pytest.mark.parametrize("ours", range(4))
def test_other_callbacks_work_beside_it_in_any_order(ours, tmp_path):
    study = optuna.create_study()

    def objective(trial):
        tune = TuneCallback(trial)
        others = [
            EarlyStopping("val_loss", patience=1),
            ModelCheckpoint(tmp_path / f"{ours}", monitor="val_loss"),
            StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1),
        ]
        others.insert(ours, tune)
        trainer(*others, accumulate_grad_batches=2).fit(Scripted(), data(), data())
        return tune.score

    study.optimize(objective, n_trials=1)
    assert study.trials[0].value == 1.0
    assert list((tmp_path / f"{ours}").glob("*.ckpt"))


@pytest.mark.parametrize("ours", range(3))
@pytest.mark.parametrize(("step", "state"), [(1, "PRUNED"), (99, "COMPLETE")])
def test_averaging_and_early_stopping_work_without_checkpoints(ours, step, state):
    class Normed(Scripted):
        """Its batch norm has SWA add an epoch of its own."""

        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))

    study = optuna.create_study(pruner=PruneAt(step))

    def objective(trial):
        others = [EarlyStopping("val_loss"), StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)]
        others.insert(ours, TuneCallback(trial))
        fit = trainer(*others, enable_checkpointing=False, max_epochs=3)
        fit.fit(Normed(), data(), data())
        return others[ours].score

    study.optimize(objective, n_trials=1)
    assert study.trials[0].state.name == state


@pytest.mark.parametrize("score", ["best", "last"])
def test_checkpoints_of_a_pruned_trial_are_written(tmp_path, score):
    saver = ModelCheckpoint(tmp_path, monitor="val_loss", save_last=True)
    trial, _ = run(pruner=PruneAt(1), callbacks=[saver], tune={"score": score})
    assert trial.state.name == "PRUNED"
    assert torch.load(saver.best_model_path, weights_only=True)["epoch"] == 1
    assert Path(saver.last_model_path).exists()


# --- values that are no numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("policy", "state"), [("prune", "PRUNED"), ("fail", "FAIL"), ("ignore", "COMPLETE")])
def test_a_metric_that_is_no_number_follows_the_policy(bad, policy, state):
    trial, _ = run(
        Scripted([5.0, bad, 3.0]),
        tune={"non_finite": policy},
        max_epochs=3,
        direction="maximize" if bad < 0 else "minimize",
    )
    assert trial.state.name == state
    if policy == "ignore":
        assert len(trial.intermediate_values) == 3
        assert trial.value == (5.0 if bad < 0 else 3.0), "what is ignored is not the best either"
    else:
        assert trial.intermediate_values == {0: 5.0}
        assert trial.user_attrs["lightningtune:reason"] == "non_finite"
        assert f"val_loss is {bad}" in trial.user_attrs["lightningtune:detail"]
    if policy == "fail":
        assert trial.value is None


@pytest.mark.parametrize(("policy", "state"), [("prune", "PRUNED"), ("fail", "FAIL"), ("ignore", "COMPLETE")])
@pytest.mark.parametrize("model", [Scripted, Manual])
def test_a_loss_that_is_no_number_follows_the_policy(policy, state, model):
    steps = []

    def loss(step):
        steps.append(step)
        return math.nan if step == 5 else 1.0

    trial, _ = run(model(loss=loss), tune={"non_finite": policy})
    if model is Manual:
        return  # returns no loss from its training step: nothing to look at
    assert trial.state.name == state
    assert (max(steps) == 7) == (policy != "ignore"), "the fit ends at the next validation"
    if policy != "ignore":
        assert trial.user_attrs["lightningtune:reason"] == "non_finite"
        assert trial.user_attrs["lightningtune:detail"] == "the training loss is nan at step 8"


def test_a_loss_that_is_no_number_ends_a_fit_without_any_value():
    trial, tune = run(Scripted(loss=lambda step: math.inf if step == 3 else 1.0), max_epochs=2)
    assert (trial.state.name, trial.value, trial.intermediate_values) == ("PRUNED", None, {})
    with pytest.raises(optuna.TrialPruned, match="the training loss is inf at step 4"):
        tune.score  # noqa: B018


@pytest.mark.parametrize("returned", ["tensor", "dict"])
def test_what_manual_optimization_returns_is_looked_at_where_it_is_a_loss(returned):
    class Returns(Manual):
        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)
            found = torch.full((self.size,), math.nan)
            return found if returned == "tensor" else {"loss": found}

    for size, state in ((1, "PRUNED"), (3, "COMPLETE")):
        model = Returns()
        model.size = size
        assert run(model)[0].state.name == state


def test_fail_comes_out_of_fit_itself():
    tune = TuneCallback(optuna.create_study().ask(), non_finite="fail")
    watch = Watch()
    with pytest.raises(NonFiniteError, match="val_loss is nan"):
        trainer(watch, tune).fit(Scripted([math.nan]), data(), data())
    assert watch.seen == ["on_train_end", "on_fit_end", "teardown"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("pruner", [PruneAt(1), PruneAt(99)], ids=["pruned", "complete"])
@pytest.mark.parametrize("score", ["best", "last", max])
def test_what_is_ignored_never_becomes_the_value_of_a_trial(bad, pruner, score):
    trial, _ = run(Scripted([bad, bad]), pruner, tune={"non_finite": "ignore", "score": score}, max_epochs=3)
    assert trial.state.name == ("PRUNED" if pruner.step == 1 else "FAIL")
    assert trial.value is None


# --- mistakes ----------------------------------------------------------------------------------------------------


def test_a_metric_that_is_never_logged_is_an_error_after_the_first_validation():
    model = Scripted()
    with pytest.raises(MetricError, match="'val_los' was not logged. Logged: val_loss. Did you mean 'val_loss'"):
        run(model, tune={"monitor": "val_los"})
    assert model.validations == 1


def test_a_metric_that_is_missing_within_an_epoch_does_not_wait_for_its_end():
    model = Scripted()
    with pytest.raises(MetricError, match="val_los"):
        run(model, tune={"monitor": "val_los"}, val_check_interval=1)
    assert model.global_step == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "max"}, "contradicts the study's direction"),
        ({"mode": "maximize"}, "mode must be one of"),
        ({"score": "lst"}, "Did you mean 'last'"),
        ({"non_finite": "pruned"}, "Did you mean 'prune'"),
        ({"monitor": ""}, "monitor must be the name"),
        ({"monitor": ["a", "b"]}, "one objective, but monitor names 2"),
    ],
)
def test_a_mistake_is_refused_at_once(given, message):
    with pytest.raises(MetricError, match=message):
        TuneCallback(optuna.create_study().ask(), **given)


def test_what_is_no_trial_is_refused():
    with pytest.raises(ConfigurationError, match="takes the trial"):
        TuneCallback("val_loss")


@pytest.mark.parametrize("other", [EarlyStopping, ModelCheckpoint])
def test_another_mode_on_the_same_metric_is_refused(other):
    with pytest.raises(MetricError, match=rf"{other.__name__}\(monitor='val_loss', mode='max'\) contradicts"):
        run(callbacks=[other(monitor="val_loss", mode="max")])


def test_a_refused_fit_leaves_the_trainer_and_ends_no_trial():
    study = optuna.create_study()
    trial = study.ask()
    fit = trainer(TuneCallback(trial), EarlyStopping("val_loss", mode="max"))
    before = list(fit.callbacks)
    with pytest.raises(MetricError):
        fit.fit(Scripted(), data(), data())
    assert fit.callbacks == before
    assert study.trials[0].state.name == "RUNNING", "the study says how a trial that raises ends"


def test_a_metric_that_a_trial_of_several_lacks_is_named():
    study = optuna.create_study(directions=["minimize", "maximize"])
    tune = TuneCallback(study.ask(), monitor=["val_loss", "val_acc"])
    with pytest.raises(MetricError, match="'val_acc' was not logged. Logged: val_loss"):
        trainer(tune).fit(Scripted(), data(), data())


def test_the_other_lightnings_trainer_is_refused():
    pl = pytest.importorskip("pytorch_lightning")
    tune = TuneCallback(optuna.create_study().ask())
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    other = pl.Trainer(callbacks=[tune], max_epochs=1, **quiet)

    class Other(pl.LightningModule):
        def training_step(self, batch, batch_idx): ...

        def configure_optimizers(self): ...

    with pytest.raises(ConfigurationError, match="pytorch_lightning"):
        other.fit(Other(), data())


def test_a_script_of_the_other_lightning_is_refused():
    pytest.importorskip("pytorch_lightning")
    scope = {"trial": optuna.create_study().ask()}
    with pytest.raises(ConfigurationError, match="Import lightning.pytorch instead"):
        exec("import pytorch_lightning as pl\nfrom lightningtune import TuneCallback\nTuneCallback(trial)", scope)


def test_an_error_of_the_model_is_its_own():
    class Broken(Scripted):
        def training_step(self, batch, batch_idx):
            raise ValueError("mine")

    watch = Watch()
    with pytest.raises(ValueError, match="mine"):
        run(Broken(), callbacks=[watch])
    assert watch.seen == ["on_exception ValueError"]


def test_an_exit_of_the_model_fails_the_trial_and_keeps_its_code():
    class Exits(Scripted):
        def training_step(self, batch, batch_idx):
            sys.exit()

    study = optuna.create_study()
    with pytest.raises(SystemExit) as caught:
        study.optimize(lambda trial: trainer(TuneCallback(trial)).fit(Exits(), data(), data()), n_trials=1)
    assert caught.value.code is None
    assert study.trials[0].state.name == "FAIL"
    assert study.trials[0].user_attrs["lightningtune:detail"] == "the training called sys.exit(None)"


# --- beside optuna-integration -----------------------------------------------------------------------------------


def test_it_is_a_drop_in_where_the_other_has_no_defect():
    from optuna_integration import PyTorchLightningPruningCallback

    def study_of(make):
        study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=1))

        def objective(trial):
            start = [3.0, 9.0, 1.0][trial.number]
            fit = trainer(make(trial), num_sanity_val_steps=0)
            fit.fit(Scripted([start - i / 10 for i in range(5)]), data(), data())
            return fit.callback_metrics["val_loss"].item()

        study.optimize(objective, n_trials=3)
        return [(trial.state, trial.value, trial.intermediate_values) for trial in study.trials]

    ours = study_of(TuneCallback)
    assert ours == study_of(lambda trial: PyTorchLightningPruningCallback(trial, "val_loss"))
    assert [state.name for state, *_ in ours] == ["COMPLETE", "PRUNED", "COMPLETE"]


# --- signals and several processes, in scripts of their own ------------------------------------------------------

HEAD = """
import sys
import lightning as L, optuna, torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from lightningtune import TuneCallback
from fits import PruneAt, Scripted, data, trainer
"""


def script(tmp_path, body):
    path = tmp_path / "script.py"
    path.write_text(HEAD + textwrap.dedent(body))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "PYTHONWARNINGS": "ignore"}
    return {"args": [sys.executable, str(path)], "env": environment, "cwd": tmp_path, "text": True}


def run_script(tmp_path, body):
    """Run a script to its end, again where torch aborts one of its processes; return the run and its folder.

    ``terminate called without an active exception`` is what about one plain Lightning fit under ddp_spawn in fifteen
    ends with on a busy machine, without any callback.
    """
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        done = subprocess.run(**script(folder, body), capture_output=True, timeout=300)
        if "terminate called without an active exception" not in done.stderr:
            break
    return done, folder


def journal(tmp_path):
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    return optuna.storages.JournalStorage(backend)


ENDLESS = """
class Tell(L.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.is_global_zero:
            print("training", flush=True)

def objective(trial):
    tune = TuneCallback(trial)
    trainer(Tell(), tune, max_epochs=1000000, **{given}).fit(Scripted(), data(), data())
    return tune.score

if __name__ == "__main__":
    storage = JournalStorage(JournalFileBackend("journal.log"))
    optuna.create_study(study_name="s", storage=storage).optimize(objective, n_trials=2)
"""


def interrupted(tmp_path, number, given):
    """Signal a study that trains, and its group, as a terminal does with Ctrl-C; return its exit code and its trial."""
    command = script(tmp_path, ENDLESS.format(given=given))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "start_new_session": True}
    with subprocess.Popen(**command, **pipes) as child:
        assert child.stdout.readline() == "training\n"
        (os.killpg if number == signal.SIGINT else os.kill)(child.pid, number)
        child.stdout.read()  # until no process of the study is left
    (trial,) = optuna.load_study(study_name="s", storage=journal(tmp_path)).trials
    return child.returncode, trial


@pytest.mark.parametrize(
    ("number", "code", "name"), [(signal.SIGINT, 1, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")], ids=["INT", "TERM"]
)
def test_an_interrupted_trial_does_not_stay_running(tmp_path, number, code, name):
    returned, trial = interrupted(tmp_path, number, {})
    assert returned == code
    assert trial.state.name == "FAIL"
    assert trial.user_attrs["lightningtune:reason"] == "interrupted"
    assert trial.user_attrs["lightningtune:detail"] == f"interrupted by {name}"


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_an_interrupted_trial_of_several_processes_does_not_stay_running(tmp_path, strategy, number):
    returned, trial = interrupted(tmp_path, number, {"strategy": strategy, "devices": 2})
    assert returned == (1 if number == signal.SIGINT else -signal.SIGTERM)
    assert trial.state.name == "FAIL"
    assert trial.user_attrs["lightningtune:reason"] == "interrupted"


RANKS = """
class Ranks(Scripted):
    # each rank logs another value

    sync_dist = False

    def on_validation_epoch_end(self):
        self.log("val_loss", self.values[self.validations] + self.global_rank, sync_dist=self.sync_dist)
        self.validations += 1

class Synced(Ranks):
    sync_dist = True

class OneExplodes(Ranks):
    def training_step(self, batch, batch_idx):
        explodes = self.global_rank == 1 and self.trainer.is_last_batch  # a step earlier, all ranks would share it
        return super().training_step(batch, batch_idx) * (float("nan") if explodes else 1.0)

def objective(trial, model):
    tune = TuneCallback(trial)
    trainer(tune, strategy="{strategy}", devices=2, num_sanity_val_steps=0).fit(model(), data(), data())
    return tune.score

def study(name, step, model):
    study = optuna.create_study(study_name=name, storage={storage}, pruner=PruneAt(step))
    study.optimize(lambda trial: objective(trial, model), n_trials=1)

if __name__ == "__main__":
    study("complete", 9, Ranks)
    study("pruned", 1, Synced)
    study("exploded", 9, OneExplodes)
"""
STORAGES = {
    "journal": 'JournalStorage(JournalFileBackend("journal.log"))',
    "sqlite": '"sqlite:///study.db"',
    "memory": "None",
}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_spawned_and_forked_ranks_report_one_value_and_stop_together(tmp_path, strategy, storage):
    body = RANKS.format(strategy=strategy, storage=STORAGES[storage])
    done, folder = run_script(tmp_path, body)
    assert done.returncode == 0, done.stderr

    kept = journal(folder) if storage == "journal" else f"sqlite:///{folder}/study.db"
    complete, pruned, exploded = (
        optuna.load_study(study_name=name, storage=kept).trials[0] for name in ("complete", "pruned", "exploded")
    )
    values = [5.5, 4.5, 3.5, 2.5, 1.5]  # the mean over the ranks
    assert (complete.state.name, complete.value) == ("COMPLETE", 1.5)
    assert complete.intermediate_values == dict(enumerate(values))
    assert (pruned.state.name, pruned.value) == ("PRUNED", 4.5)
    assert pruned.intermediate_values == dict(enumerate(values[:2]))
    assert pruned.user_attrs["lightningtune:reason"] == "pruned"
    assert (exploded.state.name, exploded.value, exploded.intermediate_values) == ("PRUNED", None, {})
    assert exploded.user_attrs["lightningtune:detail"] == "the training loss is not finite on another rank"


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_a_study_in_memory_is_refused_under_spawned_and_forked_ranks(tmp_path, strategy):
    body = RANKS.format(strategy=strategy, storage=STORAGES["memory"])
    done, _ = run_script(tmp_path, body)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("lightningtune.errors.ConfigurationError: The training processes of")


@pytest.mark.slow
@pytest.mark.parametrize(("sampled", "message"), [("os.getpid()", "trial of its own"), ("1", None)])
def test_ranks_that_sample_their_own_trial_are_refused(tmp_path, sampled, message):
    body = f"""
    import os

    def objective(trial):
        trial.suggest_int("x", {sampled}, {sampled})
        tune = TuneCallback(trial)
        trainer(tune, strategy="ddp", devices=2, max_epochs=2).fit(Scripted(), data(), data())
        return tune.score

    study = optuna.create_study()
    study.optimize(objective, n_trials=1)
    print("ended", study.trials[0].state.name)
    """
    done, _ = run_script(tmp_path, body)
    assert (done.returncode == 0) == (message is None), done.stderr
    if message is None:
        assert "ended COMPLETE" in done.stdout
    else:
        assert message in done.stderr
        assert "OptunaDrivenOptimizer" in done.stderr
