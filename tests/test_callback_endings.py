"""How a trial with `TuneCallback` ends: pruned, complete, or with a value that is no number."""

import contextlib
import math
import multiprocessing
from pathlib import Path

import lightning as L
import optuna
import pytest
import torch
from fits import Manual, PruneAt, Scripted, StatusLogger, TrainOnly, Watch, data, run, trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, StochasticWeightAveraging
from torch.utils.data import DataLoader, IterableDataset

from lightningtune import TuneCallback
from lightningtune.errors import NonFiniteError

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
    assert trial.user_attrs["lightningtune:detail"] == "pruned by PruneAt with 4 at validation 2"


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
    with pytest.raises(optuna.TrialPruned, match="pruned by PruneAt with 5 at validation 1"):
        fit.fit(Scripted(), data(), data())
    assert before.seen == after.seen == ["on_train_end", "on_fit_end", "teardown"]
    assert [logger.statuses for logger in loggers] == [("success",), ("success",)]


@pytest.mark.parametrize("hook", ["on_train_end", "on_fit_end", "teardown"])
def test_what_goes_wrong_while_a_pruned_fit_ends_is_not_hidden(hook):
    def broken(*_, **__):
        raise ValueError("cannot upload")

    watch = Watch()
    setattr(watch, hook, broken)
    study = optuna.create_study(pruner=PruneAt(0))
    with pytest.raises(ValueError, match="cannot upload"):
        study.optimize(lambda trial: trainer(TuneCallback(trial), watch).fit(Scripted(), data(), data()), n_trials=1)
    assert watch.seen[-1] == "on_exception ValueError"
    assert study.trials[0].state.name == "FAIL"
    assert study.trials[0].user_attrs["lightningtune:reason"] == "failed"
    assert study.trials[0].user_attrs["lightningtune:detail"] == "ValueError: cannot upload"


def test_no_dataloader_worker_outlives_a_pruned_trial():
    workers = {"num_workers": 1, "persistent_workers": True, "multiprocessing_context": "fork"}
    before = {*multiprocessing.active_children()}
    trial, _ = run(pruner=PruneAt(0), loaders=(data(**workers), data(**workers)))
    assert trial.state.name == "PRUNED"
    assert {*multiprocessing.active_children()} <= before


def test_check_pruned_is_there_for_scripts_written_for_optuna_integration():
    study = optuna.create_study(pruner=PruneAt(0))
    pruned, complete = (TuneCallback(study.ask()) for _ in range(2))
    with contextlib.suppress(optuna.TrialPruned):
        trainer(pruned).fit(Scripted(), data(), data())
    with pytest.raises(optuna.TrialPruned, match="pruned by PruneAt with .* at validation 1"):
        pruned.check_pruned()
    complete.check_pruned()
    trainer(complete, max_epochs=1).fit(Scripted(), data(), data())
    complete.check_pruned()


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


class Stream(IterableDataset):
    """Yields so many rows in each epoch, and has no length."""

    def __init__(self, *lengths):
        self.lengths = iter(lengths)

    def __iter__(self):
        return iter(torch.linspace(-1, 1, 2 * next(self.lengths)).reshape(-1, 1, 2))


@pytest.mark.parametrize(
    ("batches", "step", "state"),
    [
        ((5, 5), 3, "COMPLETE"),  # validates at 2 and 4 of each epoch
        ((5, 5), 2, "PRUNED"),
        ((5,), 1, "PRUNED"),  # nobody knows that this was the last
        ((5, 9), 3, "PRUNED"),  # goes on for longer than the epoch before
        ((9, 5), 4, "PRUNED"),
    ],
)
def test_a_stream_without_a_length_is_known_from_its_first_epoch(batches, step, state):
    loaders = DataLoader(Stream(*batches), batch_size=None), data()
    trial, _ = run(pruner=PruneAt(step), loaders=loaders, val_check_interval=2, max_epochs=len(batches))
    assert trial.state.name == state


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
