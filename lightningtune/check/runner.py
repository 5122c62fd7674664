"""Dry runs of trials: each trains one point of a space for two batches, in a folder that is then removed."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightningtune.check.dry_run import DOUBT, RECORD, DryRun, dry_run_config
from lightningtune.check.points import Corner
from lightningtune.check.runs import DryRunNotes, TriedPoint, read_dry_run_notes
from lightningtune.contract import Objective, SilentReporter, StopReason, TrialOutcome, TrialSpec
from lightningtune.errors import ConfigurationError, MetricError
from lightningtune.study.reporter import PRUNED_BY
from lightningtune.training.build import Blueprint
from lightningtune.training.failures import failure
from lightningtune.training.run import prepare_data
from lightningtune.training.tracker_stand_in import with_local_loggers
from lightningtune.workers.devices import Slot
from lightningtune.workers.inline import run_inline
from lightningtune.workers.preparation import Preparation
from lightningtune.workers.processes import TrialProcesses

IN_ALL = 60.0
"""Seconds after which no further point is tried."""
_EACH = 120.0
"""Seconds that one may take in a process of its own: the first may have to download, or to compile."""
_WHOLE = 10.0
"""Seconds that a whole epoch may take, where it has to show whether a trial would fail as a shortened one did."""
_ALIKE = 3
"""Dry runs that fail, none having succeeded, after which the other points are left out."""


@dataclass(frozen=True)
class DryRuns:
    """Where points are tried, and how.

    Attributes:
        blueprint: builds configs; knows the base config.
        objective: what is tuned.
        callbacks: Lightning callbacks, of which each dry run gets a copy.
        slot: where it runs.
        saves: whether trials write checkpoints.
        seed: where the config has none.
        is_apart: whether each has to run in a process of its own, as trials do; otherwise it does where that is quick.
        processes: begins what runs them there.
    """

    blueprint: Blueprint
    objective: Objective
    callbacks: Sequence[Any]
    slot: Slot
    saves: bool
    seed: int
    is_apart: bool
    processes: Callable[[], TrialProcesses]

    def run(
        self, points: Sequence[Corner], progress: Callable[[str], Any], seconds: float
    ) -> tuple[list[TriedPoint], Sequence[Corner]]:
        """Try points until the time is up, or until it seems that none can succeed.

        Args:
            points: the base of others before these.
            progress: is told what is tried now.
            seconds: after which none is begun.

        Returns:
            What was tried, and the points that are left.

        Raises:
            ConfigurationError: when something cannot travel to a process that has to be another.
            KeyboardInterrupt: after Ctrl-C.
        """
        began, runs = time.monotonic(), list[TriedPoint]()
        with _folder() as folder, self._begun() as processes:
            trials = _Trials(self, folder, processes)
            for number, point in enumerate(points):
                if runs and (time.monotonic() - began > seconds or is_hopeless(runs)):
                    return runs, points[number:]
                progress(f"{number + 1} of {len(points)}: {point.name}")
                runs.append(trials.run(point))
        return runs, ()

    @contextlib.contextmanager
    def _begun(self) -> Iterator[TrialProcesses | None]:
        processes = None
        if self.is_apart or sys.platform == "linux":
            try:
                processes = self.processes()
            except ConfigurationError:  # something cannot travel, and need not
                if self.is_apart:
                    raise
        with processes or contextlib.nullcontext():
            yield processes


def is_hopeless(runs: Sequence[TriedPoint]) -> bool:
    """Whether no further point can succeed: the config is wrong, or the first points have all failed."""
    errors = [None if run.is_in_doubt else run.outcome.error for run in runs]
    return isinstance(errors[0], ConfigurationError) or (len(errors) >= _ALIKE and None not in errors)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lightningtune-check-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@dataclass(frozen=True)
class _Attempt:
    """One training of a point.

    Attributes:
        outcome: how it ended.
        noted: what was noted; None where it did not get that far.
        is_in_doubt: whether it failed as a trial, which is longer, need not.
    """

    outcome: TrialOutcome
    noted: DryRunNotes | None
    is_in_doubt: bool


class _Trials:
    """Dry runs in one folder.

    A point whose epoch was cut short, and that failed in a way that may be due to that, is trained again for a whole
    epoch, if that is quick. From then on all points are.

    Args:
        how: how points are tried.
        folder: where everything is written.
        processes: runs each in a process of its own; None for this process.
    """

    def __init__(self, how: DryRuns, folder: Path, processes: TrialProcesses | None) -> None:
        self._how = how
        self._folder = folder
        self._processes = processes
        self._preparation = Preparation(how.blueprint)
        self._configs: dict[str, Mapping[str, Any]] = {}
        self._count = 0
        self._is_whole = False
        self._can_be_whole = True

    def run(self, point: Corner) -> TriedPoint:
        """Try a point, whatever becomes of it."""
        tried = TriedPoint(point.name, point.values, TrialOutcome(StopReason.FAILED), None, point.parameter, point.base)
        self._configs[point.name] = {}
        try:
            blueprint = self._how.blueprint
            config = blueprint.schema.merge(blueprint.config, point.overrides)
            blueprint.check(config)
            ranks = blueprint.check_trainer(config)
            dry = self._configs[point.name] = dry_run_config(config, self._how.seed)
            tried = dataclasses.replace(
                tried,
                trainer=config.get("trainer") or {},
                is_visible=point.base is None or self._configs.get(point.base) != dry,
            )
            attempt = self._decided(dry, ranks)
        except Exception as error:  # of the config, of a copy, of a process: it is this point that cannot be trained
            attempt = _Attempt(failure(error, PRUNED_BY), None, is_in_doubt=False)
        if self._processes is None and isinstance(attempt.outcome.error, (KeyboardInterrupt, SystemExit)):
            raise attempt.outcome.error
        noted = attempt.noted
        return dataclasses.replace(
            tried, **vars(attempt), trainer=tried.trainer if noted is None else {**tried.trainer, **noted.limits}
        )

    def _decided(self, config: Mapping[str, Any], ranks: int) -> _Attempt:
        """Train a point, and once more where that leaves in doubt whether a trial would fail."""
        attempt = self._attempt(config, ranks, self._is_whole)
        if not attempt.is_in_doubt or self._is_whole or not self._can_be_whole:
            return attempt
        whole = self._attempt(config, ranks, is_whole=True)
        self._is_whole = self._can_be_whole = not whole.is_in_doubt
        return whole if self._is_whole else attempt

    def _attempt(self, config: Mapping[str, Any], ranks: int, is_whole: bool) -> _Attempt:
        directory = self._folder / f"{self._count:02d}"
        directory.mkdir()
        self._count += 1
        own = [copy.deepcopy(callback) for callback in self._how.callbacks]
        dry_run = DryRun(directory, self._how.saves, _WHOLE if is_whole else None)
        logger = self._how.blueprint.schema.lookup(config, "trainer.logger")
        config = with_local_loggers(config, logger, directory)
        callbacks, goal, seed = (*own, dry_run), self._how.objective, self._how.seed
        spec = TrialSpec(0, config, directory, goal, callbacks, False, data_seed=seed, pruned_by=PRUNED_BY)
        try:
            outcome = self._trained(spec, ranks)
        except Exception as error:
            outcome = failure(error, PRUNED_BY)
        noted = read_dry_run_notes(directory / RECORD)
        is_in_doubt = (directory / DOUBT).exists() and self._may_be_of_length(outcome, noted, is_whole)
        return _Attempt(outcome, noted, is_in_doubt)

    def _may_be_of_length(self, outcome: TrialOutcome, noted: DryRunNotes | None, is_whole: bool) -> bool:
        """Whether what happened after a fit was cut short can be due to that."""
        if outcome.reason is StopReason.NON_FINITE:  # a metric of few samples; but where a search may go too far, ...
            is_first = len(self._configs) == 1
            return is_first and not is_whole and noted is not None and all(map(math.isfinite, noted.losses))
        if isinstance(outcome.error, ConfigurationError):
            return isinstance(outcome.error, MetricError)
        return outcome.error is not None and outcome.reason is not StopReason.PRUNED

    def _trained(self, spec: TrialSpec, ranks: int) -> TrialOutcome:
        how, processes, slot = self._how, self._processes, self._how.slot
        if processes is not None:
            try:
                is_prepared = self._prepared(spec, lambda: processes.prepare_data(spec, slot, ranks))
                spec = dataclasses.replace(spec, data_is_prepared=is_prepared)
                return processes.run(spec, slot, SilentReporter(), ranks, _EACH)
            except ConfigurationError:  # the classes cannot be loaded there, and need not
                if how.is_apart or ranks > 1:
                    raise
                self._processes = None
        is_prepared = self._prepared(spec, lambda: prepare_data(how.blueprint, spec))
        return run_inline(dataclasses.replace(spec, data_is_prepared=is_prepared), how.blueprint, SilentReporter())

    def _prepared(self, spec: TrialSpec, prepare: Callable[[], bool]) -> bool:
        return not self._how.blueprint.share_data and self._preparation.of(spec.config, prepare)
