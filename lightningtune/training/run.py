"""Train one trial from its frozen spec; the one place where an exception becomes an outcome."""

from __future__ import annotations

import dataclasses
import gc
import math
import signal
import time

import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.seed import isolate_rng

from lightningtune.contract import Objective, Reporter, StopReason, TrialOutcome, TrialSpec
from lightningtune.errors import ConfigurationError, MetricError, NonFiniteError, TrialError
from lightningtune.training.build import Blueprint, Fit
from lightningtune.training.callback import TrialCallback
from lightningtune.training.checkpoints import KeepCheckpoints
from lightningtune.training.decisions import score_of
from lightningtune.training.quiet import own_interrupts, quiet_lightning


def train(spec: TrialSpec, blueprint: Blueprint, reporter: Reporter) -> TrialOutcome:
    """Build, seed and fit.

    Args:
        spec: what to train.
        blueprint: builds the spec's config.
        reporter: where its values go.

    Returns:
        How it ended, whatever happened.

    Raises:
        ConfigurationError: when no trial of this study can succeed.
    """
    started = time.perf_counter()
    keep = KeepCheckpoints(spec.directory) if spec.save_checkpoints else None
    watcher = TrialCallback(spec.objective, reporter, after_report=keep)
    fit: Fit | None = None
    error: BaseException | None = None
    with isolate_rng(), quiet_lightning(), own_interrupts():
        try:
            seed = spec.config.get("seed_everything")
            if isinstance(seed, int) and not isinstance(seed, bool):
                seed_everything(seed, workers=True, verbose=False)
            fit = blueprint.build(spec.config, spec.directory, spec.callbacks, watcher)
            fit.run()
        except ConfigurationError:
            raise
        except (Exception, KeyboardInterrupt, SystemExit) as caught:
            error = watcher.interruption or caught
    outcome = _outcome(spec.objective, watcher, error)
    if outcome.reason is StopReason.OUT_OF_MEMORY:
        _release_memory()
    return dataclasses.replace(
        outcome,
        epochs=fit.trainer.current_epoch if fit else 0,
        duration=time.perf_counter() - started,
        checkpoint=keep.best if keep and keep.best.exists() else None,
    )


def _outcome(objective: Objective, watcher: TrialCallback, error: BaseException | None) -> TrialOutcome:
    if error is not None:
        return _failure(error)
    if watcher.stop is not None:
        reason, detail = watcher.stop.reason, watcher.stop.detail
        if reason is StopReason.NON_FINITE and objective.non_finite == "fail":
            return TrialOutcome.failed(NonFiniteError(detail), reason)
        return TrialOutcome(reason, detail)
    if not watcher.history:
        raise MetricError(
            f"No validation ran, so '{objective.monitor[0]}' has no value. "
            "See max_epochs, check_val_every_n_epoch and limit_val_batches of the trainer."
        )
    try:
        score = score_of(watcher.history, objective)
    except Exception as raised:  # a user's function of the values may raise anything
        return TrialOutcome.failed(raised)
    if not all(map(math.isfinite, score)):
        not_a_score = NonFiniteError(f"the score is {score[0] if len(score) == 1 else score}")
        return TrialOutcome.failed(not_a_score, StopReason.NON_FINITE)
    return TrialOutcome(StopReason.COMPLETED, score=score)


def _failure(error: BaseException) -> TrialOutcome:
    if isinstance(error, KeyboardInterrupt):
        return TrialOutcome(StopReason.INTERRUPTED, "interrupted by Ctrl-C", error=error)
    if isinstance(error, SIGTERMException):  # it has no exit code, and would end the process as if all were well
        return TrialOutcome(StopReason.INTERRUPTED, "interrupted by SIGTERM", error=SystemExit(128 + signal.SIGTERM))
    if isinstance(error, SystemExit):
        error = TrialError(f"the training called sys.exit({error.code!r})")
    reason = StopReason.OUT_OF_MEMORY if _is_out_of_memory(error) else StopReason.FAILED
    return TrialOutcome.failed(error, reason)


def _is_out_of_memory(error: BaseException) -> bool:
    on_cpu = isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
    return on_cpu or isinstance(error, (torch.OutOfMemoryError, MemoryError))


def _release_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
