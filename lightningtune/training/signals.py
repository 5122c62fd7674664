"""Signals that end a fit of a hand-written objective where Lightning does not listen for them."""

from __future__ import annotations

import os
import signal
import threading
import time
from multiprocessing.process import BaseProcess
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerState, TrainerStatus
from lightning.pytorch.utilities.exceptions import SIGTERMException

_CHILDREN_END_SECONDS = 5.0
"""That training processes have to end in, where their parent is interrupted."""


class SigtermGuard:
    """From its construction to the end of a fit, SIGTERM raises, as Ctrl-C does, so that the study can be told.

    Other handlers stay: one of the user's, and Lightning's own, which ends the fit after a batch while it trains.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._fit: TrainerState | None = None
        self._has_raised = self._is_released = False
        self._listen()

    def follow(self, trainer: Trainer) -> None:
        """Listen until the fit that is beginning ends; not in a process of ddp_spawn, whose parent listens."""
        if os.getpid() == self._process:
            self._fit, self._has_raised, self._is_released = trainer.state, False, False
            self._listen()

    def release(self) -> None:
        """Let SIGTERM end the process again, unless a fit is running."""
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
            return  # Lightning's handler is set, and has called this one, which was there before
        if os.getpid() != self._process or self._is_over:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not self._is_ending:
            self._has_raised = True
            raise SIGTERMException(128 + number)

    @property
    def _is_ending(self) -> bool:
        """Whether the fit is ending with what was raised here: to raise again would keep the study from being told."""
        return self._has_raised and self._fit is not None and self._fit.status is TrainerStatus.INTERRUPTED

    @property
    def _is_over(self) -> bool:
        return self._is_released or (self._fit is not None and self._fit.stopped and not self._is_ending)


def get_late_sigterm(trainer: Trainer) -> SIGTERMException | None:
    """Return what a fit must end in if SIGTERM came after its last batch, when Lightning only notes it."""
    received: bool = trainer.received_sigterm
    if trainer.world_size > 1:
        received = trainer.strategy.reduce_boolean_decision(received, all=False)
    return SIGTERMException(128 + signal.SIGTERM) if received else None


def end_training_processes(trainer: Trainer) -> None:
    """End what an interrupted parent has started, after the study was told: Lightning would wait for it."""
    launcher = trainer.strategy.launcher
    children = [child for child in getattr(launcher, "procs", ()) if isinstance(child, BaseProcess)]
    if launcher is None or not children:
        return
    launcher.kill(signal.SIGINT)  # as torch does for a parent that is killed
    end = time.monotonic() + _CHILDREN_END_SECONDS
    for child in children:
        child.join(max(0.0, end - time.monotonic()))
    launcher.kill(signal.SIGKILL)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
