"""What a fit changes in its process, restored at its end: random state, seeds, log levels, warnings and signals."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Callback, LightningModule, Trainer

_SEED_VARIABLES = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")
_LEAST = {
    "lightning.pytorch": logging.WARNING,
    "lightning.fabric": logging.WARNING,
    "lightning.pytorch.loggers.mlflow": logging.ERROR,  # it warns that each new study has no experiment yet
}


@contextlib.contextmanager
def own_process_state() -> Iterator[None]:
    """Restore all of it at the end, also where something raises; Lightning's hints are silent meanwhile."""
    with own_random_state(), own_seed_variables(), quiet_lightning(), own_interrupts():
        yield


@contextlib.contextmanager
def own_random_state() -> Iterator[None]:
    """Restore the random state of Python, numpy and torch at the end, also where something raises.

    Unlike Lightning's `isolate_rng` it does not start CUDA, which no forked process could use then.
    """
    python, arrays, tensors = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
        torch.set_rng_state(tensors)
        # an accelerator that has not started yet starts from the latest seed: give it the one of before
        torch.manual_seed(torch.initial_seed())
        torch.set_rng_state(tensors)
        if devices is not None:
            torch.cuda.set_rng_state_all(devices)


@contextlib.contextmanager
def own_seed_variables() -> Iterator[None]:
    """Restore the environment variables in which Lightning keeps the seed: other fits would read them."""
    before = {name: os.environ.get(name) for name in _SEED_VARIABLES}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


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


# The random state as values that a checkpoint can hold


def random_states(trainer: Trainer) -> list[dict[str, Any]]:
    """Return the state of each rank: a checkpoint is written by one of them, and each draws on its own."""
    mine = _state(trainer)
    return [trainer.strategy.broadcast(mine, src=rank) for rank in range(trainer.world_size)]


def restore_random_state(trainer: Trainer, states: list[dict[str, Any]]) -> None:
    """Put this rank's state back; with another number of ranks there is none that would be the right one."""
    if len(states) != trainer.world_size:
        return
    state = states[trainer.global_rank]
    random.setstate(state["python"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
    for generator, saved in zip(_generators(trainer), state["generators"], strict=False):
        generator.set_state(saved.cpu())


def _state(trainer: Trainer) -> dict[str, Any]:
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [str(name), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
        "generators": [generator.get_state() for generator in _generators(trainer)],
    }


def _generators(trainer: Trainer) -> list[torch.Generator]:
    """Return the generators that a user has given to the dataloaders, for the order of the data."""
    return [*_generators_of(trainer.train_dataloader), *_generators_of(trainer.val_dataloaders)]


def _generators_of(loaders: Any) -> list[torch.Generator]:
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if isinstance(loaders, (list, tuple)):
        return [generator for loader in loaders for generator in _generators_of(loader)]
    given = (getattr(loaders, "generator", None), getattr(getattr(loaders, "sampler", None), "generator", None))
    return [generator for generator in given if isinstance(generator, torch.Generator)]
