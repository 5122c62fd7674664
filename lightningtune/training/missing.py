"""What is said of a metric that is not there: why it is not, what is there, and what is near."""

from __future__ import annotations

import re

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightningtune.errors import MetricError, did_you_mean

_CONDITIONED = re.compile(r"conditioned on metric `?(\S+?)`? which is not available")
_OF_VALIDATION = re.compile(r"val(id(ation)?)?([^a-z]|$)", re.IGNORECASE)


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
    """Return what to raise where a monitored metric has no value, and none will come."""
    name, logged, hint = _facts(trainer, names)
    why = why_never_validated(trainer)
    if why is not None:
        return MetricError(f"No validation ran ({why}), so '{name}' has no value. Training logged: {logged}.{hint}")
    if len(names) > 1 and all(each in trainer.callback_metrics for each in names):
        return MetricError(
            f"No validation logged all of {', '.join(names)}, so this trial has no value: the metrics of one trial "
            "must come from the same validation."
        )
    return MetricError(f"The metric '{name}' was not logged. Logged: {logged}.{hint}")


def cannot_come(trainer: Trainer, names: tuple[str, ...]) -> bool:
    """Whether it is sure, after one epoch, that a metric without a value will not get one.

    That is so where its name differs from a logged one in case and punctuation only, and where the name says that it
    is of validation in a fit that never validates. Any other name may be logged by a later validation or epoch.
    """
    if why_never_validated(trainer) is not None and any(map(_OF_VALIDATION.match, names)):
        return True
    logged = {_letters(name): name for name in trainer.callback_metrics}
    return any(logged.get(_letters(name), name) != name for name in names)


def not_yet_logged(trainer: Trainer, names: tuple[str, ...]) -> str:
    """Return a notice about a metric that the first validation, or training epoch, has not logged."""
    name, logged, hint = _facts(trainer, names)
    moment = "validation" if why_never_validated(trainer) is None else "training epoch"
    return (
        f"'{name}' was not logged by the first {moment}. Logged: {logged}.{hint} A later one may log it: "
        "the trial goes on, and fails at its end if none does."
    )


def is_waited_for(error: Exception, names: tuple[str, ...]) -> bool:
    """Whether an error is Lightning's own for an early stopping or a scheduler that one of these metrics decides.

    Example:
        >>> said = "Early stopping conditioned on metric `val_acc` which is not available. Pass in or modify ..."
        >>> is_waited_for(RuntimeError(said), ("val_acc",)), is_waited_for(RuntimeError(said), ("val_loss",))
        (True, False)
    """
    found = _CONDITIONED.search(str(error))
    return found is not None and found[1] in names


def _facts(trainer: Trainer, names: tuple[str, ...]) -> tuple[str, str, str]:
    logged = sorted(trainer.callback_metrics)
    name = next((name for name in names if name not in logged), names[0])  # there, it may be another rank's
    return name, ", ".join(logged) or "nothing", did_you_mean(name, logged)


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()
