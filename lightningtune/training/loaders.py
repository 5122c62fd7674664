"""Dataloaders that a function returns, under the names that ``Trainer.fit`` has for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lightningtune.errors import ConfigurationError


def loaders_by_name(built: Any) -> Mapping[str, Any]:
    """Return dataloaders under the names that ``Trainer.fit`` has for them.

    Args:
        built: one to train on, a pair to train and to validate on, or a dict of these by name. Each may be whatever
            ``Trainer.fit`` takes: any iterable of batches, a list or a dict of them, or a ``CombinedLoader``.

    Raises:
        ConfigurationError: when it is something else, or does not say what each is for.
    """
    if isinstance(built, Mapping):
        unknown = [name for name in built if name not in _LOADERS]
        if not built or unknown:
            raise ConfigurationError(
                f"datamodule_class returns a dict of {', '.join(map(repr, built)) or 'nothing'}; its keys must be "
                "'train' and 'val'. To train on several dataloaders at a time, return "
                "{'train': {'a': ..., 'b': ...}, 'val': ...}."
            )
        return {_LOADERS[name]: loaders for name, loaders in built.items()}
    loaders = [*built] if isinstance(built, (tuple, list)) else [built]
    is_loader = 1 <= len(loaders) <= 2 and isinstance(loaders[0], Iterable) and not isinstance(loaders[0], str)
    if not is_loader:
        raise ConfigurationError(
            "datamodule_class must build a LightningDataModule, a DataLoader to train on, a pair of them to train and "
            "to validate on, or a dict of them with the keys 'train' and 'val'; each may be a list or a dict of "
            f"several. But it built {built!r}."
        )
    return dict(zip(("train_dataloaders", "val_dataloaders"), loaders, strict=False))


_LOADERS = {
    "train": "train_dataloaders",
    "val": "val_dataloaders",
    "train_dataloaders": "train_dataloaders",
    "val_dataloaders": "val_dataloaders",
}
"""What a dict of dataloaders may say of each, and the name that ``Trainer.fit`` has for it."""
