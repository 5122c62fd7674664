"""The data of a trial: made with the study's seed, not the trial's, and given to ``Trainer.fit`` by its names."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, seed_everything
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightningtune.errors import ConfigurationError
from lightningtune.training.process_state import own_random_state, own_seed_variables

_LOADER_HOOKS = ("train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader")
DATA_HOOKS = ("prepare_data", "setup", *_LOADER_HOOKS)
_FIT_NAMES = {
    "train": "train_dataloaders",
    "val": "val_dataloaders",
    "train_dataloaders": "train_dataloaders",
    "val_dataloaders": "val_dataloaders",
}
"""Keys that a dict of dataloaders may have, and the name that ``Trainer.fit`` has for each."""


@contextlib.contextmanager
def data_seeded(seed: int | None, purpose: str) -> Iterator[None]:
    """Make or load data with the study's seed, and restore the trial's random state at the end.

    Each purpose has random numbers of its own, whatever was made before. Without a seed the data draws from the
    trial's random state, as in studies of older versions.
    """
    if seed is None:
        yield
        return
    own = int.from_bytes(hashlib.blake2b(f"{seed}:{purpose}".encode(), digest_size=4).digest(), "big")
    with own_random_state(), own_seed_variables():
        seed_everything(own, workers=True, verbose=False)
        yield


def seeded(make: Callable[..., Any], seed: int | None) -> Callable[..., Any]:
    """Return a function that constructs data as ``make`` does, with the study's seed."""

    @functools.wraps(make)
    def construct(kind: type, *args: Any, **kwargs: Any) -> Any:
        with data_seeded(seed, "construction"):
            return make(kind, *args, **kwargs)

    return construct


def seed_hooks(owner: LightningDataModule | LightningModule, seed: int | None) -> None:
    """Have the hooks of a datamodule, or of a model with dataloaders of its own, draw from the study's seed."""
    for name in DATA_HOOKS:
        if seed is not None and is_overridden(name, owner):
            setattr(owner, name, _SeededHook(getattr(owner, name), seed, name))


class _SeededHook:
    """A hook that draws from the study's seed; unlike a closure it can be copied and pickled with its owner."""

    def __init__(self, hook: Callable[..., Any], seed: int, name: str) -> None:
        self.__wrapped__ = hook  # by which Lightning sees that the hook is overridden
        self._seed = seed
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with data_seeded(self._seed, f"{self._name}:{self._count_reloads()}"):
            return self.__wrapped__(*args, **kwargs)

    def _count_reloads(self) -> int:
        """Count how often dataloaders were made anew; by the epoch, so that a trial that goes on counts the same."""
        owner = getattr(self.__wrapped__, "__self__", None)  # None if a plain function was set as a hook
        try:
            trainer = getattr(owner, "trainer", None) if self._name in _LOADER_HOOKS else None
        except RuntimeError:  # a model without a Trainer
            return 0
        every = trainer and trainer.reload_dataloaders_every_n_epochs
        return trainer.current_epoch // every if trainer and every else 0


def name_loaders(built: Any) -> Mapping[str, Any]:
    """Return what ``datamodule_class`` has built under the names that ``Trainer.fit`` has for dataloaders.

    Raises:
        ConfigurationError: when it is something else, or does not say what each is for.
    """
    if isinstance(built, Mapping):
        if not built or any(name not in _FIT_NAMES for name in built):
            raise ConfigurationError(
                f"datamodule_class returns a dict of {', '.join(map(repr, built)) or 'nothing'}; its keys must be "
                "'train' and 'val'. To train on several dataloaders at a time, return "
                "{'train': {'a': ..., 'b': ...}, 'val': ...}."
            )
        return {_FIT_NAMES[name]: loaders for name, loaders in built.items()}
    loaders = [*built] if isinstance(built, (tuple, list)) else [built]
    is_loader = 1 <= len(loaders) <= 2 and isinstance(loaders[0], Iterable) and not isinstance(loaders[0], str)
    if not is_loader:
        raise ConfigurationError(
            "datamodule_class must build a LightningDataModule, a DataLoader to train on, a pair of them to train and "
            "to validate on, or a dict of them with the keys 'train' and 'val'; each may be a list or a dict of "
            f"several. But it built {built!r}."
        )
    return dict(zip(("train_dataloaders", "val_dataloaders"), loaders, strict=False))
