"""The monitored metrics: read them from a trainer, reduce them to a score, and explain one that is missing."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightningtune.contract import Mode, Objective, Values
from lightningtune.errors import MetricError, did_you_mean


class MonitoredMetrics:
    """Reads the monitored metrics, and knows which values were logged since the last `read`.

    Lightning's ``callback_metrics`` keeps the last value of every metric for the whole fit. Each log makes a new
    tensor. So a value is new if its memory is not that of the value read before, which is held here so that its memory
    is not used again.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._seen: dict[str, Any] = {}

    def list_old(self, trainer: Trainer) -> list[str]:
        """Return the metrics whose value the next `read` would not take for new."""
        metrics = trainer.callback_metrics
        return [name for name in self._names if not self._is_new(name, metrics.get(name))]

    def mark_old(self, trainer: Trainer, names: Sequence[str]) -> None:
        """Take the current values of these metrics for old."""
        self._seen = {name: trainer.callback_metrics.get(name) for name in names}

    def read(self, trainer: Trainer) -> Values | None:
        """Return the values, the same on every rank; None where one was not logged since the last call."""
        found: list[Any] = [trainer.callback_metrics.get(name) for name in self._names]
        is_logged = all(map(self._is_new, self._names, found))
        self._seen = dict(zip(self._names, found, strict=True))
        mine = tuple(map(float, found)) if is_logged else None
        if trainer.world_size == 1:
            return mine
        strategy = trainer.strategy
        if strategy.reduce_boolean_decision(is_logged, all=True):
            values = strategy.reduce(torch.tensor(mine, device=strategy.root_device), reduce_op="mean")
            return tuple(values.tolist())
        from_rank_0: Values | None = strategy.broadcast(mine)
        return from_rank_0

    def _is_new(self, name: str, value: Any) -> bool:
        before = self._seen.get(name)
        if value is None or value is before:
            return False
        return not isinstance(value, torch.Tensor) or before is None or _get_address(value) != _get_address(before)


def _get_address(value: Any) -> int:
    """Return where a tensor's memory is: Lightning hands out the same value as several tensors."""
    pointer = value.untyped_storage().data_ptr() if isinstance(value, torch.Tensor) else 0
    return pointer or id(value)  # some accelerators tell no address


def best_index(history: Sequence[Values], mode: Mode) -> int | None:
    """Return the position of the best first value, the earliest of equals; None where none is finite.

    Example:
        >>> best_index([(3.0,), (1.0,), (-math.inf,), (1.0,)], "min")
        1
    """
    sign = 1 if mode == "min" else -1
    ranked = [(sign * values[0], i) for i, values in enumerate(history) if math.isfinite(values[0])]
    return min(ranked)[1] if ranked else None


def reduce_to_score(history: Sequence[Values], objective: Objective) -> Values:
    """Reduce all values of a trial, of which there is at least one, to its score.

    With several metrics, the best score is all values of the validation at which the first metric was best, so that
    they belong to one model.

    Example:
        >>> reduce_to_score([(3.0,), (1.0,), (2.0,)], Objective(("val_loss",), ("min",)))
        (1.0,)
    """
    if objective.score == "last":
        return history[-1]
    if objective.score == "best":
        best = best_index(history, objective.mode[0])
        return history[-1 if best is None else best]
    assert callable(objective.score)
    if len(objective.monitor) == 1:
        return (float(objective.score([values[0] for values in history])),)
    return tuple(float(value) for value in objective.score(list(history)))


def describe_non_finite(names: Sequence[str], values: Values) -> str | None:
    """Name the first value that is NaN or infinite, as in "val_loss is inf"."""
    return next((f"{n} is {v}" for n, v in zip(names, values, strict=True) if not math.isfinite(v)), None)


# A metric that is missing

_NEEDED = (
    re.compile(r"conditioned on metric `?(\S+?)`? which is not available"),
    re.compile(r"`ModelCheckpoint\(monitor='(.+?)'\)` could not find the monitored key"),
)
_OF_VALIDATION = re.compile(r"val(id(ation)?)?([^a-z]|$)", re.IGNORECASE)


def why_never_validated(trainer: Trainer) -> str | None:
    """Say why a fit never validates; None where it does."""
    model, every, epochs = trainer.lightning_module, trainer.check_val_every_n_epoch, trainer.max_epochs
    if not trainer.limit_val_batches:
        return "limit_val_batches is 0"
    if not is_overridden("validation_step", model):
        return f"{type(model).__name__} has no validation_step"
    if not trainer.enable_validation:
        return "there is no dataloader for it"
    if every is not None and epochs is not None and 0 <= epochs < every:
        return f"check_val_every_n_epoch={every} is more than max_epochs={epochs}"
    return None


def missing_metric_error(trainer: Trainer, names: tuple[str, ...]) -> MetricError:
    """Return what to raise where a monitored metric has no value, and none will come."""
    name, logged, hint = _describe_logged(trainer, names)
    why = why_never_validated(trainer)
    if why is not None:
        return MetricError(f"No validation ran ({why}), so '{name}' has no value. Training logged: {logged}.{hint}")
    if len(names) > 1 and all(each in trainer.callback_metrics for each in names):
        return MetricError(
            f"No validation logged all of {', '.join(names)}, so this trial has no value: the metrics of one trial "
            "must come from the same validation."
        )
    return MetricError(f"The metric '{name}' was not logged. Logged: {logged}.{hint}")


def missing_metric_notice(trainer: Trainer, names: tuple[str, ...]) -> str:
    """Return what to tell a person of a metric that the first validation, or training epoch, has not logged."""
    name, logged, hint = _describe_logged(trainer, names)
    moment = "validation" if why_never_validated(trainer) is None else "training epoch"
    return (
        f"'{name}' was not logged by the first {moment}. Logged: {logged}.{hint} A later one may log it: "
        "the trial goes on, and fails at its end if none does."
    )


def cannot_come(trainer: Trainer, names: tuple[str, ...]) -> bool:
    """Whether it is sure, after one epoch, that a metric without a value will not get one.

    That is so where its name differs from a logged one in case and punctuation only, and where the name says that it
    is of validation in a fit that never validates. Any other name may be logged by a later validation or epoch.
    """
    if why_never_validated(trainer) is not None and any(map(_OF_VALIDATION.match, names)):
        return True
    logged = {_letters(name): name for name in trainer.callback_metrics}
    return any(logged.get(_letters(name), name) != name for name in names)


def find_missing_metric(error: BaseException) -> str | None:
    """Return the missing metric that Lightning's own error names; None for any other error."""
    found = next((match for pattern in _NEEDED if (match := pattern.search(str(error)))), None)
    return None if found is None else found[1]


def _describe_logged(trainer: Trainer, names: tuple[str, ...]) -> tuple[str, str, str]:
    logged = sorted(trainer.callback_metrics)
    # where this rank has logged all of them, it is another rank that has not: name the first
    name = next((name for name in names if name not in logged), names[0])
    return name, ", ".join(logged) or "nothing", did_you_mean(name, logged)


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()
