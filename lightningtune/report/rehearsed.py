"""What a rehearsal has shown, as plain data, and what a whole trial comes to by it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lightningtune.contract import TrialOutcome


@dataclass(frozen=True)
class Noted:
    """What was noted of one epoch of two batches.

    Attributes:
        metrics: what was logged, by name.
        losses: of the training batches.
        train_lengths: batches of each dataloader to train on, where it tells.
        val_lengths: the same to validate on; empty where no validation ran.
        train_seconds: of the second training batch, with loading it; of the first where there was no other.
        val_seconds: the same of validation.
        checkpoint: bytes; None where none is written.
        limits: the trainer's own ``max_epochs`` and ``max_steps``, wherever they are from.
        device_total: bytes of memory that the accelerator has.
        marks: what tells this training from another, part by part.
        overhead: seconds that noting took.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    losses: Sequence[float] = ()
    train_lengths: Sequence[int | None] = ()
    val_lengths: Sequence[int | None] = ()
    train_seconds: float | None = None
    val_seconds: float | None = None
    checkpoint: int | None = None
    limits: Mapping[str, int | None] = field(default_factory=dict)
    device_total: int | None = None
    marks: Mapping[str, str] = field(default_factory=dict)
    overhead: float = 0.0

    @property
    def identity(self) -> str:
        """All that depends on what was computed; equal for two trainings that were the same to the last bit."""
        seen = (dict(self.metrics), list(self.losses), list(self.train_lengths), list(self.val_lengths))
        return repr((seen, dict(self.marks)))


def read_noted(path: Path) -> Noted | None:
    """Read what a rehearsal has written; None where it has not come so far."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return Noted(**{one.name: found[one.name] for one in fields(Noted)})


@dataclass(frozen=True)
class Rehearsed:
    """One rehearsal.

    Attributes:
        name: of the point that was tried.
        values: its parameters; those alone that differ from the base, where there is one.
        outcome: how it ended.
        noted: what was noted; None where it has not come so far.
        parameter: the only parameter in which it differs from the base.
        base: the name of the rehearsal that it differs from.
        is_visible: whether the two had different configs.
        trainer: the settings of the trainer that a trial there would have.
    """

    name: str
    values: Mapping[str, Any]
    outcome: TrialOutcome
    noted: Noted | None = None
    parameter: str | None = None
    base: str | None = None
    is_visible: bool = True
    trainer: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Length:
    """How long a trial is; None where that cannot be told.

    Attributes:
        epochs: that it trains, possibly a fraction.
        batches: of one epoch.
        total: training batches in all.
        val_batches: of one validation.
        validations: how many there are.
    """

    epochs: float | None
    batches: int | None
    total: float | None
    val_batches: int | None
    validations: int | None


def length_of(trainer: Mapping[str, Any], train: Sequence[int | None], val: Sequence[int | None]) -> Length:
    """Tell how long a trial is from its trainer's section and its dataloaders.

    Args:
        trainer: the section.
        train: batches of each dataloader that is trained on.
        val: the same for validation; empty where there is none.

    Example:
        >>> length_of({"max_epochs": 10, "val_check_interval": 0.5}, [100], [20])
        Length(epochs=10, batches=100, total=1000, val_batches=20, validations=20)
    """
    lengths = [_limited(length, trainer.get("limit_train_batches")) for length in train]
    known = [length for length in lengths if length is not None]
    batches = max(known) if known and len(known) == len(lengths) else None
    max_epochs, max_steps = trainer.get("max_epochs"), trainer.get("max_steps")
    steps: int | None = max_steps if isinstance(max_steps, int) and max_steps >= 0 else None
    if max_epochs is None:
        max_epochs = -1 if steps is not None or trainer.get("max_time") is not None else 1000
    epochs = float(max_epochs) if max_epochs >= 0 else math.inf
    if steps is not None and batches:
        accumulated = trainer.get("accumulate_grad_batches") or 1
        epochs = min(epochs, steps / math.ceil(batches / accumulated))
    val_lengths = [_limited(length, trainer.get("limit_val_batches")) for length in val]
    is_known = None not in val_lengths
    return Length(
        epochs=_whole(epochs),
        batches=batches,
        total=None if batches is None else _whole(epochs * batches),
        val_batches=sum(length or 0 for length in val_lengths) if is_known else None,
        validations=_validations(trainer, epochs, batches) if val else None,
    )


def _limited(length: int | None, limit: Any) -> int | None:
    if isinstance(limit, int) and not isinstance(limit, bool):
        return limit if length is None else min(length, limit)
    if isinstance(limit, float) and length is not None:
        return int(length * limit)
    return length


def _whole(number: float) -> float | int | None:
    if math.isinf(number):
        return None
    return int(number) if number == int(number) else number


def _validations(trainer: Mapping[str, Any], epochs: float, batches: int | None) -> int | None:
    every: int | None = trainer.get("check_val_every_n_epoch", 1)
    interval: Any = trainer.get("val_check_interval") or 1.0
    if math.isinf(epochs) or not isinstance(interval, (int, float)):  # the interval may be a time
        return None
    if isinstance(interval, float) and interval == 1.0 and every is not None:
        return int(epochs) // every
    if not batches:
        return None
    each: int = interval if isinstance(interval, int) else max(1, int(batches * interval))
    if every is None:
        return int(epochs * batches) // each
    whole, rest = divmod(epochs, 1)
    in_rest = int(rest * batches) // each if (whole + 1) % every == 0 else 0
    return int(whole) // every * (batches // each) + in_rest


def seconds_of(rehearsed: Rehearsed) -> float | None:
    """Return the seconds of a whole trial at this point, without pruning; None where that cannot be told."""
    noted = rehearsed.noted
    if noted is None or noted.train_seconds is None:
        return None
    length = length_of(rehearsed.trainer, noted.train_lengths, noted.val_lengths)
    if length.total is None:
        return None
    validating = 0.0
    once = rehearsed.outcome.duration - noted.overhead - len(noted.losses) * noted.train_seconds
    if noted.val_seconds is not None:
        if length.validations is None or length.val_batches is None:
            return None
        validating = length.validations * length.val_batches * noted.val_seconds
        once -= 2 * noted.val_seconds
    return max(once, 0.0) + length.total * noted.train_seconds + validating
