"""Reading the monitored metrics from a trainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer

from lightningtune.contract import Values


class MonitoredMetrics:
    """Reads the monitored metrics, and tells values that were just logged from those that Lightning keeps.

    Lightning's ``callback_metrics`` holds the last value of every metric for the whole fit. Each log makes a new
    tensor, so a value is new where its memory is not that of the value read before; that one is held here, so that its
    memory is not used again.

    Args:
        names: of the metrics.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._seen: dict[str, Any] = {}

    def old(self, trainer: Trainer) -> list[str]:
        """Return the metrics whose value the next `read` would not take for new."""
        metrics = trainer.callback_metrics
        return [name for name in self._names if not self._is_new(name, metrics.get(name))]

    def skip(self, trainer: Trainer, names: Sequence[str]) -> None:
        """Take the values that these metrics have for old."""
        metrics = trainer.callback_metrics
        self._seen = {name: metrics.get(name) for name in names}

    def read(self, trainer: Trainer) -> Values | None:
        """Return the values, the same on every rank; None where one was not logged since the last call."""
        metrics = trainer.callback_metrics
        found = [metrics.get(name) for name in self._names]
        here = all(map(self._is_new, self._names, found))
        self._seen = dict(zip(self._names, found, strict=True))
        if trainer.world_size == 1:
            return tuple(float(value) for value in found) if here else None  # type: ignore[arg-type]
        strategy = trainer.strategy
        if strategy.reduce_boolean_decision(here, all=True):
            tensor = torch.tensor([float(value) for value in found], device=strategy.root_device)  # type: ignore[arg-type]
            return tuple(strategy.reduce(tensor, reduce_op="mean").tolist())
        mine = tuple(float(value) for value in found) if here else None  # type: ignore[arg-type]
        values: Values | None = strategy.broadcast(mine)
        return values

    def _is_new(self, name: str, value: Any) -> bool:
        before = self._seen.get(name)
        if value is None or value is before:
            return False
        return not isinstance(value, torch.Tensor) or before is None or _memory(value) != _memory(before)


def _memory(value: Any) -> int:
    """Return where a tensor's memory is: Lightning hands out the same value as several tensors."""
    pointer = value.untyped_storage().data_ptr() if isinstance(value, torch.Tensor) else 0
    return pointer or id(value)  # some accelerators tell no address
