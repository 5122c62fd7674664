"""`TrialCallback` in real fits, with a reporter of ours in place of Optuna."""

import math

import lightning as L
import pytest
import torch
from fits import BATCHES, Manual, Scripted, TrainOnly, data, trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateFinder, ModelCheckpoint

from lightningtune.contract import Objective, Stop, StopReason
from lightningtune.errors import ConfigurationError, MetricError
from lightningtune.training.callback import TrialCallback

LOSS = Objective(("val_loss",), ("min",))


class Collect:
    """A reporter that keeps what it is told, and says stop at a given step."""

    def __init__(self, stop_at=math.inf):
        self.told, self.stop_at, self.notices = [], stop_at, []

    def report(self, values, step):
        self.told.append((step, *values))
        return Stop(StopReason.PRUNED, "told to stop") if step >= self.stop_at else None

    def notice(self, text):
        self.notices.append(text)


def fit(model=None, stop_at=math.inf, objective=LOSS, callbacks=(), after_report=None, **given):
    """Fit once; return the callback and the trainer. Nothing is raised: to raise is for those who own a trial."""
    watcher = TrialCallback(objective, Collect(stop_at), after_report)
    run = trainer(watcher, *callbacks, **given)
    run.fit(model or Scripted(), data(), data())
    return watcher, run


def test_a_reporter_is_told_each_value_and_its_step():
    watcher, _ = fit(max_epochs=3)
    assert watcher.reporter.told == [(0, 5.0), (1, 4.0), (2, 3.0)]
    assert watcher.history == [(5.0,), (4.0,), (3.0,)]
    assert watcher.stop is None


def test_a_reporter_is_told_all_of_several_metrics_in_order():
    class Two(Scripted):
        def on_validation_epoch_end(self):
            self.log("size", 7.0)
            super().on_validation_epoch_end()

    watcher, _ = fit(Two(), objective=Objective(("size", "val_loss"), ("min", "min")), max_epochs=2)
    assert watcher.reporter.told == [(0, 7.0, 5.0), (1, 7.0, 4.0)]


def test_a_verdict_ends_the_fit_at_once_and_is_kept():
    watcher, run = fit(stop_at=1)
    assert watcher.stop == Stop(StopReason.PRUNED, "told to stop at validation 2")
    assert run.global_step == 2 * BATCHES
    assert run.state.status == "finished"


@pytest.mark.parametrize(("given", "batches"), [({"min_epochs": 5}, 4), ({"min_steps": 19}, 4), ({}, 4)])
def test_a_verdict_within_an_epoch_ends_the_fit_there(given, batches):
    _, run = fit(stop_at=1, val_check_interval=0.5, **given)
    assert run.global_step == batches
    assert {name: getattr(run, name) for name in given} == given, "given back"


def test_a_verdict_in_mid_epoch_does_not_wait_for_its_end():
    _, run = fit(stop_at=0, val_check_interval=1, min_epochs=3)
    assert run.global_step == 1


def test_a_verdict_where_validation_goes_by_time_ends_the_fit():
    watcher, run = fit(stop_at=0, val_check_interval="00:00:00:00")
    assert watcher.stop is not None
    assert run.global_step == 1


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_train_epoch_end"])
def test_a_fit_that_another_callback_ends_within_training_is_complete(hook):
    def end(run, *_):
        run.should_stop = True

    other = L.Callback()
    setattr(other, hook, end)
    watcher, _ = fit(stop_at=0, callbacks=[other])
    assert watcher.stop is None
    assert watcher.reporter.told == [(0, 5.0)]


def test_a_second_fit_has_a_history_of_its_own_and_goes_on_counting():
    watcher = TrialCallback(LOSS, Collect())
    for _ in range(2):
        trainer(watcher, max_epochs=2).fit(Scripted(), data(), data())
        assert watcher.history == [(5.0,), (4.0,)]
    assert [step for step, _ in watcher.reporter.told] == [0, 1, 2, 3]


def test_a_stop_is_forgotten_by_the_next_fit():
    watcher = TrialCallback(LOSS, Collect(stop_at=0))
    trainer(watcher).fit(Scripted(), data(), data())
    assert watcher.stop is not None
    watcher.reporter = Collect()
    trainer(watcher, max_epochs=2).fit(Scripted(), data(), data())
    assert watcher.stop is None
    assert len(watcher.history) == 2


@pytest.mark.parametrize(
    ("score", "mode", "kept"),
    [
        ("best", "min", [True, False, True, False]),
        ("best", "max", [True, True, False, False]),
        ("last", "min", [True, True, True, True]),
    ],
)
def test_what_is_called_after_a_report_learns_whether_to_keep_the_model(score, mode, kept):
    told = []
    values = [3.0, 4.0, 2.0, 2.0]
    fit(
        Scripted(values),
        objective=Objective(("val_loss",), (mode,), score),
        after_report=lambda run, keep, last: told.append(keep),
        max_epochs=4,
    )
    assert told == kept


def test_nothing_is_kept_of_a_value_that_is_no_number():
    told = []
    fit(Scripted([3.0, math.nan]), after_report=lambda run, keep, last: told.append(keep))
    assert told == [True]


@pytest.mark.parametrize("where", ["step", "hook"])
def test_what_a_model_logs_after_its_training_epoch_is_seen(where):
    """Only the hooks of EarlyStopping and Checkpoint run so late; Lightning keeps the list to itself."""
    watcher = TrialCallback(Objective(("train_loss",), ("min",)), Collect())
    trainer(watcher, max_epochs=2).fit(TrainOnly(where), data())
    assert watcher.reporter.told == [(0, 0.0), (1, 1.0)]


class Sometimes(Scripted):
    """Logs a second metric, always of the same value, in some of its validations or training epochs."""

    def __init__(self, *when, name="costly", in_training=False):
        super().__init__()
        self.when, self.name, self.in_training = when, name, in_training

    def on_validation_epoch_end(self):
        if self.validations in self.when and not self.in_training:
            self.log(self.name, 0.5)
        super().on_validation_epoch_end()

    def on_train_epoch_end(self):
        if self.current_epoch in self.when and self.in_training:
            self.log(self.name, 0.5)


class Reads(L.Callback):
    """Reads all metrics wherever it can: Lightning then makes their tensors anew."""

    def on_validation_end(self, trainer, pl_module):
        assert trainer.callback_metrics

    on_train_batch_end = on_validation_start = on_train_epoch_end = lambda self, trainer, *_: trainer.callback_metrics


COSTLY = Objective(("costly",), ("max",))


@pytest.mark.parametrize(
    ("model", "given", "steps"),
    [
        (Sometimes(1, 3), {"max_epochs": 5}, [1, 3]),
        (Sometimes(2, 3, 4), {"max_epochs": 5}, [2, 3, 4]),
        (Sometimes(2, 3, 5), {"max_epochs": 3, "val_check_interval": 0.5}, [2, 3, 5]),
        (Sometimes(1), {"max_epochs": 4, "check_val_every_n_epoch": 2}, [1]),
        (Sometimes(1, 3, in_training=True), {"max_epochs": 5}, [1, 3]),
        (Sometimes(1, 2, in_training=True), {"max_epochs": 3, "val_check_interval": 0.5}, [1, 2]),
    ],
)
def test_only_validations_that_log_the_metric_are_reported_and_all_are_counted(model, given, steps):
    watcher, _ = fit(model, objective=COSTLY, callbacks=[Reads()], num_sanity_val_steps=0, **given)
    assert watcher.reporter.told == [(step, 0.5) for step in steps]
    assert watcher.fit_error is None
    assert len(watcher.reporter.notices) == (min(steps) > 0)


def test_the_metric_of_one_of_several_loaders_is_reported_when_that_one_logs_it():
    class Second(Scripted):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            if dataloader_idx == 1 and self.current_epoch % 2:
                self.log("acc", 0.25)

    name = "acc/dataloader_idx_1"
    watcher = TrialCallback(Objective((name,), ("max",)), Collect())
    trainer(watcher, max_epochs=4, num_sanity_val_steps=0).fit(Second(), data(), [data(), data()])
    assert watcher.reporter.told == [(1, 0.25), (3, 0.25)]


def test_a_training_metric_that_each_step_logs_is_new_at_each_validation():
    class Steps(Scripted):
        def training_step(self, batch, batch_idx):
            self.log("step", 1.0)
            return super().training_step(batch, batch_idx)

    watcher, _ = fit(Steps(), objective=Objective(("step",), ("min",)), val_check_interval=0.5, max_epochs=2)
    assert watcher.reporter.told == [(step, 1.0) for step in range(4)]


def test_several_metrics_are_reported_where_one_validation_logs_them_all():
    both = Objective(("val_loss", "costly"), ("min", "max"))
    watcher, _ = fit(Sometimes(1, 3), objective=both, max_epochs=4)
    assert watcher.reporter.told == [(1, 4.0, 0.5), (3, 2.0, 0.5)]


def test_metrics_that_never_come_together_are_named():
    class Turns(Scripted):
        def on_validation_epoch_end(self):
            if not self.trainer.sanity_checking:
                self.log(f"m{self.current_epoch % 2}", 1.0)

    watcher, _ = fit(Turns(), objective=Objective(("m0", "m1"), ("min", "min")), max_epochs=4)
    assert "No validation logged all of m0, m1" in str(watcher.fit_error)


def test_a_metric_that_is_never_logged_is_waited_for_to_the_end_and_told_of_after_the_first_validation():
    model = Scripted()
    watcher, _ = fit(model, objective=Objective(("train_loss",), ("min",)), max_epochs=3, val_check_interval=0.5)
    assert (
        str(watcher.fit_error) == "The metric 'train_loss' was not logged. Logged: val_loss. Did you mean 'val_loss'?"
    )
    assert model.global_step == 3 * BATCHES
    assert watcher.reporter.notices == [
        "'train_loss' was not logged by the first validation. Logged: val_loss. Did you mean 'val_loss'? A later one "
        "may log it: the trial goes on, and fails at its end if none does."
    ]


def test_without_validations_it_is_told_of_after_the_first_training_epoch():
    watcher, _ = fit(Scripted(), objective=Objective(("loss",), ("min",)), max_epochs=1, limit_val_batches=0)
    assert [text.partition(". ")[0] for text in watcher.reporter.notices] == [
        "'loss' was not logged by the first training epoch"
    ]


@pytest.mark.parametrize("name", ["val/loss", "Val_Loss", "valloss"])
def test_a_name_that_only_case_and_punctuation_tell_from_a_logged_one_is_an_error_after_the_first_epoch(name):
    model = Scripted()
    with pytest.raises(MetricError, match=f"'{name}' was not logged. Logged: val_loss. Did you mean 'val_loss'"):
        fit(model, objective=Objective((name,), ("min",)), val_check_interval=0.5)
    assert model.global_step == BATCHES


def test_a_pruner_s_word_names_the_validation_or_the_epoch_and_counts_from_one():
    assert fit(Sometimes(1, 3), 3, COSTLY)[0].stop.detail == "told to stop at validation 4"
    assert fit(Sometimes(1, 2, in_training=True), 2, COSTLY)[0].stop.detail == "told to stop at epoch 3"


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("policy", ["prune", "fail"])
def test_a_loss_that_is_no_number_ends_the_fit_at_the_next_validation(value, policy):
    objective = Objective(("val_loss",), ("min",), non_finite=policy)
    watcher, run = fit(Scripted(loss=lambda step: value if step == 7 else 1.0), objective=objective, min_epochs=3)
    assert watcher.stop.reason is StopReason.NON_FINITE
    assert watcher.stop.detail == f"the training loss is {value} at step {2 * BATCHES}"
    assert run.global_step == 2 * BATCHES
    assert len(watcher.history) == 1


def test_between_validations_the_loss_is_looked_at_every_fifty_batches():
    settings = {"check_val_every_n_epoch": 100, "max_epochs": 100}
    watcher, run = fit(Scripted(loss=lambda step: math.nan), **settings)
    assert watcher.stop.detail == "the training loss is nan at step 50"
    assert run.global_step == 50


def test_a_training_step_without_a_loss_is_no_concern():
    class Skips(Scripted):
        def training_step(self, batch, batch_idx):
            return None if batch_idx else super().training_step(batch, batch_idx)

    with pytest.warns(UserWarning, match="returned `None`"):
        assert len(fit(Skips())[0].history) == 5
    assert len(fit(Manual())[0].history) == 5


def test_callbacks_that_may_stop_come_before_and_those_that_save_after(tmp_path):
    class Note(L.Callback):
        def on_fit_start(self, trainer, pl_module):
            order.extend(type(callback).__name__ for callback in trainer.callbacks)

    order = []
    saver, stopper = ModelCheckpoint(tmp_path, monitor="val_loss"), EarlyStopping("val_loss")
    fit(callbacks=[saver, stopper, Note()])
    assert order == ["EarlyStopping", "Note", "TrialCallback", "ModelCheckpoint"]


def test_a_learning_rate_search_before_the_fit_is_not_reported(tmp_path):
    class Rated(Scripted):
        lr = 0.01

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.lr)

    finder = LearningRateFinder(num_training_steps=5)
    watcher, _ = fit(Rated(), callbacks=[finder], max_epochs=2, default_root_dir=tmp_path, enable_checkpointing=True)
    assert [step for step, _ in watcher.reporter.told] == [0, 1]


@pytest.mark.parametrize("other", [EarlyStopping, ModelCheckpoint])
def test_only_another_mode_on_the_same_metric_is_refused(other, tmp_path):
    class Two(Scripted):
        def on_validation_epoch_end(self):
            self.log("val_acc", 0.5)
            super().on_validation_epoch_end()

    for monitor, mode in (("val_loss", "min"), ("val_acc", "max"), ("val_acc", "min")):
        fit(
            Two(),
            callbacks=[other(monitor=monitor, mode=mode)],
            max_epochs=1,
            default_root_dir=tmp_path / mode / monitor,
        )
    with pytest.raises(MetricError, match=r"tunes 'val_loss' with mode='min'. Did you mean mode='min'\?"):
        fit(Two(), callbacks=[other(monitor="val_loss", mode="max")], max_epochs=1)


def test_a_callback_that_the_model_configures_is_checked_too():
    class Configures(Scripted):
        def configure_callbacks(self):
            return [EarlyStopping("val_loss", mode="max")]

    with pytest.raises(ConfigurationError, match="contradicts"):
        fit(Configures())


def test_an_interruption_is_remembered_and_the_callbacks_are_restored():
    class Interrupt(L.Callback):
        def on_train_batch_end(self, *_):
            raise SystemExit(7)

    watcher = TrialCallback(LOSS, Collect())
    run = trainer(watcher, Interrupt())
    before = list(run.callbacks)
    with pytest.raises(SystemExit):
        run.fit(Scripted(), data(), data())
    assert watcher.fit_error.code == 7
    assert run.callbacks == before


# --- when a checkpoint is written ----------------------------------------------------------------------------------


class Order(L.Callback):
    """Writes down when the hooks of a callback are called that stands before ours."""

    def __init__(self):
        self.seen = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.seen.append("start")

    def on_train_epoch_end(self, trainer, pl_module):
        self.seen.append("end")

    def on_train_end(self, trainer, pl_module):
        self.seen.append("train end")


def test_a_checkpoint_is_written_when_all_of_an_epoch_is_over_and_nothing_of_the_next_has_begun():
    order = Order()
    fit(
        Scripted([1.0, 2.0]),
        callbacks=[order],
        after_report=lambda run, keep, last: order.seen.append((run.current_epoch, keep, last)),
        max_epochs=2,
    )
    first, second = (1, True, "when due"), (2, False, "never")
    assert order.seen == ["start", "end", first, "start", "end", second, "train end"]


def test_within_an_epoch_it_is_written_after_the_validation():
    seen = []
    fit(
        after_report=lambda run, keep, last: seen.append((run.global_step, run.current_epoch)),
        val_check_interval=0.5,
        max_epochs=2,
    )
    assert seen == [(2, 0), (4, 1), (6, 1), (8, 2)]


@pytest.mark.parametrize(
    ("reason", "needs"),
    [(StopReason.INTERRUPTED, "always"), (StopReason.TIMED_OUT, "always"), (StopReason.PRUNED, "never")],
)
@pytest.mark.parametrize("given", [{}, {"val_check_interval": 0.5}])
def test_one_to_go_on_from_is_needed_where_a_fit_is_stopped_from_outside(reason, needs, given):
    class Stops(Collect):
        def report(self, values, step):
            return Stop(reason, "told to stop") if step == 2 else None

    needed = []
    watcher = TrialCallback(LOSS, Stops(), lambda run, keep, last: needed.append(last))
    trainer(watcher, **given).fit(Scripted(), data(), data())
    within_an_epoch = bool(given)
    assert needed == ["when due", "when due", "when due" if within_an_epoch and needs == "never" else needs]


@pytest.mark.parametrize("epochs", [1, 2])
def test_what_a_checkpoint_of_another_training_says_is_not_taken_over(tmp_path, epochs):
    """The callback of a hand-written objective may stand in a fit that starts from pretrained weights."""

    def save(run, keep, last):
        run.save_checkpoint(tmp_path / f"{run.current_epoch}.ckpt")

    watcher = TrialCallback(LOSS, Collect(), save, training="this")
    trainer(watcher, max_epochs=2).fit(Scripted(), data(), data())
    other = TrialCallback(LOSS, Collect())
    run = trainer(other, max_epochs=epochs + 1)
    run.fit(Scripted(), data(), data(), ckpt_path=tmp_path / f"{epochs}.ckpt")
    assert other.reporter.told == [(0, 5.0)]
    assert other.history == [(5.0,)]
    assert run.global_step == (epochs + 1) * BATCHES, (
        "what was written between two epochs is no riddle to Lightning alone"
    )
