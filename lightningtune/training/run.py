"""Train one trial from its frozen spec; the one place where an exception becomes an outcome."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import logging
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, seed_everything
from lightning.pytorch.callbacks import BatchSizeFinder, Callback, LearningRateFinder
from torch.nn.parameter import UninitializedParameter

from lightningtune.contract import Reporter, StopReason, TrialFacts, TrialOutcome, TrialSpec
from lightningtune.errors import ConfigurationError, MetricError, NonFiniteError, TrialError
from lightningtune.training.build import Blueprint, Fit
from lightningtune.training.callback import TrialCallback
from lightningtune.training.checkpoints import KeepCheckpoints
from lightningtune.training.failures import failure
from lightningtune.training.folders import OwnFolders
from lightningtune.training.loops import get_callbacks, set_callbacks
from lightningtune.training.process_state import own_process_state, own_sigterm, quiet_lightning
from lightningtune.training.resumption import ResumePoint, digest_training, find_resume_point
from lightningtune.training.shared_data import prepare
from lightningtune.training.trackers import Trackers, best_values, refuse_default_logger, with_local_loggers
from lightningtune.training.trainers import refuse_processes
from lightningtune.training.weights import InitialWeights

log = logging.getLogger(__name__)

_PROC = Path("/proc/self")


def train(
    spec: TrialSpec, blueprint: Blueprint, reporter: Reporter, clock: Callable[[], float] = time.monotonic
) -> TrialOutcome:
    """Build, seed and fit, or go on with a fit that was cut short.

    A trial that goes on from its checkpoint ends with the values that it would have had without the break;
    `TrialCallback` says where that has its limits. Its ``last.ckpt`` stays: until the study knows how the trial has
    ended, it may have to go on.

    Raises:
        ConfigurationError: when no trial of this study can succeed; whatever else is raised is in the outcome.
    """
    trackers = Trackers(spec)
    keep = KeepCheckpoints(spec.directory, clock) if spec.save_checkpoints else None
    watcher = TrialCallback(spec.objective, reporter, after_report=keep, training=digest_training(spec.config))
    try:
        outcome = _fit(spec, blueprint, reporter, watcher, keep, trackers)
    except ConfigurationError as mistake:
        trackers.close(failure(mistake), None)
        raise
    with quiet_lightning():
        trackers.close(outcome, best_values(outcome, watcher.history, spec.objective.mode[0]))
    return dataclasses.replace(outcome, notices=tuple(trackers.failures))


def _fit(
    spec: TrialSpec,
    blueprint: Blueprint,
    reporter: Reporter,
    watcher: TrialCallback,
    keep: KeepCheckpoints | None,
    trackers: Trackers,
) -> TrialOutcome:
    started = time.perf_counter()
    known_peak = _reset_peaks()
    fit: Fit | None = None
    error: BaseException | None = None
    weights = InitialWeights()
    with own_process_state():
        try:
            seed = spec.config.get("seed_everything")
            if isinstance(seed, int) and not isinstance(seed, bool):
                seed_everything(seed, workers=True, verbose=False)
            callbacks = (*spec.callbacks, *own_sigterm())
            prepared, data_seed = spec.data_is_prepared, spec.data_seed
            fit = blueprint.build(spec.config, spec.directory, callbacks, watcher, prepared, trackers, data_seed)
            refuse_processes(fit.trainer)
            folders = OwnFolders(spec.directory, reporter.notice)
            set_callbacks(fit.trainer, [folders, weights, *get_callbacks(fit.trainer)])  # before any other is set up
            fit.run(_start(spec, fit, keep, trackers))
            if keep is not None:
                keep.complete(fit.trainer)
        except ConfigurationError:
            raise
        except (Exception, KeyboardInterrupt, SystemExit) as caught:
            if isinstance(watcher.fit_error, MetricError):
                raise watcher.fit_error from caught
            if fit and isinstance(caught, AttributeError):
                refuse_default_logger(caught, spec.config.get("trainer") or {})
            error = watcher.fit_error or caught
        finally:
            weights.remember()
    return dataclasses.replace(
        _make_outcome(spec, watcher, error),
        epochs=fit.trainer.current_epoch if fit else 0,
        duration=time.perf_counter() - started,
        checkpoint=keep.best if keep and keep.best.exists() else None,
        facts=collect_facts(fit, known_peak),
    )


def _start(spec: TrialSpec, fit: Fit, keep: KeepCheckpoints | None, trackers: Trackers) -> ResumePoint | None:
    """Find out from where a trial goes on, and have its files and its trackers go on from there, too."""
    if spec.checkpoint is None:
        return None
    start = _find_start(spec, fit)
    if fit.trainer.is_global_zero:
        if keep is not None:
            keep.begin(start)
        if start is not None:
            trackers.go_on(start.state.global_step)
    return start


def _find_start(spec: TrialSpec, fit: Fit) -> ResumePoint | None:
    assert spec.checkpoint is not None
    for callback in get_callbacks(fit.trainer):
        # these load a checkpoint of their own, after which Lightning forgets ours
        if isinstance(callback, (BatchSizeFinder, LearningRateFinder)):
            log.warning("A fit with %s cannot be gone on with: it starts afresh.", type(callback).__name__)
            return None
    start = find_resume_point(spec.checkpoint, spec.objective, digest_training(spec.config))
    if start is not None and not start.is_within(spec.config.get("trainer") or {}):
        log.warning("%s has come further than the trainer's limits are now: the trial starts afresh.", spec.checkpoint)
        return None
    return start


def _make_outcome(spec: TrialSpec, watcher: TrialCallback, error: BaseException | None) -> TrialOutcome:
    if error is not None:
        return failure(error, spec.pruned_by)
    if watcher.stop is not None:
        reason, detail = watcher.stop.reason, watcher.stop.detail
        if reason is StopReason.NON_FINITE and spec.objective.non_finite == "fail":
            return TrialOutcome.failed(NonFiniteError(detail), reason)
        if reason in (StopReason.TIMED_OUT, StopReason.INTERRUPTED):
            return TrialOutcome(reason, detail, error=TrialError(detail))
        return TrialOutcome(reason, detail)
    try:
        return TrialOutcome(StopReason.COMPLETED, score=watcher.compute_score())
    except MetricError:
        raise
    except NonFiniteError as not_a_score:
        return TrialOutcome.failed(not_a_score, StopReason.NON_FINITE)
    except Exception as raised:  # a user's function of the values may raise anything
        return failure(raised, spec.pruned_by)


def prepare_data(blueprint: Blueprint, spec: TrialSpec) -> bool:
    """Call ``prepare_data`` of a trial's datamodule, and return whether that has done it for all trials of that data.

    The datamodule has a Trainer like the trial's, but for callbacks that are not in the config, and for trackers.
    """
    with own_process_state():
        logger = blueprint.schema.lookup(spec.config, "trainer.logger")
        config = with_local_loggers(spec.config, logger, spec.directory)
        fit = blueprint.build(config, spec.directory, (), Callback(), data_seed=spec.data_seed)
        return prepare(fit.trainer, fit.model, fit.data["datamodule"], spec.directory)


def load_data(blueprint: Blueprint) -> None:
    """Load the data that all trials share, as `Blueprint.load_data` does."""
    with own_process_state():
        blueprint.load_data()


def release_memory() -> None:
    """Free what an earlier trial left: its model and trainer refer to each other, and so does a traceback."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


# What a training was done with: device, threads, parameters, and the most memory that it held


def _reset_peaks() -> int:
    """Count the peaks of this process's memory anew; return the bytes above which a peak is a new one."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)
    try:
        (_PROC / "clear_refs").write_text("5")
    except OSError:  # there is no such file but on Linux, and a container may forbid it
        return _read_peak() or 0
    return 0


def collect_facts(fit: Fit | None, above: int) -> TrialFacts:
    """Return what is known of a training that has ended; ``above`` is what `_reset_peaks` has returned."""
    peak = _read_peak() or 0
    facts = TrialFacts(threads=torch.get_num_threads(), memory=peak if peak > above else None)
    if fit is None:
        return facts
    parameters, trainable = _count_parameters(fit.model)
    facts = dataclasses.replace(facts, ranks=fit.trainer.world_size, parameters=parameters, trainable=trainable)
    device = fit.trainer.strategy.root_device
    if device.type != "cuda":
        return dataclasses.replace(facts, device=f"{device.type} ({_processor_name()})")
    try:
        name, most = torch.cuda.get_device_name(device), torch.cuda.max_memory_allocated(device)
    except RuntimeError:  # a device on which something has failed answers nothing
        return dataclasses.replace(facts, device=device.type)
    return dataclasses.replace(facts, device=f"{device.type} ({name})", device_memory=most)


def _count_parameters(model: LightningModule) -> tuple[int, int]:
    """Count the parameters of a model, and those that are trained; a lazy one that was never used has none."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters() if not isinstance(p, UninitializedParameter)]
    return sum(size for size, _ in sizes), sum(size for size, is_trained in sizes if is_trained)


def _read_peak() -> int | None:
    """Return the most bytes that this process has held at once since the count began."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", (_PROC / "status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


@functools.cache
def _processor_name() -> str:
    """Return the name of the CPU, as far as the system tells it."""
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
