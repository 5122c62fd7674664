"""Trials in the caller's own process, and the preparation of data that all trials share."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from lightningtune.contract import Reporter, TrialOutcome, TrialSpec
from lightningtune.training.build import Blueprint
from lightningtune.training.run import release_memory, train
from lightningtune.training.shared_data import which_data
from lightningtune.workers.devices import only_rank


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


class Preparation:
    """Has the data of a study's trials prepared, once for each data that they ask for; from any thread."""

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint = blueprint
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._done: dict[str, bool] = {}

    def of(self, config: Mapping[str, Any], prepare: Callable[[], bool]) -> bool:
        """Prepare the data of a config, unless that was done; return whether the trial may leave it out."""
        if not self._blueprint.has_preparation(config):
            return False
        which = which_data(config.get("data"))
        with self._lock:
            lock = self._locks.setdefault(which, threading.Lock())
        with lock:
            if which not in self._done:
                self._done[which] = prepare()
        return self._done[which]
