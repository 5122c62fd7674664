"""Dry runs of points of a space: each trains two batches, in a process of its own where that is quick."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightningtune.check.dry_run import DOUBT_FILE, NOTES_FILE, DryRun, dry_run_config
from lightningtune.check.points import DryRunPoint
from lightningtune.check.report import DryRunNotes, TriedPoint
from lightningtune.contract import Objective, SilentReporter, StopReason, TrialOutcome, TrialSpec
from lightningtune.errors import ConfigurationError, MetricError
from lightningtune.study.reporter import PRUNED_BY
from lightningtune.training.build import Blueprint
from lightningtune.training.failures import failure
from lightningtune.training.run import prepare_data
from lightningtune.training.tracker_guard import with_local_loggers
from lightningtune.workers.devices import Slot
from lightningtune.workers.inline import Preparation, run_inline
from lightningtune.workers.processes import TrialProcesses

MAX_SECONDS = 60.0
"""Seconds after which no further point is tried."""
_RUN_SECONDS = 120.0
"""Seconds that one run may take in a process of its own: the first may have to download, or to compile."""
_FAILED_RUNS = 3
"""Dry runs that fail, none having succeeded, after which the other points are left out."""


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
    """Trains points of a space in one folder, and writes nowhere else.

    A point whose epoch was cut short, and that failed in a way that may be due to that, is trained again for a whole
    epoch, if that is quick. From then on all points are.
    """

    blueprint: Blueprint
    objective: Objective
    callbacks: Sequence[Any]  # of Lightning; each dry run gets a copy
    slot: Slot
    saves: bool  # whether trials write checkpoints
    seed: int  # where the config has none
    folder: Path
    processes: TrialProcesses | None  # None for runs in this process
    is_isolated: bool  # whether each run needs a process of its own
    epoch_seconds: float = 10.0  # that a whole epoch may take
    _configs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _attempts: int = 0
    _is_whole: bool = False
    _can_be_whole: bool = True

    def __post_init__(self) -> None:
        self._preparation = Preparation(self.blueprint)

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
        tried = TriedPoint(point.name, point.values, TrialOutcome(StopReason.FAILED), None, point.parameter, point.base)
        self._configs[point.name] = {}
        try:
            blueprint = self.blueprint
            config = blueprint.schema.merge(blueprint.config, point.overrides)
            blueprint.check(config)
            ranks = blueprint.check_trainer(config)
            config = self._configs[point.name] = dry_run_config(config, self.seed)
            is_visible = point.base is None or self._configs.get(point.base) != config
            tried = self._settle(dataclasses.replace(tried, is_visible=is_visible), config, ranks)
        except Exception as error:  # of the config, of a copy, of a process: it is this point that cannot be trained
            tried = dataclasses.replace(tried, outcome=failure(error, PRUNED_BY))
        if self.processes is None and isinstance(tried.outcome.error, (KeyboardInterrupt, SystemExit)):
            raise tried.outcome.error
        return tried

    def _settle(self, tried: TriedPoint, config: Mapping[str, Any], ranks: int) -> TriedPoint:
        """Train a point, and once more where that leaves in doubt whether a trial would fail."""
        first = self._attempt(tried, config, ranks, self._is_whole)
        if not first.is_in_doubt or self._is_whole or not self._can_be_whole:
            return first
        whole = self._attempt(tried, config, ranks, is_whole=True)
        self._is_whole = self._can_be_whole = not whole.is_in_doubt
        return whole if self._is_whole else first

    def _attempt(self, tried: TriedPoint, config: Mapping[str, Any], ranks: int, is_whole: bool) -> TriedPoint:
        directory = self.folder / f"{self._attempts:02d}"
        directory.mkdir()
        self._attempts += 1
        dry_run = DryRun(directory, self.saves, self.epoch_seconds if is_whole else None)
        callbacks = (*(copy.deepcopy(callback) for callback in self.callbacks), dry_run)
        config = with_local_loggers(config, self.blueprint.schema.lookup(config, "trainer.logger"), directory)
        goal, seed = self.objective, self.seed
        spec = TrialSpec(0, config, directory, goal, callbacks, False, data_seed=seed, pruned_by=PRUNED_BY)
        try:
            outcome = self._train(spec, ranks)
        except Exception as error:
            outcome = failure(error, PRUNED_BY)
        notes = DryRunNotes.read(directory / NOTES_FILE)
        is_in_doubt = (directory / DOUBT_FILE).exists() and self._may_be_due_to_cut(outcome, notes, is_whole)
        return dataclasses.replace(tried, outcome=outcome, notes=notes, is_in_doubt=is_in_doubt)

    def _may_be_due_to_cut(self, outcome: TrialOutcome, notes: DryRunNotes | None, is_whole: bool) -> bool:
        """Whether what happened after a fit was cut short can be due to that."""
        if outcome.reason is StopReason.NON_FINITE:
            # a metric of few samples may be NaN; at a later point, a search that goes too far is the likelier reason
            is_first = len(self._configs) == 1
            return is_first and not is_whole and notes is not None and all(map(math.isfinite, notes.losses))
        if isinstance(outcome.error, ConfigurationError):
            return isinstance(outcome.error, MetricError)
        return outcome.error is not None and outcome.reason is not StopReason.PRUNED

    def _train(self, spec: TrialSpec, ranks: int) -> TrialOutcome:
        processes, slot = self.processes, self.slot
        if processes is not None:
            try:
                spec = self._with_data(spec, lambda: processes.prepare_data(spec, slot, ranks))
                return processes.run(spec, slot, SilentReporter(), ranks, _RUN_SECONDS)
            except ConfigurationError:  # the classes cannot be loaded there, and need not
                if self.is_isolated or ranks > 1:
                    raise
                self.processes = None
        spec = self._with_data(spec, lambda: prepare_data(self.blueprint, spec))
        return run_inline(spec, self.blueprint, SilentReporter())

    def _with_data(self, spec: TrialSpec, prepare: Callable[[], bool]) -> TrialSpec:
        is_prepared = not self.blueprint.share_data and self._preparation.of(spec.config, prepare)
        return dataclasses.replace(spec, data_is_prepared=is_prepared)
