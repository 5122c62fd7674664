"""What dry runs say of a study, as findings: how they ended, and which parameters have changed nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from lightningtune.check.pruning import Reach
from lightningtune.check.report import Finding, Severity, named
from lightningtune.check.runs import Length, TriedPoint, extent_of
from lightningtune.contract import Objective, StopReason
from lightningtune.errors import ConfigurationError, MetricError
from lightningtune.wording import counted, format_value

_NAMED = 3
"""Runs that a sentence names."""
_ENOUGH = 3
"""Runs that train differently, which by chance alone seldom come to the same."""
_WITH_RESOURCES = ("HyperbandPruner", "SuccessiveHalvingPruner")


def of_ends(runs: Sequence[TriedPoint], objective: Objective) -> Iterator[Finding]:
    """Say which dry runs have failed, those that failed alike in one sentence."""
    failed: dict[str, list[TriedPoint]] = {}
    for run in runs:
        if run.outcome.reason is not StopReason.COMPLETED:
            failed.setdefault(_alike(run), []).append(run)
    for group in failed.values():
        yield Finding(_severity(group, runs, objective), _about(group[0]), f"{_which(group, runs)}: {_what(group[0])}")


def _alike(run: TriedPoint) -> str:
    return str(run.is_in_doubt) + run.outcome.reason.value + re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?", "#", run.outcome.detail)


def _about(run: TriedPoint) -> str:
    is_metric = isinstance(run.outcome.error, MetricError) or run.outcome.reason is StopReason.NON_FINITE
    return "metric" if is_metric else "run"


def _severity(group: Sequence[TriedPoint], runs: Sequence[TriedPoint], objective: Objective) -> Severity:
    """Some points of a space may diverge or be pruned by the user's code, but not all; none may raise."""
    if group[0].is_in_doubt:
        return "warning" if _about(group[0]) == "metric" else "note"
    reason, is_all = group[0].outcome.reason, len(group) == len(runs)
    if reason is StopReason.TIMED_OUT:  # it may compile, or wait for a disk, for the first time
        return "warning"
    if reason is StopReason.PRUNED:
        return "warning" if is_all else "note"
    diverges = reason is StopReason.NON_FINITE and objective.non_finite != "fail"
    return "warning" if diverges and not is_all else "error"


def _which(group: Sequence[TriedPoint], runs: Sequence[TriedPoint]) -> str:
    """Name the runs of a group, those first in which one parameter differs alone: they say most."""
    if len(group) == len(runs) > 1:
        return f"All {len(runs)} runs"
    ordered = sorted(group, key=lambda run: run.parameter is None)
    names = [run.name if i else named(run) for i, run in enumerate(ordered[:_NAMED])]
    others = f" and {len(group) - _NAMED} more" if len(group) > _NAMED else ""
    return f"{', '.join(names)}{others}"


def _what(run: TriedPoint) -> str:
    outcome = run.outcome
    if isinstance(outcome.error, ConfigurationError):  # it is a sentence by itself
        what = " ".join(str(outcome.error).split())
    elif outcome.reason is StopReason.PRUNED:
        what = f"pruned by its own code: {outcome.detail}"
    else:
        what = outcome.detail or outcome.reason.value.replace("_", " ")
    if not run.is_in_doubt:
        return what
    if _about(run) == "metric":
        return f"{what} That was the first epoch: a trial fails unless a later one logs it."
    return f"{what.rstrip('.')}. That may be due to the run being cut short: what follows could not be tried."


def of_parameters(runs: Sequence[TriedPoint]) -> Iterator[Finding]:
    """Name the parameters that have changed nothing, in no run in which they alone were another."""
    by_name = {run.name: run for run in runs}
    alone: dict[str, list[tuple[TriedPoint, TriedPoint]]] = {}
    for run in runs:
        base = by_name.get(run.base or "")
        if run.parameter is not None and base is not None:
            alone.setdefault(run.parameter, []).append((run, base))
    idle = {parameter: pairs for parameter, pairs in alone.items() if all(_is_same(*pair) for pair in pairs)}
    if idle:
        names = [
            f"'{parameter}' ({', '.join(format_value(run.values.get(parameter)) for run, _ in pairs)})"
            for parameter, pairs in idle.items()
        ]
        compared = next(iter(idle.values()))[0][1].name
        yield Finding(
            "warning",
            "parameter",
            f"{_listed(names)} changed nothing in {extent_of(runs)}: from the same seed came the same losses, metrics, "
            f"weights, optimizer and schedulers as with the {compared}, to the last bit. "
            f"{'Is it' if len(idle) == 1 else 'Are they'} used? What acts later, or on speed alone, cannot be seen "
            "here.",
        )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _is_same(run: TriedPoint, base: TriedPoint) -> bool:
    if run.noted is None or base.noted is None or not run.is_visible:
        return False
    return run.noted.identity == base.noted.identity


def of_metrics(runs: Sequence[TriedPoint], objective: Objective) -> tuple[str, str] | None:
    """Return between which values each metric lay, as a fact; None where none was logged."""
    parts = []
    for name in objective.monitor:
        found = [run.noted.metrics[name] for run in runs if run.noted is not None and name in run.noted.metrics]
        finite = [value for value in found if math.isfinite(value)]
        if finite:
            low, high = min(finite), max(finite)
            parts.append(f"{name} {low:.4g}" + (f" … {high:.4g}" if high > low else ""))
    return ("Metric", f"{', '.join(parts)} after {extent_of(runs)}") if parts else None


def of_constants(runs: Sequence[TriedPoint], objective: Objective) -> Iterator[Finding]:
    """Say of a metric that it was the same in runs that have trained differently."""
    noted = [run.noted for run in runs if run.noted is not None]
    if len({one.identity for one in noted}) < _ENOUGH:
        return
    for name in objective.monitor:
        found = [one.metrics.get(name, math.nan) for one in noted]
        if len({*found}) == 1 and math.isfinite(found[0]):
            said = f"'{name}' was {found[0]:.4g} in all {len(found)} runs, though they have trained differently"
            yield Finding("note", "metric", f"{said}. That may be too short to tell; or it tells nothing.")


def of_lengths(length: Length) -> Iterator[Finding]:
    """Say so where a trial ends before its first validation."""
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
    each = counted(validations, length.moment)
    counts = f" Its resources count {length.moment}s." if reach.pruner in _WITH_RESOURCES else ""
    if reach.is_whole and not reach.pruned:
        severity: Severity = "warning" if is_given else "note"
        why = f"even the worst of {counted(reach.trials, 'trial')} of {each} is not pruned"
        if validations == 1:
            why = f"a trial has one {length.moment}, which is its last"
        yield Finding(severity, "pruner", f"{reach.pruner} prunes nothing in this study: {why}.{counts}")
    elif largest is not None and largest > validations:
        yield Finding(
            "warning",
            "pruner",
            f"{reach.pruner}(max_resource={largest}), but a trial has {each}: some of its brackets prune nothing."
            f"{counts}",
        )
    elif largest is not None and largest < validations:
        yield Finding(
            "note",
            "pruner",
            f"{reach.pruner}(max_resource={largest}), and a trial has {each}: it has fewer brackets than it could "
            f"have.{counts}",
        )


def pruner_fact(reach: Reach | None, pruner: str, length: Length, objectives: int) -> tuple[str, str]:
    """Say from when on a pruner prunes."""
    validations, moment = length.validations, length.moment
    if objectives > 1:
        return "Pruner", "none: Optuna prunes no trial of several objectives"
    if validations is None:
        return "Pruner", f"{pruner}, in trials whose number of values is not known"
    if reach is None or reach.first_trial is None or reach.first_step is None:
        when = "not tried"
        if reach is not None:
            when = "not one trial"
            if not reach.is_whole:
                when = f"none of the first {reach.trials} trials, as far as it was tried"
        return "Pruner", f"{pruner}: {when}, of {counted(validations, moment)} each"
    first = reach.first_step + 1
    return "Pruner", f"{pruner}: from trial {reach.first_trial} on, and from {moment} {first} of {validations} on"
