"""What is kept of one trial while it trains: its best validation, and its last."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch import LightningModule, Trainer

from lightningtune.files import put
from lightningtune.training.metrics_table import flush_tables
from lightningtune.training.resumption import BEST, LAST, Start

Need = Literal["when due", "always", "never"]
"""Whether the checkpoint to go on from is needed: as time goes by, whatever it takes, or not any more."""

_SHARE = 50
"""Times that a write's duration passes before the next: so writing takes at most a fiftieth of the time."""
_UNSAVED = 30.0
"""Seconds of training that may be lost."""


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
    """Writes ``best.ckpt``, which is a trial's result, and ``last.ckpt``, from which it can go on.

    ``best.ckpt`` is written whenever a validation is the best so far: its weights will not be there any more when it
    is known that none was better. ``last.ckpt`` is then linked to it. After any other validation ``last.ckpt`` is
    written when 50 times as long as the latest write took has passed since then, or when at the next validation, going
    by the pace, more than 30 seconds would be unsaved: so quick epochs do not drown in writing, and an epoch that
    takes longer than that is always saved.

    Each file is written under another name and moved into place: it is the old one or the new one at any moment.

    Args:
        directory: where they go.
        clock: tells the time in seconds.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.best = directory / BEST
        self.last = directory / LAST
        self._unfinished = directory / "unfinished.ckpt"
        self._clock = clock
        self._saved = self._asked = clock()
        self._duration = 0.0

    def begin(self, start: Start | None) -> None:
        """Have this folder hold what the trial starts from, and nothing else: it would pass for this training's."""
        if start is None:
            self.best.unlink(missing_ok=True)
            self.last.unlink(missing_ok=True)
            return
        for source, target in ((start.best, self.best), (start.checkpoint, self.last)):
            if source is not None and source != target:
                put(source, target)

    def __call__(self, trainer: Trainer, is_best: bool, last: Need = "when due") -> None:
        """Save the trainer's state, on all ranks.

        Args:
            trainer: in a fit.
            is_best: whether this is the validation to keep.
            last: whether ``last.ckpt`` is needed.

        Raises:
            OSError: where the disk is full, among others; the checkpoints of before are whole.
        """
        is_due = self._is_due()
        if trainer.world_size > 1:
            is_due = trainer.strategy.broadcast(is_due)
        wants_last = last == "always" or (last == "when due" and is_due)
        if is_best:
            self._save(trainer, self.best, self.last if last != "never" else None)
        elif wants_last:
            self._save(trainer, self.last)

    def end(self) -> None:
        """Remove what only served to go on."""
        self.last.unlink(missing_ok=True)

    def _is_due(self) -> bool:
        now = self._clock()
        pace, self._asked = now - self._asked, now
        unsaved = now - self._saved
        return unsaved >= _SHARE * self._duration or unsaved + pace > _UNSAVED

    def _save(self, trainer: Trainer, target: Path, twin: Path | None = None) -> None:
        started = self._clock()
        try:
            flush_tables(trainer)
            trainer.save_checkpoint(self._unfinished)  # Lightning's own move is a copy where /tmp is another disk
            if trainer.is_global_zero:
                self._unfinished.replace(target)
                if twin is not None:
                    put(target, twin)
        except OSError as error:
            self._unfinished.unlink(missing_ok=True)
            if error.errno == errno.ENOSPC:
                where = f"{target}, by way of {tempfile.gettempdir()}"
                raise OSError(error.errno, os.strerror(error.errno), where) from error
            raise
        self._saved = self._clock()
        self._duration = self._saved - started
