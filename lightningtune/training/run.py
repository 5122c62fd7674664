"""Train one trial from its frozen spec; the one place where an exception becomes an outcome."""

from __future__ import annotations

import dataclasses
import gc
import logging
import math
import signal
import time
from collections.abc import Callable

import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import BatchSizeFinder, Callback, LearningRateFinder
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.memory import is_oom_error

from lightningtune.contract import Reporter, StopReason, TrialOutcome, TrialSpec
from lightningtune.errors import ConfigurationError, MetricError, NonFiniteError, TrialError
from lightningtune.training.build import Blueprint, Fit
from lightningtune.training.callback import TrialCallback
from lightningtune.training.callback_list import callbacks_of, set_callbacks
from lightningtune.training.checkpoint_file import training_of
from lightningtune.training.checkpoints import KeepCheckpoints
from lightningtune.training.data import prepare
from lightningtune.training.data_seed import own_seed_variables
from lightningtune.training.dead_worker import is_of_dead_worker
from lightningtune.training.decisions import score_of
from lightningtune.training.facts import begin_peaks, facts_of
from lightningtune.training.folders import OwnFolders
from lightningtune.training.initial_weights import InitialWeights
from lightningtune.training.metrics_table import go_on_with_table
from lightningtune.training.missing import is_waited_for, missing
from lightningtune.training.quiet import own_interrupts, own_sigterm, quiet_lightning
from lightningtune.training.random_state import own_random_state
from lightningtune.training.resumption import Start, find_start
from lightningtune.training.tracker_stand_in import with_local_loggers
from lightningtune.training.trackers import Trackers, best_values, refuse_default_logger
from lightningtune.training.trainers import refuse_processes

log = logging.getLogger(__name__)

_SEARCHES = (BatchSizeFinder, LearningRateFinder)


def train(
    spec: TrialSpec, blueprint: Blueprint, reporter: Reporter, clock: Callable[[], float] = time.monotonic
) -> TrialOutcome:
    """Build, seed and fit, or go on with a fit that was broken off.

    A trial that goes on from its checkpoint ends with the values that it would have had without the break;
    `TrialCallback` says where that has its limits. Its ``last.ckpt`` stays: until the study knows how the trial has
    ended, it may have to go on.

    Args:
        spec: what to train.
        blueprint: builds the spec's config.
        reporter: where its values go.
        clock: by which it is decided how often to save.

    Returns:
        How it ended, whatever happened.

    Raises:
        ConfigurationError: when no trial of this study can succeed.
    """
    trackers = Trackers(spec)
    keep = KeepCheckpoints(spec.directory, clock) if spec.save_checkpoints else None
    watcher = TrialCallback(spec.objective, reporter, after_report=keep, training=training_of(spec.config))
    try:
        outcome = _fitted(spec, blueprint, watcher, keep, trackers)
    except ConfigurationError as mistake:
        trackers.close(failure(mistake), None)
        raise
    with quiet_lightning():
        trackers.close(outcome, best_values(outcome, watcher.history, spec.objective.mode[0]))
    return dataclasses.replace(outcome, notices=tuple(trackers.failures))


def _fitted(
    spec: TrialSpec, blueprint: Blueprint, watcher: TrialCallback, keep: KeepCheckpoints | None, trackers: Trackers
) -> TrialOutcome:
    started = time.perf_counter()
    above = begin_peaks()
    fit: Fit | None = None
    error: BaseException | None = None
    weights = InitialWeights()
    with own_random_state(), own_seed_variables(), quiet_lightning(), own_interrupts():
        try:
            seed = spec.config.get("seed_everything")
            if isinstance(seed, int) and not isinstance(seed, bool):
                seed_everything(seed, workers=True, verbose=False)
            callbacks = (*spec.callbacks, *own_sigterm())
            prepared, data_seed = spec.data_is_prepared, spec.data_seed
            fit = blueprint.build(spec.config, spec.directory, callbacks, watcher, prepared, trackers, data_seed)
            refuse_processes(fit.trainer)
            folders = OwnFolders(spec.directory, watcher.reporter.notice)
            set_callbacks(fit.trainer, [folders, weights, *callbacks_of(fit.trainer)])  # before any other is set up
            start = _start_of(spec, fit)
            if spec.checkpoint is not None and fit.trainer.is_global_zero:
                if keep is not None:
                    keep.begin(start)
                if start is not None:
                    table = start.checkpoint.with_name("metrics.csv")
                    go_on_with_table(fit.trainer, table, spec.directory, start.global_step)
                    trackers.go_on(fit.trainer, start.global_step)
            fit.run(start)
            if keep is not None:
                keep.complete(fit.trainer)
        except ConfigurationError:
            raise
        except (Exception, KeyboardInterrupt, SystemExit) as caught:
            names = spec.objective.monitor
            is_first = watcher.has_validated and not watcher.history
            if fit and is_first and isinstance(caught, Exception) and is_waited_for(caught, names):
                raise missing(fit.trainer, names) from caught
            if fit and isinstance(caught, AttributeError):
                refuse_default_logger(caught, spec.config.get("trainer") or {})
            error = watcher.interruption or caught
        finally:
            weights.remember()
    outcome = _outcome(spec, watcher, error)
    return dataclasses.replace(
        outcome,
        epochs=fit.trainer.current_epoch if fit else 0,
        duration=time.perf_counter() - started,
        checkpoint=keep.best if keep and keep.best.exists() else None,
        facts=facts_of(fit, above),
    )


def _start_of(spec: TrialSpec, fit: Fit) -> Start | None:
    """Find out from where a trial goes on; None where it starts at the beginning."""
    if spec.checkpoint is None:
        return None
    searches = [callback for callback in callbacks_of(fit.trainer) if isinstance(callback, _SEARCHES)]
    if searches:  # they load a checkpoint of their own, after which Lightning forgets ours
        log.warning("A fit with %s cannot be gone on with: it starts afresh.", type(searches[0]).__name__)
        return None
    start = find_start(spec.checkpoint, spec.objective, training_of(spec.config))
    if start is not None and not start.is_within(spec.config.get("trainer") or {}):
        log.warning("%s has come further than the trainer's limits are now: the trial starts afresh.", spec.checkpoint)
        return None
    return start


def prepare_data(blueprint: Blueprint, spec: TrialSpec) -> bool:
    """Call ``prepare_data`` of a trial's datamodule, and return whether that has done it for all trials of that data.

    The datamodule has a Trainer like the trial's, but for callbacks that are not in the config, and for trackers.
    """
    with own_random_state(), own_seed_variables(), quiet_lightning():
        logger = blueprint.schema.lookup(spec.config, "trainer.logger")
        config = with_local_loggers(spec.config, logger, spec.directory)
        fit = blueprint.build(config, spec.directory, (), Callback(), data_seed=spec.data_seed)
        return prepare(fit.trainer, fit.model, fit.data["datamodule"], spec.directory)


def load_data(blueprint: Blueprint) -> None:
    """Load the data that all trials share.

    Raises:
        ConfigurationError: when there is no datamodule, or it holds what processes cannot share.
    """
    with own_random_state(), own_seed_variables(), quiet_lightning():
        blueprint.load_data()


def _outcome(spec: TrialSpec, watcher: TrialCallback, error: BaseException | None) -> TrialOutcome:
    objective = spec.objective
    if error is not None:
        return failure(error, spec.pruned_by)
    if watcher.stop is not None:
        reason, detail = watcher.stop.reason, watcher.stop.detail
        if reason is StopReason.NON_FINITE and objective.non_finite == "fail":
            return TrialOutcome.failed(NonFiniteError(detail), reason)
        if reason in (StopReason.TIMED_OUT, StopReason.INTERRUPTED):
            return TrialOutcome(reason, detail, error=TrialError(detail))
        return TrialOutcome(reason, detail)
    if watcher.absence is not None:
        raise watcher.absence
    if not watcher.history:
        raise MetricError(
            f"No validation ran, so '{objective.monitor[0]}' has no value. "
            "See max_epochs, check_val_every_n_epoch and limit_val_batches of the trainer."
        )
    try:
        score = score_of(watcher.history, objective)
    except Exception as raised:  # a user's function of the values may raise anything
        return failure(raised, spec.pruned_by)
    if not all(map(math.isfinite, score)):
        not_a_score = NonFiniteError(f"the score is {score[0] if len(score) == 1 else score}")
        return TrialOutcome.failed(not_a_score, StopReason.NON_FINITE)
    return TrialOutcome(StopReason.COMPLETED, score=score)


def failure(error: BaseException, pruned_by: tuple[type[BaseException], ...] = ()) -> TrialOutcome:
    """Return the outcome of a trial that raised.

    Args:
        error: what was raised.
        pruned_by: exceptions that end a trial as pruned.

    Returns:
        Pruned, failed, out of memory, killed together with a DataLoader's worker, or interrupted.
    """
    if isinstance(error, pruned_by):
        return TrialOutcome.pruned(error)
    if isinstance(error, KeyboardInterrupt):
        return TrialOutcome(StopReason.INTERRUPTED, "interrupted by Ctrl-C", error=error)
    if isinstance(error, SIGTERMException):  # it has no exit code, and would end the process as if all were well
        return TrialOutcome(StopReason.INTERRUPTED, "interrupted by SIGTERM", error=SystemExit(128 + signal.SIGTERM))
    if isinstance(error, SystemExit):
        error = TrialError(f"the training called sys.exit({error.code!r})")
    if is_of_dead_worker(error):  # a process of the training's, killed as its own might have been
        outcome = TrialOutcome.failed(error, StopReason.KILLED)
        return dataclasses.replace(outcome, detail=f"a DataLoader's worker ended: {outcome.detail}")
    out_of_memory = is_oom_error(error) or isinstance(error, (torch.OutOfMemoryError, MemoryError))
    reason = StopReason.OUT_OF_MEMORY if out_of_memory else StopReason.FAILED
    return TrialOutcome.failed(error, reason)


def release_memory() -> None:
    """Free what an earlier trial left: its model and trainer refer to each other, and so does a traceback."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
