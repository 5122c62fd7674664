"""SIGTERM before the first batch of a fit and after its last, where Lightning does not listen for it."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerState, TrainerStatus
from lightning.pytorch.utilities.exceptions import SIGTERMException


class SigtermGuard:
    """From now to the end of a fit, SIGTERM raises, as Ctrl-C does: the process ends, but what it was at can be told.

    Where somebody else listens, nothing changes: a handler of the user's stays, and Lightning, which has its own while
    it trains, ends the fit after a batch.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._fit: TrainerState | None = None
        self._has_raised = self._is_released = False
        self._listen()

    def follow(self, trainer: Trainer) -> None:
        """End with the fit that is beginning; not in a process of ddp_spawn, whose parent is the one that listens."""
        if os.getpid() == self._process:
            self._fit, self._has_raised, self._is_released = trainer.state, False, False
            self._listen()

    def release(self) -> None:
        """Give SIGTERM back, unless a fit is running. Without this, it does after a fit what it always did."""
        if self._fit is not None and self._fit.status is TrainerStatus.RUNNING:
            return
        self._is_released = True
        if _is_main_thread() and signal.getsignal(signal.SIGTERM) == self._handle:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _listen(self) -> None:
        if not _is_main_thread():
            return
        current: Any = signal.getsignal(signal.SIGTERM)
        if current is signal.SIG_DFL or isinstance(getattr(current, "__self__", None), SigtermGuard):
            signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, number: int, frame: Any) -> None:
        if type(signal.getsignal(number)).__module__.startswith("lightning.pytorch."):
            return  # Lightning's handler is the one that is set, and has called this one, which was there before
        if os.getpid() != self._process or self._is_over:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not self._is_ending:
            self._has_raised = True
            raise SIGTERMException(128 + number)

    @property
    def _is_ending(self) -> bool:
        """Whether the fit is on its way out with what was raised here: once more would keep that from being told."""
        return self._has_raised and self._fit is not None and self._fit.status is TrainerStatus.INTERRUPTED

    @property
    def _is_over(self) -> bool:
        return self._is_released or (self._fit is not None and self._fit.stopped and not self._is_ending)


def ended_by_sigterm(trainer: Trainer) -> SIGTERMException | None:
    """Return what a fit is to end in for which SIGTERM came too late: after its last batch Lightning only notes it."""
    received: bool = trainer.received_sigterm
    if trainer.world_size > 1:
        received = trainer.strategy.reduce_boolean_decision(received, all=False)
    return SIGTERMException(128 + signal.SIGTERM) if received else None


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
