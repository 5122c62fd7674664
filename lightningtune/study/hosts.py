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


def busy_hosts(study: optuna.Study) -> list[Worker]:
    """Return the processes of this machine that live, and hold a trial of a study that runs."""
    return [worker for worker in dict.fromkeys(_holders(study)) if is_dead(worker) is False]


def idle_hosts(study: optuna.Study) -> list[Worker]:
    """Return the processes that have worked on a study, may live, and of which nobody knows whether they still do so.

    A notebook lives on when its study has ended; of a process of another machine not even that is known.
    """
    said = [value for name, value in study.user_attrs.items() if name.startswith(HOST)]
    known = [*_read(said), *_holders(study)]
    return [worker for worker in dict.fromkeys(known) if not is_dead(worker) and worker != Worker.this()]


def give_signs(
    study: optuna.Study,
    workers: list[Worker],
    seconds: float = _LONGER * RENEWAL,
    wait: Callable[[float], Any] = time.sleep,
) -> list[Worker]:
    """Look at processes for a while, and return those that have given a sign of life.

    Args:
        study: the study.
        workers: the processes.
        seconds: for how long; each changes its word every `RENEWAL` seconds.
        wait: waits.
    """
    before = study.user_attrs
    left = seconds if workers else 0.0
    while left > 0:
        pause = min(1.0, left)
        wait(pause)
        left -= pause
        now = study.user_attrs
        moved = [worker for worker in workers if now.get(word_of(worker)) != before.get(word_of(worker))]
        if moved:
            return moved
    return []


def _holders(study: optuna.Study) -> list[Worker]:
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return _read([trial.user_attrs.get(WORKER) for trial in running])


def _read(stored: list[Any]) -> list[Worker]:
    return [worker for value in stored if (worker := read_worker(value)) is not None]
