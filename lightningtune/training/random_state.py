"""The random state of a fit: kept apart from the user's, and as values that a checkpoint can hold."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer


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
