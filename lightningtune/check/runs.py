"""What a dry run noted, as plain data, and the length and time of a whole trial that follow from it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lightningtune.contract import TrialOutcome


@dataclass(frozen=True)
class DryRunNotes:
    """What a dry run noted of one epoch.

    Attributes:
        metrics: what was logged, by name.
        losses: of the training batches.
        train_batches: of an epoch of a trial; None where the dataloaders do not tell.
        val_batches: of one validation of a trial, over all dataloaders; None where they do not tell.
        train_seconds: of each training batch, with loading it.
        val_seconds: of each validation batch; empty where no validation ran.
        checkpoint: bytes; None where none is written.
        limits: the trainer's own ``max_epochs`` and ``max_steps``, wherever they are from.
        device_total: bytes of memory that the accelerator has.
        marks: what tells this training from another, part by part.
        overhead: seconds that noting took.
        is_whole: whether the epoch was trained to its end.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    losses: Sequence[float] = ()
    train_batches: int | None = None
    val_batches: int | None = None
    train_seconds: Sequence[float] = ()
    val_seconds: Sequence[float] = ()
    checkpoint: int | None = None
    limits: Mapping[str, int | None] = field(default_factory=dict)
    device_total: int | None = None
    marks: Mapping[str, str] = field(default_factory=dict)
    overhead: float = 0.0
    is_whole: bool = False

    @property
    def identity(self) -> str:
        """All that depends on what was computed; equal for two trainings that were the same to the last bit."""
        seen = (dict(self.metrics), list(self.losses), self.train_batches, self.val_batches)
        return repr((seen, dict(self.marks)))

    @property
    def seconds_each(self) -> tuple[float | None, float | None]:
        """The seconds of a training batch and of a validation batch: the second of each, since the first warms up."""
        return _second(self.train_seconds), _second(self.val_seconds)


def _second(seconds: Sequence[float]) -> float | None:
    return seconds[:2][-1] if seconds else None


def read_dry_run_notes(path: Path) -> DryRunNotes | None:
    """Read what a dry run wrote; None where it did not get that far."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return DryRunNotes(**{one.name: found[one.name] for one in fields(DryRunNotes)})


@dataclass(frozen=True)
class TriedPoint:
    """A point of the space that was tried.

    Attributes:
        name: of the point.
        values: its parameters; those alone that differ from the base, where there is one.
        outcome: how the dry run ended.
        noted: what was noted; None where it did not get that far.
        parameter: the only parameter in which it differs from the base.
        base: the name of the point that it differs from.
        is_visible: whether the two had different configs.
        trainer: the settings of the trainer that a trial there would have.
        is_in_doubt: whether a trial, which is longer, need not fail as the dry run did.
    """

    name: str
    values: Mapping[str, Any]
    outcome: TrialOutcome
    noted: DryRunNotes | None = None
    parameter: str | None = None
    base: str | None = None
    is_visible: bool = True
    trainer: Mapping[str, Any] = field(default_factory=dict)
    is_in_doubt: bool = False


@dataclass(frozen=True)
class Length:
    """How long a trial is; None where that cannot be told.

    Attributes:
        epochs: that it trains, possibly a fraction.
        batches: of one epoch.
        total: training batches in all.
        val_batches: of one validation.
        validations: how many there are; of a model without any, how many epochs, after which it is then judged.
        moment: "validation" or "epoch", accordingly.
    """

    epochs: float | None
    batches: int | None
    total: float | None
    val_batches: int | None
    validations: int | None
    moment: str = "validation"


def length_of(trainer: Mapping[str, Any], noted: DryRunNotes) -> Length:
    """Tell how long a trial is from its trainer's section and its numbers of batches.

    Example:
        >>> length_of({"max_epochs": 10, "val_check_interval": 0.5}, DryRunNotes(train_batches=100, val_batches=20))
        Length(epochs=10, batches=100, total=1000, val_batches=20, validations=20, moment='validation')
    """
    batches = noted.train_batches
    max_epochs, max_steps = trainer.get("max_epochs"), trainer.get("max_steps")
    steps: int | None = max_steps if isinstance(max_steps, int) and max_steps >= 0 else None
    if max_epochs is None:
        max_epochs = -1 if steps is not None or trainer.get("max_time") is not None else 1000
    epochs = float(max_epochs) if max_epochs >= 0 else math.inf
    if steps is not None and batches:
        accumulated = trainer.get("accumulate_grad_batches") or 1
        epochs = min(epochs, steps / math.ceil(batches / accumulated))
    validates = noted.val_batches != 0
    if validates:
        validations = _validations(trainer, epochs, batches)
    else:
        validations = None if math.isinf(epochs) else math.ceil(epochs)
    return Length(
        epochs=_whole(epochs),
        batches=batches,
        total=None if batches is None else _whole(epochs * batches),
        val_batches=noted.val_batches,
        validations=validations,
        moment="validation" if validates else "epoch",
    )


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


def extent_of(runs: Sequence[TriedPoint]) -> str:
    """Say how long the runs were."""
    return "one epoch" if any(run.noted is not None and run.noted.is_whole for run in runs) else "two batches"


def seconds_of(tried: TriedPoint) -> float | None:
    """Return the seconds of a whole trial at this point, without pruning; None where that cannot be told."""
    noted = tried.noted
    train_seconds, val_seconds = noted.seconds_each if noted is not None else (None, None)
    if noted is None or train_seconds is None:
        return None
    length = length_of(tried.trainer, noted)
    if length.total is None:
        return None
    validating = 0.0
    if val_seconds is not None:
        if length.validations is None or length.val_batches is None:
            return None
        validating = length.validations * length.val_batches * val_seconds
    once = tried.outcome.duration - noted.overhead
    once -= len(noted.train_seconds) * train_seconds + len(noted.val_seconds) * (val_seconds or 0.0)
    return max(once, 0.0) + length.total * train_seconds + validating
