"""Study callbacks of optuna-integration, which tell a tracker of each trial: one that fails ends no study."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import optuna

from lightningtune.errors import redact

log = logging.getLogger(__name__)


def without_failures(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Return a callback of optuna-integration's that does not raise; any other as it is, for it may mean to.

    Args:
        callback: of a class of its own or of a user's subclass; is called with the study and a trial.

    Example:
        >>> without_failures(print) is print
        True
    """
    is_tracker = any(base.__module__.partition(".")[0] == "optuna_integration" for base in type(callback).__mro__)
    return _Caught(callback) if is_tracker else callback


class _Caught:
    def __init__(self, callback: Callable[..., Any]) -> None:
        self._callback = callback
        self._has_told = False

    def __call__(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        try:
            self._callback(study, trial)
        except Exception as error:  # a tracker, its server and the network may fail in any way
            name = type(self._callback).__name__
            text = "%s failed for trial %d: %s: %s. The study goes on, and nothing more is said of it."
            if not self._has_told:
                self._has_told = True
                log.warning(text, name, trial.number, type(error).__name__, redact(" ".join(str(error).split())))
