"""Which hosts may be at work on a study, asked from outside: by whoever wants to remove it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import optuna
from optuna.trial import TrialState

from lightningtune.study.identity import WORKER, Worker, is_dead, read_worker
from lightningtune.study.liveness import HOST, RENEWAL, word_of

_LONGER = 1.5
"""How much longer than `RENEWAL` a word is looked at: a host may be a little late."""


def living_hosts(study: optuna.Study) -> list[Worker]:
    """Return the processes of this machine that live and have worked on a study, this one left out."""
    return [worker for worker in _hosts(study) if is_dead(worker) is False and worker != Worker.this()]


def distant_hosts(study: optuna.Study) -> list[Worker]:
    """Return the processes that have worked on a study, and of which this machine does not know whether they live."""
    return [worker for worker in _hosts(study) if is_dead(worker) is None]


def give_signs(
    study: optuna.Study,
    workers: list[Worker],
    seconds: float = _LONGER * RENEWAL,
    wait: Callable[[float], Any] = time.sleep,
) -> list[Worker]:
    """Look at processes of other machines for a while, and return those that have given a sign of life.

    Args:
        study: the study.
        workers: the processes.
        seconds: for how long; each changes its word every `RENEWAL` seconds.
        wait: waits.
    """
    before = study.user_attrs
    left = seconds
    while left > 0:
        pause = min(1.0, left)
        wait(pause)
        left -= pause
        now = study.user_attrs
        moved = [worker for worker in workers if now.get(word_of(worker)) != before.get(word_of(worker))]
        if moved:
            return moved
    return []


def _hosts(study: optuna.Study) -> list[Worker]:
    """Return all processes that have said that they work on a study, or hold a trial of it."""
    said = [value for name, value in study.user_attrs.items() if name.startswith(HOST)]
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    said += [trial.user_attrs[WORKER] for trial in running if WORKER in trial.user_attrs]
    return list(dict.fromkeys(worker for value in said if (worker := read_worker(value)) is not None))
