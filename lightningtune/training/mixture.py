"""A mixture of ``lightning.pytorch`` and ``pytorch_lightning``: two trees of different classes with the same names."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightningtune.errors import ConfigurationError
from lightningtune.training.callback_list import callbacks_of

_OTHER = "pytorch_lightning"

IMPORT_INSTEAD = (
    "whose classes do not mix with those of lightning.pytorch, which LightningTune uses. Import lightning.pytorch "
    "instead; it has the same names. A library that imports pytorch_lightning itself, as darts and neuralforecast do, "
    "cannot be tuned with LightningTune: use plain Optuna there, with an objective that returns the library's score."
)
"""Ends a sentence about something of ``pytorch_lightning``: what is wrong with it, and what to do."""


def is_of_pytorch_lightning(value: Any) -> bool:
    """Whether a class, or the class of an object, is of ``pytorch_lightning`` or derives from one of its classes."""
    owner = value if inspect.isclass(value) else type(value)
    return any(base.__module__.partition(".")[0] == _OTHER for base in owner.__mro__)


def of_pytorch_lightning(value: Any) -> str:
    """Say that a class, or the class of an object, is of ``pytorch_lightning``, and what to do; else return nothing."""
    if not is_of_pytorch_lightning(value):
        return ""
    name = (value if inspect.isclass(value) else type(value)).__name__
    return f" {name} is a class of pytorch_lightning, {IMPORT_INSTEAD}"


def refuse_mixed_names(scope: Mapping[str, Any]) -> None:
    """Refuse a script that has imported ``pytorch_lightning``.

    Args:
        scope: the script's global names.

    Raises:
        ConfigurationError: with the first name from there.
    """
    if _OTHER not in sys.modules:
        return
    for name, value in scope.items():
        home = getattr(value, "__module__", None) or getattr(value, "__name__", "")
        if isinstance(home, str) and home.partition(".")[0] == _OTHER:
            raise _mixed(name)


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
    for part in (model, datamodule, *callbacks_of(trainer), *trainer.loggers):
        if is_of_pytorch_lightning(part):
            raise _mixed(type(part).__name__)


def _mixed(name: str) -> ConfigurationError:
    return ConfigurationError(f"'{name}' comes from pytorch_lightning, {IMPORT_INSTEAD}")
