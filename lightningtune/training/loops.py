"""Lightning's loops: how far a fit is, how to end it, and moments that no hook of a callback reaches.

The attributes of the loops that are used here are public, but Lightning does not document them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.trainer.states import TrainerStatus


def get_callbacks(trainer: Trainer) -> list[Callback]:
    """Return the callbacks in the order in which their hooks are called."""
    return list(trainer.callbacks)  # type: ignore[attr-defined]  # public, but Lightning sets it where mypy cannot see


def set_callbacks(trainer: Trainer, callbacks: Sequence[Callback]) -> None:
    """Replace the callbacks; a hook that is being called goes on over the old list."""
    trainer.callbacks = list(callbacks)  # type: ignore[attr-defined]


def _remove_callback(trainer: Trainer, callback: Callback) -> None:
    set_callbacks(trainer, [other for other in get_callbacks(trainer) if other is not callback])


# How far a fit is


@dataclass(frozen=True)
class FitProgress:
    """Where a fit is at the end of a validation; what is unknown or without a bound is infinite."""

    epoch: int  # 0-based
    max_epochs: float
    batch: int  # training batches of this epoch that are done
    batches: float  # of an epoch
    steps_left: float  # of the optimizers, until max_steps
    batches_per_step: int  # gradient accumulation; the last batch of an epoch is always a step
    interval: float  # batches between two validations
    every_n_epochs: int | None  # between two epochs that validate; None when the interval runs across epochs

    @property
    def batches_left(self) -> float:
        """Training batches until the fit ends by itself."""
        whole_epochs = self.max_epochs - self.epoch - 1
        by_epochs = (self.batches - self.batch) + (whole_epochs * self.batches if whole_epochs else 0)
        return min(by_epochs, self._batches_to_last_step)

    @property
    def _batches_to_last_step(self) -> float:
        if math.isinf(self.steps_left):
            return math.inf
        per_epoch = math.inf if math.isinf(self.batches) else math.ceil(self.batches / self.batches_per_step)
        done = per_epoch if self.batch == self.batches else self.batch // self.batches_per_step
        epochs, steps = divmod(done + self.steps_left, per_epoch)
        return (epochs * self.batches if epochs else 0) + steps * self.batches_per_step - self.batch

    @property
    def batches_to_next_validation(self) -> float:
        """Training batches until the next validation of a fit without end."""
        if self.every_n_epochs is None:
            return self.interval
        validates = (self.epoch + 1) % self.every_n_epochs == 0
        if validates and self.batch + self.interval <= self.batches:
            return self.interval
        skipped = self.every_n_epochs - (self.epoch + 1) % self.every_n_epochs - 1
        between = skipped * self.batches if skipped else 0
        return (self.batches - self.batch) + between + min(self.interval, self.batches)

    @property
    def is_last_validation(self) -> bool:
        """Whether no validation will follow.

        Example:
            >>> FitProgress(4, 5, 10, 10, math.inf, 1, 10, 1).is_last_validation
            True
        """
        return self.batches_to_next_validation > self.batches_left


def is_last_value(trainer: Trainer, at_epoch_end: bool, epoch_batches: float = math.inf) -> bool:
    """Whether the fit has no value left to report after this validation, so that stopping it would save nothing.

    Args:
        trainer: in a fit.
        at_epoch_end: whether values come from training epochs instead of validations.
        epoch_batches: batches of the last whole epoch, for a dataloader that has no length.
    """
    epochs_done = trainer.current_epoch + trainer.is_last_batch
    if trainer.should_stop and epochs_done >= (trainer.min_epochs or 0):
        return trainer.global_step >= (trainer.min_steps or 0)
    done = trainer.fit_loop.batch_idx + 1
    batches = done if trainer.is_last_batch else trainer.num_training_batches
    if math.isinf(batches) and done <= epoch_batches:
        batches = epoch_batches
    # val_check_batch is None where validations go by time: then any further batch may bring one
    interval = 1 if at_epoch_end or trainer.val_check_batch is None else trainer.val_check_batch
    return FitProgress(
        epoch=trainer.current_epoch,
        max_epochs=math.inf if trainer.max_epochs in (None, -1) else trainer.max_epochs,
        batch=done,
        batches=batches,
        steps_left=_count_steps_left(trainer),
        batches_per_step=trainer.accumulate_grad_batches,
        interval=interval,
        every_n_epochs=1 if at_epoch_end else trainer.check_val_every_n_epoch,
    ).is_last_validation


def _count_steps_left(trainer: Trainer) -> float:
    if trainer.max_steps == -1:
        return math.inf
    left = trainer.max_steps - trainer.global_step
    if trainer.lightning_module.automatic_optimization or not trainer.global_step:
        return left
    # with manual optimization the model steps when it likes: assume that it keeps its pace
    batches_per_step = (trainer.fit_loop.total_batch_idx + 1) / trainer.global_step
    return math.ceil(left * batches_per_step)


# End a fit, an epoch or a validation early


def stop_softly(trainer: Trainer) -> Callable[[], None]:
    """Have Lightning leave its loops by itself; return a function that restores ``min_epochs`` and ``min_steps``."""
    fit, epoch = trainer.fit_loop, trainer.fit_loop.epoch_loop
    before = fit.min_epochs, epoch.min_steps
    trainer.should_stop = True
    fit.min_epochs, epoch.min_steps = 0, 0

    def give_back() -> None:
        fit.min_epochs, epoch.min_steps = before

    return give_back


def end_epoch(trainer: Trainer) -> None:
    """Have Lightning take the current training batch for the last of its epoch."""
    trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = True


def shorten_validation(trainer: Trainer, batches: int) -> bool:
    """Have a validation that starts take a few batches of each dataloader; return whether that may shorten it."""
    counts = trainer.num_val_batches  # the loop's own list, by which it limits the dataloaders
    is_shorter = any(count > batches for count in counts)
    counts[:] = [min(count, batches) for count in counts]
    return is_shorter


# Raise out of Trainer.fit after everything that Lightning does at its end


def raise_at_end_of_fit(
    trainer: Trainer, callback: Callback, error: BaseException, before_raise: Callable[[], None] | None = None
) -> None:
    """Make the current fit end in ``error``, once every other end hook has run and every logger has finished.

    Lightning then hands the error to ``on_exception`` of each callback, and marks the loggers as failed. Neither
    happens if ``callback``, which comes first, calls `reraise_at_end_of_fit` there. ``before_raise`` is called when
    nothing can go wrong any more.
    """
    _remove_callback(trainer, callback)
    set_callbacks(trainer, [callback, *get_callbacks(trainer)])
    trainer.loggers = [*trainer.loggers, _RaisingLogger(trainer, error, before_raise)]


def reraise_at_end_of_fit(trainer: Trainer, error: BaseException) -> None:
    """Leave ``Trainer.fit`` with ``error``, the trainer being as after a fit that ended well."""
    trainer.state.status = TrainerStatus.FINISHED
    trainer.state.stage = None
    raise error


class _RaisingLogger(DummyLogger):
    """Raises in ``finalize``: that of the last logger is the last call of a fit that a user's object can get."""

    def __init__(self, trainer: Trainer, error: BaseException, before_raise: Callable[[], None] | None) -> None:
        super().__init__()
        self._trainer = trainer
        self._error = error
        self._before_raise = before_raise

    def finalize(self, status: str) -> None:
        trainer = self._trainer
        trainer.loggers = [logger for logger in trainer.loggers if logger is not self]
        if status != "success":  # something else has gone wrong since, and is being raised
            return
        trainer.profiler.describe()  # type: ignore[attr-defined]  # the only thing that Lightning would do after this
        if self._before_raise is not None:
            self._before_raise()
        trainer.strategy.barrier("end of fit")  # no rank is torn down while another still cleans up
        raise self._error


# Moments of a fit for which a callback has no hook: a second callback is added for just that moment


def call_after_train_epoch_end(trainer: Trainer, act: Callable[[Trainer], None]) -> None:
    """Call ``act`` once, after the model's own ``on_train_epoch_end``, which may log too."""
    set_callbacks(trainer, [*get_callbacks(trainer), _AfterTrainEpochEnd(act)])


class _AfterTrainEpochEnd(Checkpoint):
    """A Checkpoint, since Lightning calls the hooks of no other callback after those of the model."""

    def __init__(self, act: Callable[[Trainer], None]) -> None:
        self._act = act

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _remove_callback(trainer, self)  # before the next batch, where each callback costs microseconds
        self._act(trainer)


def call_between_epochs(trainer: Trainer, act: Callable[[Trainer, bool], None]) -> None:
    """Call ``act`` once, after all that belongs to the epoch, and before anything of the next begins.

    It takes the trainer, and whether another epoch follows.
    """
    set_callbacks(trainer, [_BetweenEpochs(act), *get_callbacks(trainer)])


class _BetweenEpochs(Callback):
    def __init__(self, act: Callable[[Trainer, bool], None]) -> None:
        self._act = act

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _remove_callback(trainer, self)
        self._act(trainer, True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act before all others, some of which load other weights here."""
        _remove_callback(trainer, self)
        self._act(trainer, False)


# Save between two epochs, and go on from there


@contextlib.contextmanager
def count_completed_epochs(trainer: Trainer) -> Iterator[None]:
    """Have a checkpoint that is written in the first hook of an epoch say that this epoch has not begun.

    Lightning counts it as begun, and would leave it out when it starts from there.
    """
    counts = trainer.fit_loop.epoch_progress.total, trainer.fit_loop.epoch_progress.current
    ready = [count.ready for count in counts]
    for count in counts:
        count.ready = count.completed
    try:
        yield
    finally:
        for count, before in zip(counts, ready, strict=True):
            count.ready = before


def ask_for_loader_states(checkpoint: Mapping[str, Any]) -> None:
    """Have Lightning give the dataloaders their state back, which it does not do where all epochs are over.

    To be called in ``on_load_checkpoint``, before the loops are restored from the checkpoint. It then counts an epoch
    too many, which `begin_next_epoch` corrects.
    """
    checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["ready"] += 1


def begin_next_epoch(trainer: Trainer) -> None:
    """Have a fit that was restored from between two epochs begin the next, as it would have without the break.

    To be called in ``on_train_start``. Without it, Lightning asks the dataloader for an iterator at another moment, and
    with ``max_steps`` it first goes through an empty epoch.
    """
    fit, epoch = trainer.fit_loop, trainer.fit_loop.epoch_loop
    # count as begun only the epochs that are over
    for progress in (fit.epoch_progress.total, fit.epoch_progress.current):
        progress.reset_on_restart()
    # nothing within the epoch is to be resumed; this reaches the loops inside, too
    epoch.restarting = False
    # and reset what Lightning resets after an epoch, from the innermost loop outwards
    for loop in (epoch.val_loop, epoch, fit):
        loop.on_iteration_done()
