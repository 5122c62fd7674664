"""Check a study before it runs: short trainings of the untuned defaults and of the ends of its space."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from lightningtune.check.dry_run import DOUBT_FILE, NOTES_FILE, DryRun, dry_run_config, name_untried
from lightningtune.check.findings import (
    Fact,
    HostResources,
    TrialLength,
    judge_ends,
    judge_forecast,
    judge_metrics,
    judge_parameters,
    judge_pruner,
    make_forecast,
)
from lightningtune.check.points import DryRunPoint, dry_run_points, try_pruner
from lightningtune.check.report import SEVERITIES, CheckReport, DryRunNotes, Finding, TriedPoint
from lightningtune.config.base import as_list
from lightningtune.contract import SilentReporter, StopReason, TrialOutcome, TrialSpec
from lightningtune.errors import ConfigurationError, MetricError
from lightningtune.host import StudyPlan
from lightningtune.preflight import notices, plan_baseline
from lightningtune.report.terminal import headline
from lightningtune.study.opening import quiet_optuna
from lightningtune.study.reporter import PRUNED_BY
from lightningtune.training.failures import failure
from lightningtune.training.run import prepare_data
from lightningtune.training.trackers import with_local_loggers
from lightningtune.wording import counted
from lightningtune.workers.devices import Slot
from lightningtune.workers.inline import Preparation, run_inline
from lightningtune.workers.processes import TrialProcesses

MAX_SECONDS = 60.0
"""Seconds after which no further point is tried."""
_RUN_SECONDS = 120.0
"""Seconds that one run may take in a process of its own: the first may have to download, or to compile."""
_FAILED_RUNS = 3
"""Dry runs that fail, none having succeeded, after which the other points are left out."""


def check_study(
    plan: StudyPlan,
    *,
    study_name: str,
    pruner: optuna.pruners.BasePruner | None,
    baseline: bool | Mapping[str, Any],
    seed: int | None,
    slots: Sequence[Slot],
    is_isolated: bool,
    processes: Callable[[], TrialProcesses],
    done: int = 0,
    progress: Callable[[str], Any] | None = None,
) -> CheckReport:
    """Train points of a study's space for two batches each, and report what that shows; none of its trials runs."""
    began, blueprint, objective = time.monotonic(), plan.blueprint, plan.objective
    found: list[Fact | Finding] = [*_check_config(plan, baseline)]
    runs, ranks, length = list[TriedPoint](), 1, None
    with quiet_optuna():
        try:
            ranks = blueprint.check_trainer(blueprint.config)
            points = dry_run_points(plan.space, _find_defaults(plan))
            is_required = is_isolated or ranks > 1
            folder = tempfile.TemporaryDirectory(prefix="lightningtune-check-", ignore_cleanup_errors=True)
            with folder as path, start_processes(processes, is_required) as started:
                runner = DryRunner(plan, slots[0], seed or 0, Path(path), started, is_required)
                runs, left = runner.run_all(points, progress or (lambda text: None))
            found += _describe_runs(runs, left, time.monotonic() - began)
        except ConfigurationError as mistake:
            found.append(Finding("error", "config", str(mistake)))
        found += [*judge_ends(runs, objective), *judge_parameters(runs), *judge_metrics(runs, objective)]
        notes = next((run.notes for run in runs if run.notes is not None), None)
        if notes is not None:
            length = valued = TrialLength.from_notes(notes)
            if length.validations == 0:
                epochs = "" if length.epochs is None else f" of {length.epochs:.3g} epochs"
                found.append(Finding("warning", "config", f"A trial{epochs} ends before its first validation."))
            if not {*objective.monitor} <= {*notes.metrics}:  # else only some validations log the metric
                valued = dataclasses.replace(length, validations=None)
            steps = valued.validations if len(objective.monitor) == 1 else None
            schedule = try_pruner(pruner, study_name, plan.n_trials, steps)
            found += judge_pruner(schedule, valued, len(objective.monitor))
    resources = _measure_resources(plan, slots, ranks, done)
    forecast = make_forecast(runs, resources, length)
    found += judge_forecast(forecast, runs, resources, length)
    findings = [each for each in found if isinstance(each, Finding)]
    return CheckReport(
        headline(study_name, objective, done, plan.n_trials),
        tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
        tuple(runs),
        tuple(each for each in found if not isinstance(each, Finding)),
        forecast,
        time.monotonic() - began,
    )


def is_hopeless(runs: Sequence[TriedPoint]) -> bool:
    """Whether no further point can succeed: the config is wrong, or the first points have all failed."""
    errors = [None if run.is_in_doubt else run.outcome.error for run in runs]
    return isinstance(errors[0], ConfigurationError) or (len(errors) >= _FAILED_RUNS and None not in errors)


@contextlib.contextmanager
def start_processes(make: Callable[[], TrialProcesses], is_required: bool) -> Iterator[TrialProcesses | None]:
    """Start what trains in processes of their own; give None where something cannot travel there, and need not."""
    processes = None
    if is_required or sys.platform == "linux":
        try:
            processes = make()
        except ConfigurationError:
            if is_required:
                raise
    with processes or contextlib.nullcontext():
        yield processes


@dataclass
class DryRunner:
    """Trains points of a space in one folder, and writes nowhere else."""

    plan: StudyPlan
    slot: Slot
    seed: int  # where the config has none
    folder: Path
    processes: TrialProcesses | None  # None for runs in this process
    is_isolated: bool  # whether each run needs a process of its own

    def __post_init__(self) -> None:
        self._preparation = Preparation(self.plan.blueprint)

    def run_all(
        self, points: Sequence[DryRunPoint], progress: Callable[[str], Any], seconds: float = MAX_SECONDS
    ) -> tuple[list[TriedPoint], Sequence[DryRunPoint]]:
        """Try points until the time is up, or until it seems that none can succeed.

        The base of a point comes before it. Returned are the points that were tried, and those that are left.
        """
        began, runs = time.monotonic(), list[TriedPoint]()
        for number, point in enumerate(points):
            if runs and (time.monotonic() - began > seconds or is_hopeless(runs)):
                return runs, points[number:]
            progress(f"{number + 1} of {len(points)}: {point.name}")
            runs.append(self.run(point))
        return runs, ()

    def run(self, point: DryRunPoint) -> TriedPoint:
        """Try a point, whatever becomes of it."""
        blueprint, directory = self.plan.blueprint, Path(tempfile.mkdtemp(dir=self.folder))
        try:
            config = blueprint.schema.merge(blueprint.config, point.overrides)
            blueprint.check(config)
            ranks = blueprint.check_trainer(config)
            outcome = self._train(dry_run_config(config, self.seed), directory, ranks)
        except Exception as error:  # of the config, of a copy, of a process: it is this point that cannot be trained
            outcome = failure(error, PRUNED_BY)
        if self.processes is None and isinstance(outcome.error, (KeyboardInterrupt, SystemExit)):
            raise outcome.error
        notes = DryRunNotes.read(directory / NOTES_FILE)
        is_in_doubt = (directory / DOUBT_FILE).exists() and _may_be_due_to_cut(outcome, notes)
        return TriedPoint(point.name, point.values, outcome, notes, point.parameter, point.base, is_in_doubt)

    def _train(self, config: Mapping[str, Any], directory: Path, ranks: int) -> TrialOutcome:
        plan, processes = self.plan, self.processes
        callbacks = (*map(copy.deepcopy, plan.callbacks), DryRun(directory, plan.save_checkpoints))
        config = with_local_loggers(config, plan.blueprint.schema.lookup(config, "trainer.logger"), directory)
        spec = TrialSpec(
            0, config, directory, plan.objective, callbacks, False, data_seed=self.seed, pruned_by=PRUNED_BY
        )
        if processes is not None:
            try:
                spec = self._with_data(spec, lambda: processes.prepare_data(spec, self.slot, ranks))
                return processes.run(spec, self.slot, SilentReporter(), ranks, _RUN_SECONDS)
            except ConfigurationError:  # the classes cannot be loaded there, and need not
                if self.is_isolated or ranks > 1:
                    raise
                self.processes = None
        spec = self._with_data(spec, lambda: prepare_data(plan.blueprint, spec))
        return run_inline(spec, plan.blueprint, SilentReporter())

    def _with_data(self, spec: TrialSpec, prepare: Callable[[], bool]) -> TrialSpec:
        is_prepared = not self.plan.blueprint.share_data and self._preparation.of(spec.config, prepare)
        return dataclasses.replace(spec, data_is_prepared=is_prepared)


def _may_be_due_to_cut(outcome: TrialOutcome, notes: DryRunNotes | None) -> bool:
    """Whether what happened after a fit was cut short can be due to that."""
    if outcome.reason is StopReason.NON_FINITE:  # a metric of few samples may be NaN; a loss need not
        return notes is not None and all(map(math.isfinite, notes.losses))
    if isinstance(outcome.error, ConfigurationError):
        return isinstance(outcome.error, MetricError)
    return outcome.error is not None and outcome.reason is not StopReason.PRUNED


def _check_config(plan: StudyPlan, baseline: bool | Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what can be found without a run."""
    schema, config = plan.blueprint.schema, plan.blueprint.config
    for notice in notices(plan.objective, config):
        yield Finding("warning", notice.subject, notice.detail)
    with quiet_optuna():
        _, note = plan_baseline(baseline, plan.space, plan.blueprint)
    if note is not None:
        yield Finding("note", note.subject, note.detail)
    callbacks = [*as_list((config.get("trainer") or {}).get("callbacks")), *plan.callbacks]
    untried = name_untried(schema.lookup(config, "trainer.logger"), callbacks)
    if untried:
        why = "a dry run makes no run of a tracker, and starts no search of its own"
        yield Finding("note", "run", f"Not tried: {', '.join(untried)}; {why}.")
    size = plan.space.size
    if size is not None and size < plan.n_trials:
        fewer = f"The space has {counted(size, 'point')}, fewer than the {plan.n_trials} trials."
        yield Finding("note", "space", fewer)
    if not os.access(_nearest_folder(plan.directory.root), os.W_OK):
        yield Finding("error", "disk", f"The study's folder '{plan.directory.root}' cannot be written to.")


def _find_defaults(plan: StudyPlan) -> dict[str, Any] | None:
    """Return the default of each parameter; None where the config cannot be trained as it is."""
    schema, config = plan.blueprint.schema, plan.blueprint.config
    try:
        plan.blueprint.check(config)
        return {parameter.name: schema.lookup(config, parameter.paths[0]) for parameter in plan.space.parameters or ()}
    except ConfigurationError:
        return None


def _describe_runs(runs: Sequence[TriedPoint], left: Sequence[DryRunPoint], seconds: float) -> Iterator[Fact | Finding]:
    if runs:
        names = ", ".join(run.name for run in runs)
        yield "Tried", f"{counted(len(runs), 'run')} of two batches in {seconds:.1f} s: {names}"
    if left:
        names = ", ".join(point.name for point in left)
        why = "since those before failed" if is_hopeless(runs) else f"since {MAX_SECONDS:.0f} s were over"
        yield Finding("note", "run", f"Not tried, {why}: {names}.")


def _measure_resources(plan: StudyPlan, slots: Sequence[Slot], ranks: int, done: int) -> HostResources:
    memory = []
    with contextlib.suppress(OSError, ValueError, KeyError):  # of this machine
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        memory.append(int(lines["MemAvailable"].split()[0]) * 1024)
    with contextlib.suppress(OSError, ValueError):  # of this control group; one without a limit says "max"
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / f"memory.{what}").read_text() for what in ("max", "current"))
        memory.append(max(0, int(limit) - int(used)))
    # each running trial has its best checkpoint, its last, and one that is being written
    kept = plan.save_top_k + 3 * len(slots) if plan.save_checkpoints else 0
    return HostResources(
        n_trials=plan.n_trials - done,
        jobs=len(slots),
        ranks=ranks,
        per_device=sum(slot.devices == slots[0].devices for slot in slots),
        kept=kept,
        memory=min(memory, default=None),
        disk=shutil.disk_usage(_nearest_folder(plan.directory.root)).free,
    )


def _nearest_folder(folder: Path) -> Path:
    """Return the folder itself or its nearest parent that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
