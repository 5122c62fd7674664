"""The randomness of the data is the study's: its hooks draw from a seed that all trials share."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, seed_everything
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightningtune.training.random_state import own_random_state

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader")
HOOKS = ("prepare_data", "setup", *LOADERS)
"""The hooks that make the data."""
_VARIABLES = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")


@contextlib.contextmanager
def own_seed_variables() -> Iterator[None]:
    """Restore the environment variables in which Lightning keeps the seed: other fits would read them."""
    before = {name: os.environ.get(name) for name in _VARIABLES}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def data_seeded(seed: int | None, purpose: str) -> Iterator[None]:
    """Make or load data with the study's seed, and restore the trial's random state at the end.

    Args:
        seed: the study's, for data; without one the data draws from the trial's random state.
        purpose: what is made. Each purpose has random numbers of its own, whatever was made before.
    """
    if seed is None:
        yield
        return
    own = int.from_bytes(hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=4).digest(), "big")
    with own_random_state(), own_seed_variables():
        seed_everything(own, workers=True, verbose=False)
        yield


def seed_hooks(owner: LightningDataModule | LightningModule, seed: int | None) -> None:
    """Have the hooks of a datamodule, or of a model with dataloaders of its own, draw from the study's seed."""
    for name in HOOKS:
        if seed is not None and is_overridden(name, owner):
            setattr(owner, name, _SeededHook(getattr(owner, name), seed, name))


def seeded(make: Callable[..., Any], seed: int | None) -> Callable[..., Any]:
    """Return a function that constructs data as `make` does, with the study's seed."""

    @functools.wraps(make)
    def construct(kind: type, *args: Any, **kwargs: Any) -> Any:
        with data_seeded(seed, "construction"):
            return make(kind, *args, **kwargs)

    return construct


class _SeededHook:
    """A hook that draws from the study's seed; unlike a closure it can be copied and pickled with its owner.

    Args:
        hook: a bound method.
        seed: the study's, for data.
        name: the hook's.
    """

    def __init__(self, hook: Callable[..., Any], seed: int, name: str) -> None:
        self.__wrapped__ = hook  # by which Lightning sees that the hook is overridden
        self._seed = seed
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with data_seeded(self._seed, f"{self._name}:{self._times_reloaded()}"):
            return self.__wrapped__(*args, **kwargs)

    def _times_reloaded(self) -> int:
        """Count by the epoch how often dataloaders were made anew, which a trial that goes on must know, too."""
        owner = getattr(self.__wrapped__, "__self__", None)  # of a function that was set as a hook there is none
        try:
            trainer = getattr(owner, "trainer", None) if self._name in LOADERS else None
        except RuntimeError:  # a model without a Trainer
            return 0
        every = trainer and trainer.reload_dataloaders_every_n_epochs
        return trainer.current_epoch // every if trainer and every else 0
