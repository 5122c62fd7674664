"""How long a trial trained, from its files and validations, where it could not record it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from lightningtune.errors import InvalidConfigError
from lightningtune.files import read_mapping
from lightningtune.study.directory import StudyDirectory


def trainer_section(directory: StudyDirectory, number: int) -> Mapping[str, Any]:
    """Return the trainer section of a trial's config; empty where it cannot be read."""
    try:
        section = read_mapping(directory.config(number)).get("trainer")
    except InvalidConfigError:  # not written yet, or the folder is on another machine
        return {}
    return section if isinstance(section, Mapping) else {}


def last_sign(directory: StudyDirectory, number: int) -> float | None:
    """Return when a trial last wrote a file, in seconds since 1970; None without any file."""
    times = []
    for name in ("config.yaml", "metrics.csv", "last.ckpt", "best.ckpt"):
        with contextlib.suppress(OSError):
            times.append((directory.trial(number) / name).stat().st_mtime)
    return max(times, default=None)


def epochs_in(validations: int, trainer: Mapping[str, Any]) -> int | None:
    """Return how many epochs have that many validations; None unless each epoch ends with one.

    Example:
        >>> epochs_in(3, {"max_epochs": 20, "check_val_every_n_epoch": 2}), epochs_in(3, {"val_check_interval": 0.25})
        (None, None)
    """
    # 1 means each batch and 1.0 each epoch; with several epochs between validations, training may report too
    interval, limit = trainer.get("val_check_interval"), max_epochs_of(trainer)
    is_whole = interval is None or (isinstance(interval, float) and interval == 1.0)
    if not trainer or not is_whole or trainer.get("check_val_every_n_epoch", 1) != 1:
        return None
    return validations if limit is None or validations <= limit else None


def max_epochs_of(trainer: Mapping[str, Any]) -> int | None:
    """Return the limit of epochs; None where the config has none."""
    limit = trainer.get("max_epochs")
    return limit if isinstance(limit, int) and limit > 0 else None
