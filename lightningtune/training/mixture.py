"""``lightning.pytorch`` and ``pytorch_lightning`` in one script: different classes with the same names."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightningtune.errors import ConfigurationError
from lightningtune.training.loops import get_callbacks

_OTHER = "pytorch_lightning"

IMPORT_INSTEAD = (
    "whose classes do not mix with those of lightning.pytorch, which LightningTune uses. Import lightning.pytorch "
    "instead; it has the same names. A library that imports pytorch_lightning itself, as darts and neuralforecast do, "
    "cannot be tuned with LightningTune: use plain Optuna there, with an objective that returns the library's score."
)
"""Ends a sentence about something of ``pytorch_lightning``: what is wrong with it, and what to do."""


def of_pytorch_lightning(value: Any) -> str:
    """Say that a class, or the class of an object, is of ``pytorch_lightning``, and what to do; else return nothing."""
    owner = value if inspect.isclass(value) else type(value)
    if not any(base.__module__.partition(".")[0] == _OTHER for base in owner.__mro__):
        return ""
    return f" {owner.__name__} is a class of pytorch_lightning, {IMPORT_INSTEAD}"


def refuse_mixed_objects(trainer: Trainer, model: LightningModule) -> None:
    """Refuse a fit in which something is of a class of ``pytorch_lightning``, wherever it was made.

    Raises:
        ConfigurationError: with the first such class.
    """
    if not isinstance(trainer, Trainer):
        raise ConfigurationError(
            f"{type(model).__name__} is trained by the Trainer of {type(trainer).__module__.partition('.')[0]}, "
            f"{IMPORT_INSTEAD}"
        )
    if _OTHER not in sys.modules:
        return
    datamodule = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it elsewhere
    for part in (model, datamodule, *get_callbacks(trainer), *trainer.loggers):
        if of_pytorch_lightning(part):
            raise ConfigurationError(f"'{type(part).__name__}' comes from pytorch_lightning, {IMPORT_INSTEAD}")
