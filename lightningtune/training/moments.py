"""Moments of a fit for which a callback has no hook of its own: another callback is there for just that one."""

from __future__ import annotations

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint

from lightningtune.errors import TrialError
from lightningtune.training.callback_list import callbacks_of, set_callbacks
from lightningtune.training.loops import begin_next_epoch
from lightningtune.training.random_state import restore_random_state
from lightningtune.training.resumption import TrialState


def go_on(trainer: Trainer, start: TrialState) -> None:
    """Put back what Lightning has not.

    Raises:
        TrialError: when Lightning has not put back the rest.
    """
    if trainer.global_step != start.global_step:
        raise TrialError(
            f"The trial cannot go on from its checkpoint: it is at step {start.global_step}, and the fit would begin "
            f"at step {trainer.global_step}. Does a callback load another checkpoint before the training?"
        )
    trainer.callback_metrics.update(start.metrics)
    trainer.should_stop = start.should_stop
    if start.between_epochs:
        begin_next_epoch(trainer)
        # what other callbacks draw in on_train_start, they did not draw at this place before
        before_all_others(trainer, lambda trainer, goes_on: restore_random_state(trainer, start.random))
    else:
        restore_random_state(trainer, start.random)


def before_all_others(trainer: Trainer, act: Callable[[Trainer, bool], None]) -> None:
    """Act once, as soon as the epoch is over in all respects, and before anything of the next begins.

    Args:
        trainer: in a fit.
        act: takes the trainer, and whether another epoch follows.
    """
    set_callbacks(trainer, [_BetweenEpochs(act), *callbacks_of(trainer)])


class _BetweenEpochs(Callback):
    """Acts once, when the epoch is over in all respects, and nothing of the next has begun.

    Args:
        act: takes the trainer, and whether another epoch follows.
    """

    def __init__(self, act: Callable[[Trainer, bool], None]) -> None:
        self.act = act

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act before the hooks of all others."""
        self._leave(trainer)
        self.act(trainer, True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act before the hooks of all others; some put other weights in place here."""
        self._leave(trainer)
        self.act(trainer, False)

    def _leave(self, trainer: Trainer) -> None:
        set_callbacks(trainer, [callback for callback in callbacks_of(trainer) if callback is not self])


class AfterTrainEpochEnd(Checkpoint):
    """Acts after ``LightningModule.on_train_epoch_end``, where a model may log; only a Checkpoint runs so late.

    Args:
        act: takes the trainer.
    """

    def __init__(self, act: Callable[[Trainer], None]) -> None:
        self.act = act

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Be gone before the next batch: each callback costs microseconds there."""
        set_callbacks(trainer, [callback for callback in callbacks_of(trainer) if callback is not self])
        self.act(trainer)
