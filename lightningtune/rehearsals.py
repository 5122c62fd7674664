"""Rehearsals of trials: points of a space, each trained for two batches in a folder that is removed again."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightningtune.contract import Objective, SilentReporter, StopReason, TrialOutcome, TrialSpec
from lightningtune.errors import ConfigurationError, MetricError
from lightningtune.report.rehearsed import Rehearsed, read_noted
from lightningtune.search.corners import Corner
from lightningtune.study.reporter import PRUNED_BY
from lightningtune.training.build import Blueprint
from lightningtune.training.rehearsal import RECORD, Rehearsal, rehearsal_of, why_no_validation, with_stage_logger
from lightningtune.training.run import failure, prepare_data
from lightningtune.workers.devices import Slot
from lightningtune.workers.inline import run_inline
from lightningtune.workers.preparation import Preparation
from lightningtune.workers.processes import TrialProcesses

IN_ALL = 60.0
"""Seconds after which no further rehearsal is begun."""
_EACH = 120.0
"""Seconds that one may take in a process of its own: the first may have to download, or to compile."""
_ALIKE = 3
"""Rehearsals that fail, none having succeeded, after which the others are left out."""


@dataclass(frozen=True)
class Stage:
    """Where points are rehearsed, and how.

    Attributes:
        blueprint: builds configs; knows the base config.
        objective: what is tuned.
        callbacks: Lightning callbacks, of which each rehearsal gets a copy.
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

    def rehearse(
        self, points: Sequence[Corner], progress: Callable[[str], Any], seconds: float
    ) -> tuple[list[Rehearsed], Sequence[Corner]]:
        """Rehearse points until the time is up, or until it seems that none can succeed.

        Args:
            points: the base of others before these.
            progress: is told what is tried now.
            seconds: after which none is begun.

        Returns:
            The rehearsals, and the points that are left.

        Raises:
            ConfigurationError: when something cannot travel to a process that has to be another.
            KeyboardInterrupt: after Ctrl-C.
        """
        began, runs = time.monotonic(), list[Rehearsed]()
        with _folder() as folder, self._begun() as processes:
            play = _Play(self, folder, processes)
            for number, point in enumerate(points):
                if runs and (time.monotonic() - began > seconds or is_hopeless(runs)):
                    return runs, points[number:]
                progress(f"{number + 1} of {len(points)}: {point.name}")
                runs.append(play.run(point))
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


def is_hopeless(runs: Sequence[Rehearsed]) -> bool:
    """Whether nothing is to be expected of further rehearsals: the config is wrong, or the first have all failed."""
    errors = [run.outcome.error for run in runs]
    return isinstance(errors[0], ConfigurationError) or (len(errors) >= _ALIKE and None not in errors)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lightningtune-check-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


class _Play:
    """Rehearsals in one folder.

    Args:
        stage: how.
        folder: where everything is written.
        processes: runs each in a process of its own; None for this process.
    """

    def __init__(self, stage: Stage, folder: Path, processes: TrialProcesses | None) -> None:
        self._stage = stage
        self._folder = folder
        self._processes = processes
        self._preparation = Preparation(stage.blueprint)
        self._configs: dict[str, Mapping[str, Any]] = {}

    def run(self, point: Corner) -> Rehearsed:
        """Rehearse a point, whatever becomes of it."""
        directory = self._folder / f"{len(self._configs):02d}"
        directory.mkdir()
        run = Rehearsed(point.name, point.values, TrialOutcome(StopReason.FAILED), None, point.parameter, point.base)
        self._configs[point.name] = {}
        try:
            blueprint = self._stage.blueprint
            config = blueprint.schema.merge(blueprint.config, point.overrides)
            blueprint.check(config)
            ranks = blueprint.check_trainer(config)
            rehearsed = self._configs[point.name] = rehearsal_of(config, self._stage.seed)
            run = dataclasses.replace(
                run,
                trainer=config.get("trainer") or {},
                is_visible=point.base is None or self._configs.get(point.base) != rehearsed,
            )
            outcome = self._outcome(self._spec(with_stage_logger(rehearsed, directory), directory), ranks)
        except Exception as error:  # of the config, of a copy, of a process: it is this point that cannot be trained
            outcome = failure(error, PRUNED_BY)
        if self._processes is None and isinstance(outcome.error, (KeyboardInterrupt, SystemExit)):
            raise outcome.error
        noted = read_noted(directory / RECORD)
        return dataclasses.replace(
            run,
            outcome=_explained(outcome, run.trainer),
            noted=noted,
            trainer=run.trainer if noted is None else {**run.trainer, **noted.limits},
        )

    def _spec(self, config: Mapping[str, Any], directory: Path) -> TrialSpec:
        stage = self._stage
        own = [copy.deepcopy(callback) for callback in stage.callbacks]
        callbacks = (*own, Rehearsal(directory, stage.saves))
        return TrialSpec(0, config, directory, stage.objective, callbacks, save_checkpoints=False, pruned_by=PRUNED_BY)

    def _outcome(self, spec: TrialSpec, ranks: int) -> TrialOutcome:
        stage, processes, slot = self._stage, self._processes, self._stage.slot
        if processes is not None:
            try:
                is_prepared = self._prepared(spec, lambda: processes.prepare_data(spec.config, slot, spec.directory))
                spec = dataclasses.replace(spec, data_is_prepared=is_prepared)
                return processes.run(spec, slot, SilentReporter(), ranks, _EACH)
            except ConfigurationError:  # the classes cannot be loaded there, and need not
                if stage.is_apart or ranks > 1:
                    raise
                self._processes = None
        is_prepared = self._prepared(spec, lambda: prepare_data(stage.blueprint, spec.config))
        return run_inline(dataclasses.replace(spec, data_is_prepared=is_prepared), stage.blueprint, SilentReporter())

    def _prepared(self, spec: TrialSpec, prepare: Callable[[], bool]) -> bool:
        return not self._stage.blueprint.share_data and self._preparation.of(spec.config, prepare)


def _explained(outcome: TrialOutcome, trainer: Mapping[str, Any]) -> TrialOutcome:
    """Say of a metric that is missing since no trial would validate why that is: a rehearsal itself does not either."""
    why = why_no_validation(trainer)
    if why is None or not isinstance(outcome.error, MetricError):
        return outcome
    return TrialOutcome.failed(MetricError(str(outcome.error).replace("limit_val_batches is 0", why)))
