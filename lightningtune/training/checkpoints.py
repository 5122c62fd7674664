"""What is kept of one trial while it trains: its best validation, and its last."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from lightning.pytorch import Trainer

from lightningtune.files import put
from lightningtune.training.held_checkpoint import HeldCheckpoint, hold
from lightningtune.training.metrics_table import flush_tables
from lightningtune.training.resumption import BEST, LAST, Start

Need = Literal["when due", "always", "never"]
"""Whether the checkpoint to go on from is needed: as time goes by, whatever it takes, or not any more."""

_SHARE = 50
"""Times that what saving has taken passes before the next write.

So saving takes at most 2% of the time; or what it takes to hold each best, and one write in 15 to 30 seconds, where
that is more; where a best cannot be held, one write for each.
"""
_UNSAVED = 30.0
"""Seconds of training that may be lost."""


class KeepCheckpoints:
    """Writes ``best.ckpt``, which is a trial's result, and ``last.ckpt``, from which it can go on.

    A validation is saved when 50 times as long has passed since the latest write as that and all holding since then
    took, or when at the next validation, going by the pace, more than 30 seconds would be unsaved: so quick epochs do
    not drown in writing, and an epoch that takes longer than that is always saved. The best so far goes to
    ``best.ckpt``, to which ``last.ckpt`` is then linked; any other to ``last.ckpt``.

    The best is needed even when it is not due, and its weights will not be there any more when it is known that none
    was better. So it is held in memory, on the CPU, until a better one comes, another validation is saved, or the fit
    ends. Whatever ends the process before that, the two files are of one time, and what was trained since then is
    trained again. A strategy that writes in its own way, as sharded ones do, has it written at once.

    Each file is written under another name and moved into place: it is the old one or the new one at any moment.

    Args:
        directory: where they go.
        clock: tells the time in seconds.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.best = directory / BEST
        self.last = directory / LAST
        self._clock = clock
        self._saved = self._asked = clock()
        self._spent = 0.0
        self._held: HeldCheckpoint | None = None
        self._memory: HeldCheckpoint | None = None

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
            self._held = None
            if last == "when due" and not is_due:
                self._hold(trainer)
            if self._held is None:
                with self._timed():
                    self._put(trainer, trainer.save_checkpoint, self.best, self.last if last != "never" else None)
        elif wants_last:
            with self._timed():
                self._put_held(trainer)  # first: what goes on from the last needs the best before it
                self._put(trainer, trainer.save_checkpoint, self.last)

    def complete(self, trainer: Trainer) -> None:
        """Write what is held of a fit that has ended."""
        with self._timed():
            self._put_held(trainer)

    def _is_due(self) -> bool:
        now = self._clock()
        pace, self._asked = now - self._asked, now
        unsaved = now - self._saved
        return unsaved >= _SHARE * self._spent or unsaved + pace > _UNSAVED

    def _hold(self, trainer: Trainer) -> None:
        started = self._clock()
        self._held = self._memory = hold(trainer, self._memory)
        self._spent += self._clock() - started

    def _put_held(self, trainer: Trainer) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._put(trainer, held.write, self.best)

    def _put(self, trainer: Trainer, save: Callable[[Path], None], target: Path, twin: Path | None = None) -> None:
        # a name that nobody can guess: Lightning would follow a link
        unfinished = target.with_name(f"unfinished_{secrets.token_hex(8)}.ckpt")
        if trainer.world_size > 1:
            unfinished = trainer.strategy.broadcast(unfinished)
        try:
            flush_tables(trainer)
            save(unfinished)  # Lightning's own move is a copy where /tmp is another disk
            if trainer.is_global_zero:
                unfinished.replace(target)
                if twin is not None:
                    put(target, twin)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            if error.errno == errno.ENOSPC:
                why = f"{os.strerror(error.errno)} here or in {tempfile.gettempdir()}"
                raise OSError(error.errno, why, str(target)) from error
            raise

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        """Note when was saved what happens within, and how long it took."""
        started = self._clock()
        yield
        self._saved = self._clock()
        self._spent = self._saved - started
