"""What is said of a metric that is not there: why it is not, what is there, and what is near."""

from __future__ import annotations

import logging
import re

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightningtune.errors import MetricError, did_you_mean

log = logging.getLogger(__name__)

_CONDITIONED = re.compile(r"conditioned on metric `?(\S+?)`? which is not available")
_NOTICED: set[str] = set()
"""The metrics that were waited for: one notice for each will do."""


def why_never_validated(trainer: Trainer) -> str | None:
    """Say why a fit does not validate, or return None where it does so at some time."""
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


def missing(trainer: Trainer, names: tuple[str, ...]) -> MetricError:
    """Return what to raise where a monitored metric is not there, and will not come."""
    name, logged, hint = _facts(trainer, names)
    why = why_never_validated(trainer)
    if why is None:
        return MetricError(f"The metric '{name}' was not logged. Logged: {logged}.{hint}")
    return MetricError(f"No validation ran ({why}), so '{name}' has no value. Training logged: {logged}.{hint}")


def is_waited_for(error: Exception, names: tuple[str, ...]) -> bool:
    """Whether an error is Lightning's own for an early stopping or a scheduler that one of these metrics decides.

    Example:
        >>> said = "Early stopping conditioned on metric `val_acc` which is not available. Pass in or modify ..."
        >>> is_waited_for(RuntimeError(said), ("val_acc",)), is_waited_for(RuntimeError(said), ("val_loss",))
        (True, False)
    """
    found = _CONDITIONED.search(str(error))
    return found is not None and found[1] in names


def notice_missing(trainer: Trainer, names: tuple[str, ...]) -> None:
    """Tell of a metric that is not there after a validation within an epoch: training may log it at the epoch's end."""
    name, logged, hint = _facts(trainer, names)
    if name not in _NOTICED:
        _NOTICED.add(name)
        log.warning("No '%s' so far; this training epoch has to log it. Logged: %s.%s", name, logged, hint)


def _facts(trainer: Trainer, names: tuple[str, ...]) -> tuple[str, str, str]:
    logged = sorted(trainer.callback_metrics)
    name = next((name for name in names if name not in logged), names[0])  # there, it may be another rank's
    return name, ", ".join(logged) or "nothing", did_you_mean(name, logged)
