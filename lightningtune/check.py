"""Finds the problems of a study before it runs, by short trainings of the untuned defaults and the space's corners."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from lightningtune.dry_runs import IN_ALL, DryRuns, is_hopeless
from lightningtune.errors import ConfigurationError
from lightningtune.host import Host
from lightningtune.preflight import notices, plan_baseline
from lightningtune.report.check_findings import (
    of_constants,
    of_ends,
    of_lengths,
    of_metrics,
    of_parameters,
    of_pruner,
    pruner_fact,
)
from lightningtune.report.check_forecast import Means, facts_of, forecast_of, of_forecast
from lightningtune.report.check_report import CheckReport, Finding, Forecast, in_order
from lightningtune.report.check_runs import Length, TriedPoint, extent_of, length_of
from lightningtune.report.summary import headline
from lightningtune.search.corners import Corner, corners
from lightningtune.search.distributions import Parameter
from lightningtune.study.definition import count_finished, quiet_optuna
from lightningtune.study.objective import looks_reversed
from lightningtune.study.pruning import largest_resource, reach_of
from lightningtune.training.class_names import blocks_of
from lightningtune.training.dry_run import left_out
from lightningtune.wording import counted
from lightningtune.workers.devices import Slot
from lightningtune.workers.processes import TrialProcesses
from lightningtune.workers.travel import check_travels


class Checkable:
    """A study that can be checked before it runs.

    Attributes:
        seen_notes: notes that a person has seen in a check's report; the study does not repeat them.
    """

    seen_notes: frozenset[str] = frozenset()
    _host: Host
    _study_name: str
    _pruner: optuna.pruners.BasePruner | None
    _baseline: bool | Mapping[str, Any]
    _slots: Sequence[Slot]
    _seed: int | None
    _isolate: bool
    _study: optuna.Study | None

    def _processes(self) -> TrialProcesses:
        """Return what trains trials in processes of their own; nothing has begun.

        Raises:
            ConfigurationError: when something cannot travel there, naming it.
        """
        for callback in self._host.callbacks:
            check_travels(f"callbacks: {type(callback).__name__}", callback)
        check_travels("score", self._host.objective.score)
        return TrialProcesses(self._host.blueprint)

    def check(self, progress: Callable[[str], Any] | None = None) -> CheckReport:
        """Find in seconds the problems that the study would meet in hours; it is neither opened nor made.

        The untuned defaults and the corners of the space are trained for two batches each, in processes of their own
        where that is quick. The report covers metrics, parameters that change nothing, the pruner, time, memory and
        disk.

        Args:
            progress: is told what is tried now, a line for each run.

        Returns:
            What was tried, and what was found; ``print`` it.

        Raises:
            KeyboardInterrupt: after Ctrl-C.

        Example:
            ::

                report = optimizer.check()
                print(report)
                if report.ok:
                    optimizer.optimize()
        """
        began, host = time.monotonic(), self._host
        blueprint, config = host.blueprint, host.blueprint.config
        findings, runs, ranks = [*self._of_config()], list[TriedPoint](), 1
        with quiet_optuna():
            try:
                ranks = blueprint.check_trainer(config)
                points = corners(host.space, self._default_of if self._has_defaults() else None)
                dry_runs = DryRuns(
                    blueprint=blueprint,
                    objective=host.objective,
                    callbacks=host.callbacks,
                    slot=self._slots[0],
                    saves=host.save_checkpoints,
                    seed=self._seed or 0,
                    is_apart=self._isolate or ranks > 1,
                    processes=self._processes,
                )
                runs, left = dry_runs.run(points, progress or _silent, IN_ALL)
                findings += _of_left(left, runs)
            except ConfigurationError as mistake:
                findings.append(Finding("error", "config", str(mistake)))
            findings += [*of_ends(runs, host.objective), *of_parameters(runs), *of_constants(runs, host.objective)]
            taken = time.monotonic() - began
            facts, forecast = self._judged(runs, ranks, taken, findings)
        name = headline(self._study_name, host.objective, self._done(), host.n_trials)
        return CheckReport(name, in_order(findings), tuple(runs), tuple(facts), forecast, taken)

    def _judged(
        self, runs: Sequence[TriedPoint], ranks: int, taken: float, findings: list[Finding]
    ) -> tuple[list[tuple[str, str]], Forecast]:
        """Work out what was learnt, and add what is wrong with it."""
        first = next((run for run in runs if run.noted is not None), None)
        length = None
        facts = [("Tried", _tried(runs, taken))] if runs else []
        facts += filter(None, [of_metrics(runs, self._host.objective)])
        if first is not None and first.noted is not None:
            length = length_of(first.trainer, first.noted)
            findings += of_lengths(length)
            has_value = {*self._host.objective.monitor} <= {*first.noted.metrics}  # else only some validations log it
            valued = length if has_value else dataclasses.replace(length, validations=None)
            facts.append(self._of_pruner(valued, findings))
        means = self._means(ranks)
        forecast = forecast_of(runs, means, length)
        findings += of_forecast(forecast, runs, means)
        return [*facts, *facts_of(forecast, runs, means, length)], forecast

    def _of_pruner(self, length: Length, findings: list[Finding]) -> tuple[str, str]:
        """Try the pruner, and return from when on it prunes."""
        objectives, validations = len(self._host.objective.monitor), length.validations
        is_tried = objectives == 1 and validations is not None
        reach = reach_of(self._pruner, self._study_name, self._host.n_trials, validations or 0) if is_tried else None
        name = "MedianPruner" if self._pruner is None else type(self._pruner).__name__
        largest = largest_resource(self._pruner)
        findings += of_pruner(reach, name, self._pruner is not None, largest, length, objectives)
        return pruner_fact(reach, name, length, objectives)

    def _of_config(self) -> Iterator[Finding]:
        """Say what can be said without a run."""
        host, schema, config = self._host, self._host.blueprint.schema, self._host.blueprint.config
        for text in notices(host.objective, config):
            yield Finding("warning", "metric" if text == looks_reversed(host.objective) else "config", text)
        with quiet_optuna():
            _, note = plan_baseline(self._baseline, host.space, schema, config, host.blueprint)
        if note is not None:
            yield Finding("note", "space", note)
        callbacks = [*blocks_of((config.get("trainer") or {}).get("callbacks")), *host.callbacks]
        untried = left_out(schema.lookup(config, "trainer.logger"), callbacks)
        if untried:
            why = "a dry run makes no run of a tracker, and starts no search of its own"
            yield Finding("note", "run", f"Not tried: {', '.join(untried)}; {why}.")
        size = host.space.size
        if size is not None and size < host.n_trials:
            yield Finding(
                "note", "space", f"The space has {counted(size, 'point')}, fewer than the {host.n_trials} trials."
            )
        if not os.access(_there(host.directory.root), os.W_OK):
            yield Finding("error", "disk", f"The study's folder '{host.directory.root}' cannot be written to.")

    def _default_of(self, parameter: Parameter) -> Any:
        return self._host.blueprint.schema.lookup(self._host.blueprint.config, parameter.paths[0])

    def _has_defaults(self) -> bool:
        """Whether the config can be trained as it is."""
        try:
            self._host.blueprint.check(self._host.blueprint.config)
            for parameter in self._host.space.parameters or ():
                self._default_of(parameter)
        except ConfigurationError:
            return False
        return True

    def _done(self) -> int:
        """Return how many trials the study has already, as far as it was opened."""
        return 0 if self._study is None else min(count_finished(self._study), self._host.n_trials)

    def _means(self, ranks: int) -> Means:
        host, jobs, devices = self._host, len(self._slots), self._slots[0].devices
        kept = host.save_top_k + 3 * jobs  # of each that runs its best, its last, and one that is being written
        return Means(
            n_trials=host.n_trials - self._done(),
            jobs=jobs,
            ranks=ranks,
            per_device=sum(slot.devices == devices for slot in self._slots),
            kept=kept if host.save_checkpoints else 0,
            memory=_free_memory(),
            disk=shutil.disk_usage(_there(host.directory.root)).free,
        )


def _silent(text: str) -> None:
    """Say nothing."""


def _of_left(left: Sequence[Corner], runs: Sequence[TriedPoint]) -> Iterator[Finding]:
    if left:
        names = ", ".join(point.name for point in left)
        why = "since those before failed" if is_hopeless(runs) else f"since {IN_ALL:.0f} s were over"
        yield Finding("note", "run", f"Not tried, {why}: {names}.")


def _tried(runs: Sequence[TriedPoint], seconds: float) -> str:
    names = ", ".join(run.name for run in runs)
    return f"{counted(len(runs), 'run')} of {extent_of(runs)} in {seconds:.1f} s: {names}"


def _there(folder: Path) -> Path:
    """Return the nearest folder that exists already."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _free_memory() -> int | None:
    """Return the bytes of memory that this machine, and this control group, have left; None where it does not tell."""
    found = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    with contextlib.suppress(OSError, ValueError):  # there is no limit, and it says "max"
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / f"memory.{what}").read_text() for what in ("max", "current"))
        found.append(max(0, int(limit) - int(used)))
    return min(found, default=None)
