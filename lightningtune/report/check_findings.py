"""What rehearsals say of a study, as findings: how they ended, and which parameters have changed nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from lightningtune.contract import Objective, StopReason
from lightningtune.errors import ConfigurationError, MetricError
from lightningtune.report.check_report import Finding, Severity, named
from lightningtune.report.rehearsed import Length, Rehearsed
from lightningtune.search.corners import shown
from lightningtune.study.pruning import Reach
from lightningtune.wording import counted

_NAMED = 3
"""Runs that a sentence names."""
_ENOUGH = 3
"""Runs that train differently, which by chance alone seldom come to the same."""
_RESOURCES = "Its resources count validations."


def of_ends(runs: Sequence[Rehearsed], objective: Objective) -> Iterator[Finding]:
    """Say which rehearsals have failed, those that failed alike in one sentence."""
    failed: dict[str, list[Rehearsed]] = {}
    for run in runs:
        if run.outcome.reason is not StopReason.COMPLETED:
            failed.setdefault(_alike(run), []).append(run)
    for group in failed.values():
        yield Finding(_severity(group, runs, objective), _about(group[0]), f"{_which(group, runs)}: {_what(group[0])}")


def _alike(run: Rehearsed) -> str:
    return run.outcome.reason.value + re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?", "#", run.outcome.detail)


def _about(run: Rehearsed) -> str:
    is_metric = isinstance(run.outcome.error, MetricError) or run.outcome.reason is StopReason.NON_FINITE
    return "metric" if is_metric else "run"


def _severity(group: Sequence[Rehearsed], runs: Sequence[Rehearsed], objective: Objective) -> Severity:
    """Some points of a space may diverge or be pruned by the user's code, but not all; none may raise."""
    reason, is_all = group[0].outcome.reason, len(group) == len(runs)
    if reason is StopReason.TIMED_OUT:  # it may compile, or wait for a disk, for the first time
        return "warning"
    if reason is StopReason.PRUNED:
        return "warning" if is_all else "note"
    diverges = reason is StopReason.NON_FINITE and objective.non_finite != "fail"
    return "warning" if diverges and not is_all else "error"


def _which(group: Sequence[Rehearsed], runs: Sequence[Rehearsed]) -> str:
    """Name the runs of a group, those first in which one parameter differs alone: they say most."""
    if len(group) == len(runs) > 1:
        return f"All {len(runs)} runs"
    ordered = sorted(group, key=lambda run: run.parameter is None)
    names = [run.name if i else named(run) for i, run in enumerate(ordered[:_NAMED])]
    others = f" and {len(group) - _NAMED} more" if len(group) > _NAMED else ""
    return f"{', '.join(names)}{others}"


def _what(run: Rehearsed) -> str:
    if isinstance(run.outcome.error, ConfigurationError):  # it is a sentence by itself
        return " ".join(str(run.outcome.error).split())
    if run.outcome.reason is StopReason.PRUNED:
        return f"pruned by its own code: {run.outcome.detail}"
    return run.outcome.detail or run.outcome.reason.value.replace("_", " ")


def of_parameters(runs: Sequence[Rehearsed]) -> Iterator[Finding]:
    """Name the parameters that have changed nothing, in no run in which they alone were another."""
    by_name = {run.name: run for run in runs}
    alone: dict[str, list[tuple[Rehearsed, Rehearsed]]] = {}
    for run in runs:
        base = by_name.get(run.base or "")
        if run.parameter is not None and base is not None:
            alone.setdefault(run.parameter, []).append((run, base))
    idle = {parameter: pairs for parameter, pairs in alone.items() if all(_is_same(*pair) for pair in pairs)}
    if idle:
        names = [
            f"'{parameter}' ({', '.join(shown(run.values.get(parameter)) for run, _ in pairs)})"
            for parameter, pairs in idle.items()
        ]
        compared = next(iter(idle.values()))[0][1].name
        yield Finding(
            "warning",
            "parameter",
            f"{_listed(names)} changed nothing in two batches: from the same seed came the same losses, metrics, "
            f"weights, optimizer and schedulers as with the {compared}, to the last bit. "
            f"{'Is it' if len(idle) == 1 else 'Are they'} used? What acts later, or on speed alone, cannot be seen "
            "here.",
        )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _is_same(run: Rehearsed, base: Rehearsed) -> bool:
    if run.noted is None or base.noted is None or not run.is_visible:
        return False
    return run.noted.identity == base.noted.identity


def of_metrics(runs: Sequence[Rehearsed], objective: Objective) -> tuple[str, str] | None:
    """Return between which values each metric lay, as a fact; None where none was logged."""
    parts = []
    for name in objective.monitor:
        found = [run.noted.metrics[name] for run in runs if run.noted is not None and name in run.noted.metrics]
        finite = [value for value in found if math.isfinite(value)]
        if finite:
            low, high = min(finite), max(finite)
            parts.append(f"{name} {low:.4g}" + (f" … {high:.4g}" if high > low else ""))
    return ("Metric", f"{', '.join(parts)} after two batches") if parts else None


def of_constants(runs: Sequence[Rehearsed], objective: Objective) -> Iterator[Finding]:
    """Say of a metric that it was the same in runs that have trained differently."""
    noted = [run.noted for run in runs if run.noted is not None]
    if len({one.identity for one in noted}) < _ENOUGH:
        return
    for name in objective.monitor:
        found = [one.metrics.get(name, math.nan) for one in noted]
        if len({*found}) == 1 and math.isfinite(found[0]):
            said = f"'{name}' was {found[0]:.4g} in all {len(found)} runs, though they have trained differently"
            yield Finding("note", "metric", f"{said}. Two batches may be too few to tell; or it tells nothing.")


def of_lengths(trainer: Mapping[str, object], length: Length) -> Iterator[Finding]:
    """Say what is wrong with when a trial validates."""
    interval, batches = trainer.get("val_check_interval"), length.batches
    is_count = isinstance(interval, int) and not isinstance(interval, bool)
    if is_count and batches is not None and trainer.get("check_val_every_n_epoch", 1) is not None:
        assert isinstance(interval, int)
        if interval > batches:
            text = f"val_check_interval={interval} is more than the {batches} training batches of an epoch"
            yield Finding("error", "config", f"{text}, which Lightning refuses; see check_val_every_n_epoch.")
            return
    if length.validations == 0:
        epochs = "" if length.epochs is None else f" of {length.epochs:.3g} epochs"
        yield Finding("warning", "config", f"A trial{epochs} ends before its first validation.")


def of_pruner(
    reach: Reach | None, pruner: str | None, is_given: bool, largest: int | None, length: Length, objectives: int
) -> Iterator[Finding]:
    """Say what a pruner cannot do in this study.

    Args:
        reach: what it did when it was tried; None where it was not.
        pruner: its class, as the user gave it; None for Optuna's default.
        is_given: whether the user gave it.
        largest: the ``max_resource`` of Hyperband.
        length: of a trial.
        objectives: how many metrics are tuned.
    """
    if objectives > 1:
        if is_given:
            yield Finding(
                "warning", "pruner", f"{pruner} prunes nothing: Optuna prunes no trial of several objectives."
            )
        return
    validations = length.validations
    if reach is None or validations is None:
        return
    if reach.is_whole and not reach.pruned:
        severity: Severity = "warning" if is_given else "note"
        each = counted(validations, "validation")
        why = f"even the worst of {counted(reach.trials, 'trial')} of {each} is not pruned"
        if validations == 1:
            why = "a trial has one validation, which is its last"
        yield Finding(severity, "pruner", f"{reach.pruner} prunes nothing in this study: {why}. {_RESOURCES}")
    elif largest is not None and largest > validations:
        yield Finding(
            "warning",
            "pruner",
            f"{reach.pruner}(max_resource={largest}), but a trial has {validations} validations: some of its brackets "
            f"prune nothing. {_RESOURCES}",
        )
    elif largest is not None and largest < validations:
        yield Finding(
            "note",
            "pruner",
            f"{reach.pruner}(max_resource={largest}), and a trial has {validations} validations: it has fewer brackets "
            f"than it could have. {_RESOURCES}",
        )


def pruner_fact(reach: Reach | None, pruner: str, validations: int | None, objectives: int) -> tuple[str, str]:
    """Say from when on a pruner prunes."""
    if objectives > 1:
        return "Pruner", "none: Optuna prunes no trial of several objectives"
    if validations is None:
        return "Pruner", f"{pruner}, in trials whose number of validations is not known"
    if reach is None or reach.first_trial is None or reach.first_step is None:
        when = "not tried"
        if reach is not None:
            when = "not one trial"
            if not reach.is_whole:
                when = f"none of the first {reach.trials} trials, as far as it was tried"
        return "Pruner", f"{pruner}: {when}, of {counted(validations, 'validation')} each"
    first = reach.first_step + 1
    return "Pruner", f"{pruner}: from trial {reach.first_trial} on, and from validation {first} of {validations} on"
