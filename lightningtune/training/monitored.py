"""Reading the monitored metrics from a trainer."""

from __future__ import annotations

import torch
from lightning.pytorch import Trainer

from lightningtune.contract import Values


def read_values(trainer: Trainer, names: tuple[str, ...]) -> Values | None:
    """Return the monitored values, the same on every rank, or None where one is missing."""
    metrics = trainer.callback_metrics
    found = [metrics.get(name) for name in names]
    here = all(value is not None for value in found)
    if trainer.world_size == 1:
        return tuple(float(value) for value in found) if here else None  # type: ignore[arg-type]
    strategy = trainer.strategy
    if strategy.reduce_boolean_decision(here, all=True):
        tensor = torch.tensor([float(value) for value in found], device=strategy.root_device)  # type: ignore[arg-type]
        return tuple(strategy.reduce(tensor, reduce_op="mean").tolist())
    mine = tuple(float(value) for value in found) if here else None  # type: ignore[arg-type]
    values: Values | None = strategy.broadcast(mine)
    return values
