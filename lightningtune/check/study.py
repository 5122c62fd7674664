"""Check a study before it runs: short trainings of the untuned defaults and of the ends of its space."""

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

from lightningtune.check.dry_run import left_out
from lightningtune.check.findings import (
    of_constants,
    of_ends,
    of_lengths,
    of_metrics,
    of_parameters,
    of_pruner,
    pruner_fact,
)
from lightningtune.check.forecast import Means, facts_of, forecast_of, of_forecast
from lightningtune.check.points import Corner, corners
from lightningtune.check.pruning import largest_resource, reach_of
from lightningtune.check.report import CheckReport, Finding, Forecast, in_order
from lightningtune.check.runner import IN_ALL, DryRuns, is_hopeless
from lightningtune.check.runs import TriedPoint, extent_of, length_of
from lightningtune.config.base import as_list
from lightningtune.errors import ConfigurationError
from lightningtune.host import Host
from lightningtune.preflight import notices, plan_baseline
from lightningtune.report.terminal import headline
from lightningtune.search.parameters import Parameter
from lightningtune.study.opening import quiet_optuna
from lightningtune.wording import counted
from lightningtune.workers.devices import Slot
from lightningtune.workers.processes import TrialProcesses


def check_study(
    host: Host,
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
    """Train the points of a study's space for two batches each, and report what that shows.

    Args:
        host: of the study; none of its trials runs.
        study_name: the study's name, from which Hyperband draws a trial's bracket.
        pruner: Optuna's default when None.
        baseline: the untuned defaults, as `plan_baseline` takes them.
        seed: of the study, where the config has none.
        slots: where trials run at a time; dry runs run in the first.
        is_isolated: whether each trial has a process of its own.
        processes: makes what trains there.
        done: trials that the study has already.
        progress: is told what is tried now, a line for each run.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
    """
    began, blueprint = time.monotonic(), host.blueprint
    findings, runs, ranks = [*_check_config(host, baseline)], list[TriedPoint](), 1
    with quiet_optuna():
        try:
            ranks = blueprint.check_trainer(blueprint.config)
            dry_runs = DryRuns(
                blueprint=blueprint,
                objective=host.objective,
                callbacks=host.callbacks,
                slot=slots[0],
                saves=host.save_checkpoints,
                seed=seed or 0,
                is_apart=is_isolated or ranks > 1,
                processes=processes,
            )
            points = corners(host.space, _find_defaults(host))
            runs, left = dry_runs.run(points, progress or (lambda text: None), IN_ALL)
            findings += _name_left_points(left, runs)
        except ConfigurationError as mistake:
            findings.append(Finding("error", "config", str(mistake)))
        findings += [*of_ends(runs, host.objective), *of_parameters(runs), *of_constants(runs, host.objective)]
        seconds = time.monotonic() - began
        facts, length = [_describe_runs(runs, seconds)] if runs else [], None
        facts += filter(None, [of_metrics(runs, host.objective)])
        first = next((run for run in runs if run.noted is not None), None)
        if first is not None and first.noted is not None:
            length = length_of(first.trainer, first.noted)
            findings += of_lengths(length)
            # a metric that only some validations log has fewer values than there are validations
            has_value = {*host.objective.monitor} <= {*first.noted.metrics}
            counts = length if has_value else dataclasses.replace(length, validations=None)
            objectives, validations = len(host.objective.monitor), counts.validations
            is_tried = objectives == 1 and validations is not None
            reach = reach_of(pruner, study_name, host.n_trials, validations or 0) if is_tried else None
            name = "MedianPruner" if pruner is None else type(pruner).__name__
            findings += of_pruner(reach, name, pruner is not None, largest_resource(pruner), counts, objectives)
            facts.append(pruner_fact(reach, name, counts, objectives))
    means = _means(host, slots, ranks, done)
    forecast: Forecast = forecast_of(runs, means, length)
    findings += of_forecast(forecast, runs, means)
    facts += facts_of(forecast, runs, means, length)
    name = headline(study_name, host.objective, done, host.n_trials)
    return CheckReport(name, in_order(findings), tuple(runs), tuple(facts), forecast, seconds)


def _check_config(host: Host, baseline: bool | Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what can be found without a run."""
    schema, config = host.blueprint.schema, host.blueprint.config
    for notice in notices(host.objective, config):
        yield Finding("warning", notice.subject, notice.detail)
    with quiet_optuna():
        _, note = plan_baseline(baseline, host.space, schema, config, host.blueprint)
    if note is not None:
        yield Finding("note", note.subject, note.detail)
    callbacks = [*as_list((config.get("trainer") or {}).get("callbacks")), *host.callbacks]
    untried = left_out(schema.lookup(config, "trainer.logger"), callbacks)
    if untried:
        why = "a dry run makes no run of a tracker, and starts no search of its own"
        yield Finding("note", "run", f"Not tried: {', '.join(untried)}; {why}.")
    size = host.space.size
    if size is not None and size < host.n_trials:
        yield Finding(
            "note", "space", f"The space has {counted(size, 'point')}, fewer than the {host.n_trials} trials."
        )
    if not os.access(_nearest_folder(host.directory.root), os.W_OK):
        yield Finding("error", "disk", f"The study's folder '{host.directory.root}' cannot be written to.")


def _find_defaults(host: Host) -> Callable[[Parameter], Any] | None:
    """Return what looks up the default of a parameter; None where the config cannot be trained as it is."""
    blueprint = host.blueprint

    def default_of(parameter: Parameter) -> Any:
        return blueprint.schema.lookup(blueprint.config, parameter.paths[0])

    try:
        blueprint.check(blueprint.config)
        for parameter in host.space.parameters or ():
            default_of(parameter)
    except ConfigurationError:
        return None
    return default_of


def _name_left_points(left: Sequence[Corner], runs: Sequence[TriedPoint]) -> Iterator[Finding]:
    if left:
        names = ", ".join(point.name for point in left)
        why = "since those before failed" if is_hopeless(runs) else f"since {IN_ALL:.0f} s were over"
        yield Finding("note", "run", f"Not tried, {why}: {names}.")


def _describe_runs(runs: Sequence[TriedPoint], seconds: float) -> tuple[str, str]:
    names = ", ".join(run.name for run in runs)
    return "Tried", f"{counted(len(runs), 'run')} of {extent_of(runs)} in {seconds:.1f} s: {names}"


def _means(host: Host, slots: Sequence[Slot], ranks: int, done: int) -> Means:
    # each running trial has its best checkpoint, its last, and one that is being written
    kept = host.save_top_k + 3 * len(slots) if host.save_checkpoints else 0
    return Means(
        n_trials=host.n_trials - done,
        jobs=len(slots),
        ranks=ranks,
        per_device=sum(slot.devices == slots[0].devices for slot in slots),
        kept=kept,
        memory=_free_memory(),
        disk=shutil.disk_usage(_nearest_folder(host.directory.root)).free,
    )


def _nearest_folder(folder: Path) -> Path:
    """Return the folder itself or its nearest parent that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _free_memory() -> int | None:
    """Return the free bytes of memory of this machine and control group; None where the system does not tell."""
    found = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    with contextlib.suppress(OSError, ValueError):  # a group without a limit says "max"
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / f"memory.{what}").read_text() for what in ("max", "current"))
        found.append(max(0, int(limit) - int(used)))
    return min(found, default=None)
