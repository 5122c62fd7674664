"""Silence Lightning's hints while trials run, and leave signals to who listened before."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, LightningModule, Trainer

_LEAST = {
    "lightning.pytorch": logging.WARNING,
    "lightning.fabric": logging.WARNING,
    "lightning.pytorch.loggers.mlflow": logging.ERROR,  # it warns that each new study has no experiment yet
}


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's information and its hints about possible improvements; warnings still show."""
    loggers = {logging.getLogger(name): least for name, least in _LEAST.items()}
    levels = [logger.level for logger in loggers]
    for logger, least in loggers.items():
        logger.setLevel(max(logger.level, least))  # a user may have silenced it further
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=PossibleUserWarning)
            # Lightning 2.6 calls what torch 2.15 deprecates; users can do nothing about it
            warnings.filterwarnings("ignore", module=r"lightning\.pytorch\.utilities\._pytree")
            # and what jsonargparse 4.49 deprecates
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"lightning\.pytorch\.cli")
            warnings.filterwarnings("ignore", message="Experiment logs directory .* exists and is not empty")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def own_interrupts() -> Iterator[None]:
    """Give Ctrl-C back to its owner: Lightning leaves it ignored after a fit that it interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


class OwnSigterm(Callback):
    """Leaves SIGTERM to whoever listened before the fit: Lightning would end the fit at its next batch."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the place of Lightning's handler; it puts back what was there before by itself."""
        signal.signal(signal.SIGTERM, self._handler)


def own_sigterm() -> tuple[OwnSigterm, ...]:
    """Return the callback, where somebody listens."""
    handler = signal.getsignal(signal.SIGTERM)
    is_main = threading.current_thread() is threading.main_thread()
    return (OwnSigterm(handler),) if is_main and callable(handler) else ()
