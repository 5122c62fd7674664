"""A checkpoint that is held in memory until it is time to write it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.strategies import Strategy


class HeldCheckpoint:
    """What a trainer would have written, as it was then, on the CPU.

    Args:
        io: by which the trainer writes.
        memory: tensors that are not needed any more, to be written over: new memory costs more than the copy does.
    """

    def __init__(self, io: CheckpointIO, memory: Sequence[torch.Tensor] = ()) -> None:
        self._io = io
        self.memory = memory
        self.content: dict[str, Any] | None = None
        self.why_not: Exception | None = None

    def write(self, path: Path) -> None:
        """Write it; on the ranks that hold nothing, nothing."""
        if self.content is not None:
            self._io.save_checkpoint(self.content, path)


def hold(trainer: Trainer, before: HeldCheckpoint | None = None) -> HeldCheckpoint | None:
    """Take the state of a trainer's fit, on all ranks; it costs a copy of the memory, a tenth of what writing does.

    Args:
        trainer: in a fit.
        before: what has been held and is not needed any more.

    Returns:
        None where it cannot be held: a strategy writes it in its own way, sharded for example, or it cannot be copied.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, Strategy) or type(strategy).save_checkpoint is not Strategy.save_checkpoint:
        return None
    io = strategy.checkpoint_io
    held = HeldCheckpoint(io, before.memory if before is not None else ())
    strategy.checkpoint_io = _IntoMemory(held)
    try:
        trainer.save_checkpoint("memory")
    finally:
        strategy.checkpoint_io = io
    if trainer.strategy.broadcast(held.why_not is not None):
        return None
    return held


class _IntoMemory(CheckpointIO):
    """Writes into memory."""

    def __init__(self, held: HeldCheckpoint) -> None:
        self._held = held

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Copy a checkpoint, whose tensors the training will change."""
        try:
            tensors = {_place(tensor): tensor.detach() for tensor in _tensors(checkpoint)}
            with torch.inference_mode(False):  # memory made in it could not be written over outside
                pairs = itertools.zip_longest(tensors.values(), self._held.memory[: len(tensors)])
                self._held.memory = [_copy(*pair) for pair in pairs]
            copies = dict(zip(tensors, self._held.memory, strict=True))
            # a deep copy takes what it finds there for its own copies
            on_cpu: dict[int, Any] = {id(tensor): copies[_place(tensor)] for tensor in _tensors(checkpoint)}
            self._held.content = copy.deepcopy(checkpoint, on_cpu)
        except Exception as error:  # of full memory, a meta tensor, a user's object: it may be writable yet
            self._held.why_not = error

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Nothing is ever loaded from here."""
        raise NotImplementedError

    def remove_checkpoint(self, path: Any) -> None:
        """Nothing is to be removed."""


def _copy(tensor: torch.Tensor, memory: torch.Tensor | None) -> torch.Tensor:
    if memory is not None and _form(memory) == _form(tensor) and tensor.layout is torch.strided:
        return memory.copy_(tensor)
    return tensor.to("cpu", copy=True)


def _form(tensor: torch.Tensor) -> tuple[object, ...]:
    return type(tensor), tensor.layout, tensor.dtype, tensor.shape


def _place(tensor: torch.Tensor) -> tuple[object, ...]:
    """Return what tied tensors have in common, of which a state_dict holds one for each name."""
    is_plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout is torch.strided
    is_lazy = is_plain and (tensor.is_conj() or tensor.is_neg() or tensor.is_quantized)  # the bytes are not all of it
    pointer = tensor.untyped_storage().data_ptr() if is_plain and not is_lazy else 0
    if not pointer:
        return (id(tensor),)
    return pointer, tensor.device, tensor.dtype, tensor.storage_offset(), tensor.shape, tensor.stride()


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _tensors(inner)
