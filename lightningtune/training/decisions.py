"""The decisions of one trial as pure functions: what its score is, and whether there is anything left to save."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightningtune.contract import Mode, Objective, ScorePolicy, Values


@dataclass(frozen=True)
class Progress:
    """Where a fit stands at the end of a validation; counts of batches are infinite where they are unknown.

    Attributes:
        epoch: the current epoch, 0-based.
        max_epochs: how many there will be; infinite when only steps are bounded.
        batch: how many training batches of this epoch are done.
        batches: how many an epoch has.
        steps_left: optimizer steps until ``max_steps``; infinite when only epochs are bounded.
        batches_per_step: gradient accumulation; the last batch of an epoch is always a step.
        interval: batches between two validations.
        every_n_epochs: epochs between two epochs that validate; None when the interval runs across epochs.
    """

    epoch: int
    max_epochs: float
    batch: int
    batches: float
    steps_left: float
    batches_per_step: int
    interval: float
    every_n_epochs: int | None

    @property
    def batches_left(self) -> float:
        """Training batches until the fit ends by itself."""
        whole_epochs = self.max_epochs - self.epoch - 1
        by_epochs = (self.batches - self.batch) + (whole_epochs * self.batches if whole_epochs else 0)
        return min(by_epochs, self._batches_to_last_step)

    @property
    def _batches_to_last_step(self) -> float:
        if math.isinf(self.steps_left):
            return math.inf
        per_epoch = math.inf if math.isinf(self.batches) else math.ceil(self.batches / self.batches_per_step)
        done = per_epoch if self.batch == self.batches else self.batch // self.batches_per_step
        epochs, steps = divmod(done + self.steps_left, per_epoch)
        return (epochs * self.batches if epochs else 0) + steps * self.batches_per_step - self.batch

    @property
    def batches_to_next_validation(self) -> float:
        """Training batches until the next validation, were the fit to go on for ever."""
        if self.every_n_epochs is None:
            return self.interval
        validates = (self.epoch + 1) % self.every_n_epochs == 0
        if validates and self.batch + self.interval <= self.batches:
            return self.interval
        skipped = self.every_n_epochs - (self.epoch + 1) % self.every_n_epochs - 1
        between = skipped * self.batches if skipped else 0
        return (self.batches - self.batch) + between + min(self.interval, self.batches)

    @property
    def is_last_validation(self) -> bool:
        """Whether no validation will follow.

        Example:
            >>> Progress(4, 5, 10, 10, math.inf, 1, 10, 1).is_last_validation
            True
        """
        return self.batches_to_next_validation > self.batches_left


def best_index(history: Sequence[Values], mode: Mode) -> int | None:
    """Return the position of the best first value, the earliest of equals; None where none is finite.

    Example:
        >>> best_index([(3.0,), (1.0,), (-math.inf,), (1.0,)], "min")
        1
    """
    sign = 1 if mode == "min" else -1
    ranked = [(sign * values[0], i) for i, values in enumerate(history) if math.isfinite(values[0])]
    return min(ranked)[1] if ranked else None


def score_of(history: Sequence[Values], objective: Objective) -> Values:
    """Reduce all values of a trial to its score.

    With several metrics, the best score is all values of the validation at which the first metric was best, so that
    they belong to one model.

    Args:
        history: one tuple of values for each validation; not empty.
        objective: holds the modes and the policy.

    Example:
        >>> score_of([(3.0,), (1.0,), (2.0,)], Objective(("val_loss",), ("min",)))
        (1.0,)
    """
    policy: ScorePolicy = objective.score
    if policy == "last":
        return history[-1]
    if policy == "best":
        best = best_index(history, objective.mode[0])
        return history[-1 if best is None else best]
    assert callable(policy)
    single = len(objective.monitor) == 1
    result: Any = policy([values[0] for values in history] if single else list(history))
    return (float(result),) if single else tuple(float(value) for value in result)


def non_finite(names: Sequence[str], values: Values) -> str | None:
    """Name the first value that is NaN or infinite.

    Example:
        >>> non_finite(["val_loss"], (math.inf,))
        'val_loss is inf'
    """
    return next((f"{n} is {v}" for n, v in zip(names, values, strict=True) if not math.isfinite(v)), None)
