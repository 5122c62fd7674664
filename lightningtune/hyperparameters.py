"""What ``save_hyperparameters()`` keeps of arguments that were built from ``class_path`` blocks: the blocks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any


@contextlib.contextmanager
def given_hyperparameters(values: Mapping[str, Any]) -> Iterator[None]:
    """Have a LightningModule or LightningDataModule that is built here save these values, and not the objects.

    Objects in a checkpoint keep it from being loaded with weights only; from the blocks, ``load_from_checkpoint``
    builds them again. LightningCLI does the same, with this function of Lightning's, which is private: there is no
    public way.

    Args:
        values: every argument of its ``__init__`` as plain values, ``class_path`` blocks in place of objects.
    """
    from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters_context

    with _given_hyperparameters_context({**values}, instantiator="lightning.pytorch.cli.instantiate_module"):
        yield


def has_block(value: Any) -> bool:
    """Whether a ``class_path`` block is somewhere in a plain value.

    Example:
        >>> has_block([{"class_path": "torch.nn.ReLU"}])
        True
    """
    if isinstance(value, Mapping):
        return "class_path" in value or any(map(has_block, value.values()))
    return isinstance(value, list) and any(map(has_block, value))
