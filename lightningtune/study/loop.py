"""Asking for trials and telling their outcomes, several at a time, from one thread: Optuna sees one of each."""

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
from lightningtune.study.liveness import SharedStudy
from lightningtune.study.sampling import tell

log = logging.getLogger(__name__)


class HostedStudy(SharedStudy):
    """A study whose trials are asked for and told by `ask_and_tell`; ``stop`` works as within ``optimize``."""

    stopped = False

    def stop(self) -> None:
        """Ask for no further trial."""
        self.stopped = True


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

    Every call to the sampler is made here, in the order of the trials' numbers, so that with a seed the parameters of a
    trial depend only on the outcomes that were told before it was asked for.

    Args:
        study: asks, and is told.
        start: starts a trial.
        record: keeps its outcome, and returns what is to be told.
        end: ends every running trial now; called when this function is left by an exception.
        is_wanted: whether another trial is to be asked for, given how many run.
        n_jobs: trials at a time.
        timeout: seconds after which no further trial is asked for.
        catch: errors of a trial that do not end the study.
        callbacks: called after each trial.

    Raises:
        Exception: what a trial raised, where it is not among ``catch``.
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
                except BaseException as error:  # it has been asked for, so it is told with those that run
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
                # an error holds all that its trial has made, which the next one is not to wait beside
                del future, outcome
    except BaseException:
        end()
        for future, trial in running.items():
            _end(study, trial, future, record)
        raise


def _ended_of(running: dict[Future[TrialOutcome], optuna.Trial]) -> Iterator[Future[TrialOutcome]]:
    """Wait until one has ended, and yield those that have, by their trials' numbers, and hold none."""
    ended = sorted(wait(running, return_when=FIRST_COMPLETED).done, key=lambda future: running[future].number)
    while ended:
        yield ended.pop(0)


def _end(
    study: optuna.Study,
    trial: optuna.Trial,
    future: Future[TrialOutcome],
    record: Callable[[optuna.Trial, TrialOutcome], TrialOutcome],
) -> None:
    """Tell how a trial has ended, or that it failed where not even that can be kept: none stays running."""
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
