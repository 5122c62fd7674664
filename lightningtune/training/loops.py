"""What Lightning's loops know of a fit, and how to end them: attributes that are public, but described nowhere."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lightning.pytorch import Trainer

from lightningtune.training.decisions import Progress


def stop_softly(trainer: Trainer) -> Callable[[], None]:
    """Have Lightning leave its loops by itself, whatever ``min_epochs`` and ``min_steps`` say.

    Returns:
        a function that gives the trainer these two back.
    """
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
    """Have validations take a few batches of each dataloader, as if the user had limited them.

    Args:
        trainer: in ``on_train_start``, when everything that is made from the number of batches has been made.
        batches: how many.

    Returns:
        Whether a validation may be shorter than it would have been.
    """
    counts = trainer.num_val_batches  # the loop's own list, by which it limits the dataloaders
    if counts:
        is_shorter = any(count > batches for count in counts)
        counts[:] = [min(count, batches) for count in counts]
        return is_shorter
    limit = trainer.limit_val_batches  # the dataloaders are made for the first validation, and limited by this
    if limit == 0 or (isinstance(limit, int) and limit <= batches):
        return False
    trainer.limit_val_batches = batches
    return True


@contextlib.contextmanager
def between_epochs(trainer: Trainer) -> Iterator[None]:
    """Have a checkpoint say that no epoch has begun but those that are over.

    In the first hook of an epoch Lightning counts it as begun, and would leave it out when it starts from there.
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

    Args:
        checkpoint: in ``on_load_checkpoint``, before the loops are restored from it; `begin_next_epoch` then puts
            right what is changed here.
    """
    checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["ready"] += 1


def begin_next_epoch(trainer: Trainer) -> None:
    """Have a fit that was restored from between two epochs begin the next, as it would have without the break.

    Left alone, Lightning asks the dataloader for an iterator at another moment, and with ``max_steps`` it first goes
    through an empty epoch.

    Args:
        trainer: in ``on_train_start``.
    """
    fit, epoch = trainer.fit_loop, trainer.fit_loop.epoch_loop
    for progress in (fit.epoch_progress.total, fit.epoch_progress.current):
        progress.reset_on_restart()
    epoch.restarting = False  # and with it the loops within
    for loop in (epoch.val_loop, epoch, fit):
        loop.on_iteration_done()


def is_last_value(trainer: Trainer, at_epoch_end: bool, epoch_batches: float = math.inf) -> bool:
    """Whether the fit has no value left to report, so that stopping it would save nothing.

    Args:
        trainer: in a fit, after a validation.
        at_epoch_end: whether values come from training epochs instead of validations.
        epoch_batches: how many batches the last whole epoch had, for a dataloader that has no length.
    """
    epochs_done = trainer.current_epoch + trainer.is_last_batch
    if trainer.should_stop and epochs_done >= (trainer.min_epochs or 0):
        return trainer.global_step >= (trainer.min_steps or 0)
    done = trainer.fit_loop.batch_idx + 1
    batches = done if trainer.is_last_batch else trainer.num_training_batches
    if math.isinf(batches) and done <= epoch_batches:
        batches = epoch_batches
    # any further batch brings an epoch's end with it, and may bring a validation where those go by time
    interval = 1 if at_epoch_end or trainer.val_check_batch is None else trainer.val_check_batch
    return Progress(
        epoch=trainer.current_epoch,
        max_epochs=math.inf if trainer.max_epochs in (None, -1) else trainer.max_epochs,
        batch=done,
        batches=batches,
        steps_left=_steps_left(trainer),
        batches_per_step=trainer.accumulate_grad_batches,
        interval=interval,
        every_n_epochs=1 if at_epoch_end else trainer.check_val_every_n_epoch,
    ).is_last_validation


def _steps_left(trainer: Trainer) -> float:
    if trainer.max_steps == -1:
        return math.inf
    left = trainer.max_steps - trainer.global_step
    if trainer.lightning_module.automatic_optimization or not trainer.global_step:
        return left
    batches_per_step = (trainer.fit_loop.total_batch_idx + 1) / trainer.global_step  # the model steps as it likes
    return math.ceil(left * batches_per_step)
