"""Raising out of ``Trainer.fit`` after everything that Lightning does at the end of a fit has been done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.states import TrainerStatus

from lightningtune.training.callback_list import callbacks_of, set_callbacks


class _LastLogger(Logger):
    """The last call of a fit is ``finalize`` of its last logger; this one raises there."""

    name = None
    version = None

    def __init__(self, trainer: Trainer, error: BaseException, last_words: Callable[[], Any]) -> None:
        super().__init__()
        self._trainer = trainer
        self._error = error
        self._last_words = last_words

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Nothing is logged so late."""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing is logged so late."""

    def finalize(self, status: str) -> None:
        trainer = self._trainer
        trainer.loggers = [logger for logger in trainer.loggers if logger is not self]
        if status != "success":  # something else went wrong since, and says so itself
            return
        trainer.profiler.describe()  # type: ignore[attr-defined]  # the one thing that would have followed
        self._last_words()
        trainer.strategy.barrier("end of fit")  # no rank is torn down while another still cleans up
        raise self._error


def raise_at_end_of_fit(
    trainer: Trainer, callback: Callback, error: BaseException, last_words: Callable[[], Any] = bool
) -> None:
    """Make the current fit end in ``error``, once every other end hook has run and every logger has finished.

    Lightning hands an exception to ``on_exception`` of each callback, and then marks the loggers as failed. Neither
    happens when ``callback``, which is asked first, calls `reraise_at_end_of_fit` there.

    Args:
        trainer: ends its fit.
        callback: is asked first.
        error: what comes out of the fit, unless something goes wrong until then.
        last_words: called when nothing can go wrong any more.
    """
    others = [other for other in callbacks_of(trainer) if other is not callback]
    set_callbacks(trainer, [callback, *others])
    trainer.loggers = [*trainer.loggers, _LastLogger(trainer, error, last_words)]


def reraise_at_end_of_fit(trainer: Trainer, error: BaseException) -> None:
    """Leave ``Trainer.fit`` with ``error``, the trainer being as after a fit that ended well."""
    trainer.state.status = TrainerStatus.FINISHED
    trainer.state.stage = None
    raise error
