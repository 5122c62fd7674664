"""Ask for trials and tell their outcomes. Several run at a time, but one thread talks to Optuna."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

import optuna
from optuna.trial import TrialState

from lightningtune.contract import StopReason, TrialOutcome
from lightningtune.errors import redact
from lightningtune.study.liveness import HostedStudy
from lightningtune.study.sampling import tell

log = logging.getLogger(__name__)


def ask_and_tell(
    study: HostedStudy,
    start: Callable[[optuna.Trial], Future[TrialOutcome]],
    record: Callable[[optuna.Trial, TrialOutcome], TrialOutcome],
    end: Callable[[], None],
    is_wanted: Callable[[int], bool],
    n_jobs: int,
    timeout: float | None,
    catch: tuple[type[Exception], ...],
    callbacks: Sequence[Callable[[optuna.Study, optuna.trial.FrozenTrial], Any]],
) -> None:
    """Keep ``n_jobs`` trials running until no more are wanted.

    Only this function calls the sampler, in the order of the trials' numbers. So with a seed, a trial's parameters
    depend only on the outcomes that were told before it was asked for.

    ``record`` keeps an outcome, and returns the one to tell. ``is_wanted`` says whether to ask for another trial, given
    how many run. ``end`` ends all running trials when an exception leaves this function, such as an error of a trial
    that ``catch`` does not name.
    """
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    running: dict[Future[TrialOutcome], optuna.Trial] = {}

    def may_ask() -> bool:
        is_free = len(running) < n_jobs and not study.stopped
        return is_free and time.monotonic() < deadline and is_wanted(len(running))

    try:
        while True:
            while may_ask():
                trial = study.ask()
                try:
                    future = start(trial)
                except BaseException as error:  # it was asked for, so it must be told too
                    future = Future()
                    future.set_result(TrialOutcome.failed(error, StopReason.INTERRUPTED))
                    raise
                finally:
                    running[future] = trial
            if not running:
                return
            for future in _ended_of(running):
                trial, outcome = running[future], record(running[future], future.result())
                told = _tell(study, trial, outcome)
                del running[future]
                for callback in callbacks:
                    callback(study, told)
                if outcome.error is not None and not isinstance(outcome.error, catch):
                    raise outcome.error
                # an error holds its trial's model and data: free them before the next trial
                del future, outcome
    except BaseException:
        end()
        for future, trial in running.items():
            _end(study, trial, future, record)
        raise


def _ended_of(running: dict[Future[TrialOutcome], optuna.Trial]) -> Iterator[Future[TrialOutcome]]:
    """Wait until any has ended, and yield those that have, by number. Keep no reference to them."""
    ended = sorted(wait(running, return_when=FIRST_COMPLETED).done, key=lambda future: running[future].number)
    while ended:
        yield ended.pop(0)


def _end(
    study: optuna.Study,
    trial: optuna.Trial,
    future: Future[TrialOutcome],
    record: Callable[[optuna.Trial, TrialOutcome], TrialOutcome],
) -> None:
    """Tell how a trial ended, or fail it where the outcome cannot be recorded: no trial stays running."""
    try:
        _tell(study, trial, record(trial, future.result()))
    except Exception as error:
        log.warning("Trial %d could not be recorded: %s", trial.number, redact(str(error)))
        tell(study, trial, state=TrialState.FAIL)


def _tell(study: optuna.Study, trial: optuna.Trial, outcome: TrialOutcome) -> optuna.trial.FrozenTrial:
    if outcome.score is not None:
        return tell(study, trial, values=list(outcome.score))
    pruned = outcome.error is None and outcome.reason is not StopReason.COMPLETED
    return tell(study, trial, state=TrialState.PRUNED if pruned else TrialState.FAIL)
