"""Trials in the caller's own process: debuggers, closures and notebooks work as they are."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

import torch

from lightningtune.contract import Reporter, TrialOutcome, TrialSpec
from lightningtune.training.build import Blueprint
from lightningtune.training.run import release_memory, train
from lightningtune.workers.ranks import only_rank


def run_inline(spec: TrialSpec, blueprint: Blueprint, reporter: Reporter) -> TrialOutcome:
    """Train one trial here, in the memory that the one before it has given back."""
    release_memory()
    with only_rank():
        return train(spec, blueprint, reporter)


@contextlib.contextmanager
def frozen_heap() -> Iterator[None]:
    """Keep the garbage collector from walking what was there before: after torch that costs 190 ms, else under 1.

    Garbage that was there before waits for the end too, unless it may hold an accelerator's memory.
    """
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        release_memory()
    gc.freeze()
    try:
        yield
    finally:
        release_memory()
        gc.unfreeze()
