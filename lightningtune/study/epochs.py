"""What a trial's validations and files say of how long it has trained, where it could not say so itself."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from lightningtune.errors import InvalidConfigError
from lightningtune.files import read_mapping
from lightningtune.study.directory import StudyDirectory


def trainer_section(directory: StudyDirectory, number: int) -> Mapping[str, Any]:
    """Return what the config of a trial says of its Trainer; nothing where it cannot be read."""
    try:
        section = read_mapping(directory.config(number)).get("trainer")
    except InvalidConfigError:  # it has not been written yet, or the study has no folder here
        return {}
    return section if isinstance(section, Mapping) else {}


def last_sign(directory: StudyDirectory, number: int) -> float | None:
    """Return when a trial has last written a file of its training, in seconds since 1970; None where it has none."""
    times = []
    for name in ("config.yaml", "metrics.csv", "last.ckpt", "best.ckpt"):
        with contextlib.suppress(OSError):
            times.append((directory.trial(number) / name).stat().st_mtime)
    return max(times, default=None)


def epochs_in(validations: int, trainer: Mapping[str, Any]) -> int | None:
    """Return how many epochs so many validations are; None where validations are not at the end of epochs.

    Args:
        validations: of one trial.
        trainer: that section of its config, which says when it validates.

    Example:
        >>> epochs_in(3, {"max_epochs": 20, "check_val_every_n_epoch": 2}), epochs_in(3, {"val_check_interval": 0.25})
        (None, None)
    """
    # an interval of 1 is a batch, and one of 1.0 an epoch; with several epochs between, training may report, too
    interval, limit = trainer.get("val_check_interval"), max_epochs_of(trainer)
    is_whole = interval is None or (isinstance(interval, float) and interval == 1.0)
    if not trainer or not is_whole or trainer.get("check_val_every_n_epoch", 1) != 1:
        return None
    return validations if limit is None or validations <= limit else None


def max_epochs_of(trainer: Mapping[str, Any]) -> int | None:
    """Return to how many epochs a trial is trained; None where its config does not say.

    Args:
        trainer: that section of the config.
    """
    limit = trainer.get("max_epochs")
    return limit if isinstance(limit, int) and limit > 0 else None
