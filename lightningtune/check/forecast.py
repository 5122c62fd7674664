"""What a whole study takes by its dry runs: time, memory and disk, each with its basis."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lightningtune.check.report import Finding, Forecast
from lightningtune.check.runs import Length, TriedPoint, seconds_of
from lightningtune.wording import counted, size, spent


@dataclass(frozen=True)
class Means:
    """What there is, and how a study uses it; None where it cannot be told.

    Attributes:
        n_trials: those that are left to run.
        jobs: trials at a time.
        ranks: processes that train one trial together.
        per_device: trials that share an accelerator.
        kept: checkpoints that are on disk at a time, at most.
        memory: bytes of memory that are free.
        disk: bytes that are free where the study's folder is.
    """

    n_trials: int
    jobs: int = 1
    ranks: int = 1
    per_device: int = 1
    kept: int = 0
    memory: int | None = None
    disk: int | None = None


def forecast_of(runs: Sequence[TriedPoint], means: Means, length: Length | None) -> Forecast:
    """Sum up what the runs took, for all trials; the mean over the corners stands for that over the space."""
    each = sorted(seconds for run in runs if (seconds := seconds_of(run)) is not None)
    most = max((run.outcome.facts.memory or 0 for run in runs), default=0)
    largest = max((run.noted.checkpoint or 0 for run in runs if run.noted is not None), default=0)
    return Forecast(
        seconds=statistics.mean(each) * math.ceil(means.n_trials / means.jobs) if each else None,
        trial_seconds=(each[0], statistics.mean(each), each[-1]) if each else None,
        memory=most * means.jobs * means.ranks or None,
        disk=largest * means.kept or None,
        validations=None if length is None else length.validations,
    )


def facts_of(
    forecast: Forecast, runs: Sequence[TriedPoint], means: Means, length: Length | None
) -> Iterator[tuple[str, str]]:
    """Say what the study takes, and by what that is known."""
    at_a_time = f"{means.jobs} at a time"
    if forecast.seconds is not None and forecast.trial_seconds is not None:
        low, mean, high = map(spent, forecast.trial_seconds)
        spread = f" ({low} … {high})" if low != high else ""
        text = f"about {spent(forecast.seconds)}: {counted(means.n_trials, 'trial')} of {mean}{spread}"
        yield "Time", f"{text}, {at_a_time}, none pruned ({_basis(runs, length)})"
    elif runs:
        yield "Time", f"unknown: {_why_no_time(runs, length)}"
    if forecast.memory is not None:
        free = f"; {size(means.memory)} are free" if means.memory is not None else ""
        yield "Memory", f"at most {size(forecast.memory)}, {at_a_time}{free}"
    device = max((run.outcome.facts.device_memory or 0 for run in runs), default=0)
    total = _device_total(runs)
    if device and total:
        yield "GPU", f"at most {size(device * means.per_device)} of {size(total)} on each, {means.per_device} at a time"
    if forecast.disk is not None:
        free = f"; {size(means.disk)} are free" if means.disk is not None else ""
        each = size(forecast.disk / means.kept)
        yield "Disk", f"at most {size(forecast.disk)}: {counted(means.kept, 'checkpoint')} of {each} at a time{free}"


def _basis(runs: Sequence[TriedPoint], length: Length | None) -> str:
    each = spent(statistics.median(run.noted.seconds_each[0] or 0.0 for run in runs if run.noted is not None))
    if length is None or length.epochs is None or length.batches is None:
        return f"a batch took {each}"
    is_told = length.validations is not None and length.moment == "validation"
    validations = f", {counted(length.validations or 0, 'validation')}" if is_told else ""
    return f"{counted(length.epochs, 'epoch')} of {counted(length.batches, 'batch')} of {each}{validations}"


def _why_no_time(runs: Sequence[TriedPoint], length: Length | None) -> str:
    if all(run.noted is None for run in runs):
        return "no run came to its end"
    if length is not None and length.batches is None:
        return "a dataloader does not tell its length"
    return "it is not said how many epochs a trial has, or when it validates"


def _device_total(runs: Sequence[TriedPoint]) -> int:
    return max((run.noted.device_total or 0 for run in runs if run.noted is not None), default=0)


def of_forecast(forecast: Forecast, runs: Sequence[TriedPoint], means: Means) -> Iterator[Finding]:
    """Say what there is too little of."""
    if forecast.memory is not None and means.memory is not None and forecast.memory > means.memory:
        yield Finding(
            "warning",
            "memory",
            f"{counted(means.jobs, 'trial')} at a time may need {size(forecast.memory)} of memory, and "
            f"{size(means.memory)} are free: the system would kill trials. See n_jobs, and share_data.",
        )
    device = max((run.outcome.facts.device_memory or 0 for run in runs), default=0) * means.per_device
    total = _device_total(runs)
    if total and device > total:
        yield Finding(
            "warning",
            "memory",
            f"{counted(means.per_device, 'trial')} that share an accelerator may need {size(device)} of its "
            f"{size(total)}. See trials_per_device.",
        )
    if forecast.disk is not None and means.disk is not None and forecast.disk > means.disk:
        yield Finding(
            "error",
            "disk",
            f"Checkpoints may take {size(forecast.disk)}, and {size(means.disk)} are free where the study's folder is. "
            "See save_top_k, save_checkpoints and experiment_dir.",
        )
