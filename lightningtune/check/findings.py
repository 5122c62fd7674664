"""What dry runs say of a study: facts and findings about its metric, parameters, pruner, time, memory and disk."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from lightningtune.check.points import PrunerSchedule
from lightningtune.check.report import (
    DryRunNotes,
    Finding,
    Forecast,
    Severity,
    TriedPoint,
)
from lightningtune.contract import Objective, StopReason
from lightningtune.errors import ConfigurationError, MetricError
from lightningtune.wording import counted, format_duration, format_value, mask_numbers, size

Fact: TypeAlias = tuple[str, str]
"""A heading and a line."""
_NAMED_RUNS = 3
"""Runs that a sentence names."""
_DIFFERENT_RUNS = 3
"""Runs that train differently, and that seldom have the same metric by chance alone."""
_PRUNERS_WITH_RESOURCES = ("HyperbandPruner", "SuccessiveHalvingPruner")


def judge_ends(runs: Sequence[TriedPoint], objective: Objective) -> Iterator[Finding]:
    """Find the dry runs that have failed; those that fail alike are one finding."""
    groups: dict[tuple[bool, StopReason, str], list[TriedPoint]] = {}
    for run in runs:
        if run.outcome.reason is not StopReason.COMPLETED:
            kind = run.is_in_doubt, run.outcome.reason, mask_numbers(run.outcome.detail)
            groups.setdefault(kind, []).append(run)
    for group in groups.values():
        is_all, first = len(group) == len(runs), group[0]
        # a run in which one parameter differs alone says most
        ordered = sorted(group, key=lambda run: run.parameter is None)
        names = [run.name if i else str(run) for i, run in enumerate(ordered[:_NAMED_RUNS])]
        others = f" and {len(group) - _NAMED_RUNS} more" if len(group) > _NAMED_RUNS else ""
        who = f"All {len(runs)} runs" if is_all and len(runs) > 1 else f"{', '.join(names)}{others}"
        is_metric = isinstance(first.outcome.error, MetricError) or first.outcome.reason is StopReason.NON_FINITE
        severity = _severity(first, is_all, objective)
        yield Finding(severity, "metric" if is_metric else "run", f"{who}: {_describe_end(first)}")


def _severity(run: TriedPoint, is_all: bool, objective: Objective) -> Severity:
    """Some points of a space may diverge, or be pruned by the user's code, but not all; none may raise."""
    reason = run.outcome.reason
    if run.is_in_doubt or reason is StopReason.TIMED_OUT:  # the first run may compile, or wait for a disk
        return "warning"
    if reason is StopReason.PRUNED:
        return "warning" if is_all else "note"
    may_diverge = reason is StopReason.NON_FINITE and objective.non_finite != "fail"
    return "warning" if may_diverge and not is_all else "error"


def _describe_end(run: TriedPoint) -> str:
    outcome = run.outcome
    text = outcome.detail or outcome.reason.value.replace("_", " ")
    if isinstance(outcome.error, ConfigurationError):  # it is a sentence by itself
        text = " ".join(str(outcome.error).split())
    elif outcome.reason is StopReason.PRUNED:
        text = f"pruned by its own code: {outcome.detail}"
    if not run.is_in_doubt:
        return text
    if isinstance(outcome.error, MetricError):
        return f"{text} That was the first epoch: a trial fails unless a later one logs it."
    return f"{text.rstrip('.')}. That may be due to the shortened epoch."


def judge_parameters(runs: Sequence[TriedPoint]) -> Iterator[Finding]:
    """Find the parameters that changed nothing in any run in which they alone differed."""
    by_name = {run.name: run for run in runs}
    changes: dict[str, list[TriedPoint]] = {}
    for run in runs:
        if run.parameter is not None and run.base in by_name:
            changes.setdefault(run.parameter, []).append(run)
    idle = {
        parameter: changed
        for parameter, changed in changes.items()
        if all(_is_same(run, by_name[run.base or ""]) for run in changed)
    }
    if idle:
        names = [
            f"'{parameter}' ({', '.join(format_value(run.values.get(parameter)) for run in changed)})"
            for parameter, changed in idle.items()
        ]
        base = next(iter(idle.values()))[0].base
        who = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
        text = (
            f"{who} changed nothing in two batches: from the same seed came the same losses, metrics, weights, "
            f"optimizer and schedulers as with the {base}, to the last bit. "
            f"{'Is it' if len(idle) == 1 else 'Are they'} used? What acts later, or on speed alone, cannot be seen "
            "here."
        )
        yield Finding("warning", "parameter", text)


def _is_same(run: TriedPoint, base: TriedPoint) -> bool:
    return run.notes is not None and base.notes is not None and run.notes.identity == base.notes.identity


def judge_metrics(runs: Sequence[TriedPoint], objective: Objective) -> Iterator[Fact | Finding]:
    """Say between which values each metric lay, and find one that was the same in runs that trained differently."""
    notes = [run.notes for run in runs if run.notes is not None]
    are_different = len({one.identity for one in notes}) >= _DIFFERENT_RUNS
    ranges = []
    for name in objective.monitor:
        values = [one.metrics.get(name, math.nan) for one in notes]
        finite = [value for value in values if math.isfinite(value)]
        if finite:
            low, high = min(finite), max(finite)
            ranges.append(f"{name} {low:.4g}" + (f" … {high:.4g}" if high > low else ""))
        if are_different and len(finite) == len(values) and len({*values}) == 1:
            constant = f"'{name}' was {values[0]:.4g} in all {len(values)} runs, though they have trained differently"
            yield Finding("note", "metric", f"{constant}. That may be too short to tell; or it tells nothing.")
    if ranges:
        yield "Metric", f"{', '.join(ranges)} after two batches"


@dataclass(frozen=True)
class TrialLength:
    """How long a trial is; None where that cannot be told."""

    epochs: float | None  # possibly a fraction
    batches: int | None  # training batches of one epoch
    validations: int | None  # of a model without any: the epochs, after which it is then judged
    moment: str = "validation"  # or "epoch", accordingly

    @classmethod
    def from_notes(cls, notes: DryRunNotes) -> TrialLength:
        """Tell how long a trial is from the settings of its trainer and its numbers of batches.

        Example:
            >>> settings = {"max_epochs": 10, "val_check_batch": 50, "check_val_every_n_epoch": 1}
            >>> TrialLength.from_notes(DryRunNotes(train_batches=100, val_batches=20, settings=settings)).validations
            20
        """
        batches, settings = notes.train_batches, notes.settings
        max_epochs, max_steps = settings.get("max_epochs", -1), settings.get("max_steps", -1)
        epochs = float(max_epochs) if max_epochs >= 0 else math.inf
        if max_steps >= 0 and batches:
            epochs = min(epochs, max_steps / math.ceil(batches / settings.get("accumulate_grad_batches", 1)))
        if math.isinf(epochs):
            return cls(None, batches, None, "epoch" if notes.val_batches == 0 else "validation")
        if notes.val_batches == 0:
            return cls(epochs, batches, math.ceil(epochs), "epoch")
        return cls(epochs, batches, _count_validations(settings, epochs, batches))


def _count_validations(settings: Mapping[str, Any], epochs: float, batches: int | None) -> int | None:
    every, interval = settings["check_val_every_n_epoch"], settings["val_check_batch"]
    if interval is None:  # it is a time
        return None
    if math.isinf(interval):  # of a dataloader without a length: the end of the epoch
        return int(epochs) // int(every)
    if not batches:
        return None
    if every is None:  # the interval counts batches across epochs
        return int(epochs * batches) // int(interval)
    whole, rest = divmod(epochs, 1)
    in_rest = int(rest * batches) // interval if (whole + 1) % every == 0 else 0
    return int(int(whole) // every * (batches // interval) + in_rest)


def judge_pruner(schedule: PrunerSchedule, length: TrialLength, objectives: int) -> Iterator[Fact | Finding]:
    """Say from when on a pruner prunes, and find what it cannot do in this study."""
    name, validations, largest = schedule.pruner, length.validations, schedule.max_resource
    severity: Severity = "warning" if schedule.is_given else "note"
    if objectives > 1:
        yield "Pruner", "none: Optuna prunes no trial of several objectives"
        if schedule.is_given:
            yield Finding(severity, "pruner", f"{name} prunes nothing: Optuna prunes no trial of several objectives.")
    elif validations is None or not schedule.trials:
        yield "Pruner", f"{name}, which was not tried"
    else:
        each = counted(validations, length.moment)
        counts = f" Its resources count {length.moment}s." if name in _PRUNERS_WITH_RESOURCES else ""
        if schedule.first_trial is not None and schedule.first_step is not None:
            first = f"{length.moment} {schedule.first_step + 1} of {validations}"
            yield "Pruner", f"{name}: from trial {schedule.first_trial} on, and from {first} on"
        elif schedule.is_whole:
            why = f"even the worst of {counted(schedule.trials, 'trial')} of {each} is not pruned"
            why = f"a trial has one {length.moment}, which is its last" if validations == 1 else why
            yield Finding(severity, "pruner", f"{name} prunes nothing in this study: {why}.{counts}")
            return
        else:
            yield "Pruner", f"{name}: none of the first {schedule.trials} trials, as far as it was tried"
        if largest is not None and largest > validations:
            text = f"{name}(max_resource={largest}), but a trial has {each}: some of its brackets prune nothing."
            yield Finding("warning", "pruner", text + counts)


@dataclass(frozen=True)
class HostResources:
    """What this host has free, and how a study uses it; None where it cannot be told."""

    n_trials: int  # that are left to run
    jobs: int = 1  # trials at a time
    ranks: int = 1  # processes that train one trial together
    per_device: int = 1  # trials that share an accelerator
    kept: int = 0  # checkpoints that are on disk at a time, at most
    memory: int | None = None  # free bytes
    disk: int | None = None  # free bytes where the study's folder is


def make_forecast(runs: Sequence[TriedPoint], resources: HostResources, length: TrialLength | None) -> Forecast:
    """Sum up what the runs took, for all trials; the mean over the runs stands for that over the space."""
    each = sorted(seconds for run in runs if (seconds := trial_seconds(run)) is not None)
    memory = max((run.outcome.facts.memory or 0 for run in runs), default=0)
    checkpoint = max((run.notes.checkpoint or 0 for run in runs if run.notes is not None), default=0)
    return Forecast(
        seconds=statistics.mean(each) * math.ceil(resources.n_trials / resources.jobs) if each else None,
        trial_seconds=(each[0], statistics.mean(each), each[-1]) if each else None,
        memory=memory * resources.jobs * resources.ranks or None,
        disk=checkpoint * resources.kept or None,
        validations=None if length is None else length.validations,
    )


def trial_seconds(run: TriedPoint) -> float | None:
    """Return the seconds of a whole trial at this point, without pruning; None where that cannot be told."""
    notes = run.notes
    train_seconds = None if notes is None else notes.train_batch_seconds
    if notes is None or train_seconds is None:
        return None
    length = TrialLength.from_notes(notes)
    if length.epochs is None or length.batches is None:
        return None
    once = run.outcome.duration - notes.overhead - len(notes.train_seconds) * train_seconds
    validating = 0.0
    if notes.val_seconds:
        if length.validations is None or notes.val_batches is None:
            return None
        val_seconds = notes.val_seconds[:2][-1]  # the first warms up
        validating = length.validations * notes.val_batches * val_seconds
        once -= len(notes.val_seconds) * val_seconds
    return max(once, 0.0) + length.epochs * length.batches * train_seconds + validating


def judge_forecast(
    forecast: Forecast, runs: Sequence[TriedPoint], resources: HostResources, length: TrialLength | None
) -> Iterator[Fact | Finding]:
    """Say what the study takes, and find what there is too little of."""
    at_a_time = f"{resources.jobs} at a time"
    if forecast.seconds is not None and forecast.trial_seconds is not None:
        low, mean, high = map(format_duration, forecast.trial_seconds)
        spread = f" ({low} … {high})" if low != high else ""
        text = f"about {format_duration(forecast.seconds)}: {counted(resources.n_trials, 'trial')} of {mean}{spread}"
        yield "Time", f"{text}, {at_a_time}, none pruned ({_time_basis(runs, length)})"
    elif runs:
        yield "Time", "unknown: no run came to its end, or it cannot be told how long a trial is"
    if forecast.memory is not None:
        needed, free = size(forecast.memory), resources.memory
        yield "Memory", f"at most {needed}, {at_a_time}" + ("" if free is None else f"; {size(free)} are free")
        if free is not None and forecast.memory > free:
            text = (
                f"{counted(resources.jobs, 'trial')} at a time may need {needed} of memory, and {size(free)} are free"
            )
            yield Finding("warning", "memory", f"{text}: the system would kill trials. See n_jobs, and share_data.")
    device = max((run.outcome.facts.device_memory or 0 for run in runs), default=0) * resources.per_device
    total = max((run.notes.device_total or 0 for run in runs if run.notes is not None), default=0)
    if device and total:
        yield "GPU", f"at most {size(device)} of {size(total)} on each, {resources.per_device} at a time"
        if device > total:
            text = f"{counted(resources.per_device, 'trial')} that share an accelerator may need {size(device)} of its"
            yield Finding("warning", "memory", f"{text} {size(total)}. See trials_per_device.")
    if forecast.disk is not None:
        needed, free, kept = size(forecast.disk), resources.disk, counted(resources.kept, "checkpoint")
        text = f"at most {needed}: {kept} of {size(forecast.disk / resources.kept)} at a time"
        yield "Disk", text + ("" if free is None else f"; {size(free)} are free")
        if free is not None and forecast.disk > free:
            text = f"Checkpoints may take {needed}, and {size(free)} are free where the study's folder is."
            yield Finding("error", "disk", f"{text} See save_top_k, save_checkpoints and experiment_dir.")


def _time_basis(runs: Sequence[TriedPoint], length: TrialLength | None) -> str:
    each = format_duration(
        statistics.median(run.notes.train_batch_seconds or 0.0 for run in runs if run.notes is not None)
    )
    if length is None or length.epochs is None or length.batches is None:
        return f"a batch took {each}"
    is_told = length.validations is not None and length.moment == "validation"
    validations = f", {counted(length.validations or 0, 'validation')}" if is_told else ""
    return f"{counted(length.epochs, 'epoch')} of {counted(length.batches, 'batch')} of {each}{validations}"
