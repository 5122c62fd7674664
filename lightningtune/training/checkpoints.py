"""What is kept of one trial while it trains: its best validation, and its last."""

from __future__ import annotations

import contextlib
import copy
import errno
import itertools
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.strategies import Strategy

from lightningtune.files import put
from lightningtune.training.resumption import BEST, LAST, ResumePoint
from lightningtune.training.trackers import flush_tables

LastNeeded = Literal["when due", "always", "never"]
"""When the checkpoint to go on from is needed: as time goes by, now, or not any more."""

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
    took, or when by the pace so far more than 30 seconds would be unsaved at the next one. So quick epochs do not drown
    in writing, and a long epoch is always saved. The best so far goes to ``best.ckpt``, to which ``last.ckpt`` is then
    linked; any other to ``last.ckpt``.

    A best that comes when no write is due is held in memory, on the CPU, until a better one comes, another validation
    is saved, or the fit ends. If the process is killed before that, the two files are of one earlier time, and what was
    trained since then is trained again. A strategy that writes in its own way, as sharded ones do, writes it at once.

    Each file is written under another name and moved into place: it is the old one or the new one at any moment.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.best = directory / BEST
        self.last = directory / LAST
        self._clock = clock
        self._saved = self._asked = clock()
        self._spent = 0.0
        self._held: HeldCheckpoint | None = None
        self._memory: HeldCheckpoint | None = None

    def begin(self, start: ResumePoint | None) -> None:
        """Have this folder hold what the trial starts from, and nothing else: it would pass for this training's."""
        if start is None:
            self.best.unlink(missing_ok=True)
            self.last.unlink(missing_ok=True)
            return
        for source, target in ((start.best, self.best), (start.checkpoint, self.last)):
            if source is not None and source != target:
                put(source, target)

    def __call__(self, trainer: Trainer, is_best: bool, last: LastNeeded = "when due") -> None:
        """Save the state of a trainer's fit, on all ranks; ``is_best`` if this is the validation to keep.

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
        """Note when a write began, and how long it took."""
        started = self._clock()
        yield
        self._saved = self._clock()
        self._spent = self._saved - started


def hold(trainer: Trainer, before: HeldCheckpoint | None = None) -> HeldCheckpoint | None:
    """Copy the state of a trainer's fit, on all ranks, over what was held before; a tenth of the time of writing it.

    Return None where it cannot be held: a strategy writes it in its own way, or something cannot be copied.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, Strategy) or type(strategy).save_checkpoint is not Strategy.save_checkpoint:
        return None
    io = strategy.checkpoint_io
    held = HeldCheckpoint(io, before.memory if before is not None else ())
    strategy.checkpoint_io = held
    try:
        trainer.save_checkpoint("memory")
    finally:
        strategy.checkpoint_io = io
    return None if trainer.strategy.broadcast(held.has_failed) else held


class HeldCheckpoint(CheckpointIO):
    """A checkpoint in memory, on the CPU; ``memory`` is written over, for new memory costs more than the copy does."""

    def __init__(self, io: CheckpointIO, memory: Sequence[torch.Tensor] = ()) -> None:
        self.memory = memory
        self.content: dict[str, Any] | None = None
        self.has_failed = False
        self._io = io

    def write(self, path: Path) -> None:
        """Write it; a rank that holds nothing writes nothing."""
        if self.content is not None:
            self._io.save_checkpoint(self.content, path)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Copy a checkpoint, whose tensors the training will change."""
        try:
            tensors = {_identify(tensor): tensor.detach() for tensor in _iterate_tensors(checkpoint)}
            with torch.inference_mode(False):  # memory that is made in it could not be written over outside
                pairs = itertools.zip_longest(tensors.values(), self.memory[: len(tensors)])
                self.memory = [_copy(*pair) for pair in pairs]
            copies = dict(zip(tensors, self.memory, strict=True))
            # deepcopy takes what its memo holds for copies already made
            memo: dict[int, Any] = {id(tensor): copies[_identify(tensor)] for tensor in _iterate_tensors(checkpoint)}
            self.content = copy.deepcopy(checkpoint, memo)
        except Exception:  # full memory, a meta tensor, an object of the user's: writing it may still work
            self.has_failed = True

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Not needed: nothing is loaded from memory."""
        raise NotImplementedError

    def remove_checkpoint(self, path: Any) -> None:
        """Not needed: there is no file."""
        raise NotImplementedError


def _copy(tensor: torch.Tensor, memory: torch.Tensor | None) -> torch.Tensor:
    if memory is not None and _form(memory) == _form(tensor) and tensor.layout is torch.strided:
        return memory.copy_(tensor)
    return tensor.to("cpu", copy=True)


def _form(tensor: torch.Tensor) -> tuple[object, ...]:
    return type(tensor), tensor.layout, tensor.dtype, tensor.shape


def _identify(tensor: torch.Tensor) -> tuple[object, ...]:
    """Return what tied tensors have in common: a state_dict holds a tensor of its own for each name of a parameter."""
    is_plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout is torch.strided
    is_lazy = is_plain and (tensor.is_conj() or tensor.is_neg() or tensor.is_quantized)  # the bytes are not all of it
    pointer = tensor.untyped_storage().data_ptr() if is_plain and not is_lazy else 0
    if not pointer:
        return (id(tensor),)
    return pointer, tensor.device, tensor.dtype, tensor.storage_offset(), tensor.shape, tensor.stride()


def _iterate_tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _iterate_tensors(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _iterate_tensors(inner)
