"""What is kept of one trial while it trains: its best validation, and its last."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer

BEST = "best.ckpt"
LAST = "last.ckpt"


def load_weights(model: LightningModule, checkpoint: Path) -> LightningModule:
    """Load a checkpoint into a model as ``load_from_checkpoint`` does, into layers built late and through its hooks.

    Args:
        model: a model that was built as the checkpoint's was.
        checkpoint: a file from the study's own folder: it is unpickled.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=False)
    model.configure_model()
    model.on_load_checkpoint(state)
    model.load_state_dict(state["state_dict"], strict=model.strict_loading)
    return model


class KeepCheckpoints:
    """Saves after each report; where the last is also the best, one file is written and linked.

    Args:
        directory: where ``best.ckpt`` and ``last.ckpt`` go.
    """

    def __init__(self, directory: Path) -> None:
        self.best = directory / BEST
        self.last = directory / LAST

    def __call__(self, trainer: Trainer, is_best: bool) -> None:
        """Save the trainer's state; Lightning writes a checkpoint in one step."""
        trainer.save_checkpoint(self.best if is_best else self.last)
        if is_best and trainer.is_global_zero:
            _link(self.best, self.last)


def _link(source: Path, target: Path) -> None:
    temporary = target.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        os.link(source, temporary)
    if not temporary.exists():  # a file system without hard links
        shutil.copyfile(source, temporary)
    temporary.replace(target)
