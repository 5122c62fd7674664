"""A mixture of ``lightning.pytorch`` and ``pytorch_lightning``: two trees of different classes with the same names."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightningtune.errors import ConfigurationError
from lightningtune.training.callback_list import callbacks_of

_OTHER = "pytorch_lightning"


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
            f"This callback is for lightning.pytorch, but the trainer is {type(trainer).__module__}.Trainer. "
            "Import lightning.pytorch instead; it has the same names."
        )
    if _OTHER not in sys.modules:
        return
    datamodule = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it elsewhere
    for part in (model, datamodule, *callbacks_of(trainer), *trainer.loggers):
        if any(base.__module__.partition(".")[0] == _OTHER for base in type(part).__mro__):
            raise _mixed(type(part).__name__)


def _mixed(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"'{name}' comes from pytorch_lightning, whose classes do not mix with those of lightning.pytorch, "
        "which LightningTune uses. Import lightning.pytorch instead; it has the same names."
    )
