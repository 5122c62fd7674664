"""Studies side by side: what each has found, what it took, and what differs in their definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightningtune.study.changes import flatten
from lightningtune.study.results import StudyResults

_NOT_COMPARED = {"study_name", "metric", "direction"}
"""Parts of a definition that stand among the findings, or differ always."""


@dataclass(frozen=True)
class Finding:
    """What one of several studies has come to.

    Attributes:
        study_name: its name.
        metrics: the tuned metrics.
        directions: "minimize" or "maximize" for each.
        best: the values of its best trial; of the best in the first metric, where there are several objectives; None
            when no trial completed.
        best_number: that trial's number.
        baseline: the values of the untuned defaults; None where they are not known.
        improvement: by how much the best is better.
        counts: how many trials have each outcome.
        epochs: of all trials together; those of one that was cut short are its successor's too, and count there.
        seconds: of all trials together.
    """

    study_name: str
    metrics: tuple[str, ...]
    directions: tuple[str, ...]
    best: tuple[float, ...] | None
    best_number: int | None
    baseline: tuple[float, ...] | None
    improvement: float | None
    counts: Mapping[str, int]
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Contrast:
    """Several studies side by side.

    Attributes:
        findings: one for each.
        winner: the place of the study with the best value; None where they do not tune the same, or are even.
        differences: dotted path into the definition → what stands there in each study; None where nothing does.
    """

    findings: tuple[Finding, ...]
    winner: int | None
    differences: Mapping[str, tuple[Any, ...]]


def finding_of(results: StudyResults) -> Finding:
    """Return what a study has come to."""
    sign = 1 if results.directions[0] == "minimize" else -1
    best = min(results.best_trials, key=lambda trial: sign * (trial.value or 0.0), default=None)
    baseline = results.baseline
    return Finding(
        study_name=results.study_name,
        metrics=results.metrics,
        directions=results.directions,
        best=None if best is None else best.values,
        best_number=None if best is None else best.number,
        baseline=baseline.values if baseline is not None and baseline.state == "complete" else None,
        improvement=results.improvement,
        counts=results.counts,
        epochs=sum(trial.epochs for trial in results.trials if trial.continued_by is None),
        seconds=sum(trial.duration for trial in results.trials),
    )


def contrast(findings: Sequence[Finding], definitions: Sequence[Mapping[str, Any]]) -> Contrast:
    """Put studies side by side.

    Args:
        findings: what each has come to.
        definitions: the ``study.yaml`` of each; empty where there is none.

    Example:
        >>> one, other = (Finding(n, ("acc",), ("maximize",), (v,), 0, None, None, {}, 9, 1.0)
        ...               for n, v in (("a", 0.5), ("b", 0.75)))
        >>> seen = contrast((one, other), ({"seed": 1, "n_trials": 5}, {"seed": 2, "n_trials": 5}))
        >>> seen.winner, dict(seen.differences)
        (1, {'seed': (1, 2)})
    """
    flat = [
        dict(flatten({name: part for name, part in definition.items() if name not in _NOT_COMPARED}))
        for definition in definitions
    ]
    paths = dict.fromkeys(path for one in flat for path in one)
    values = {path: tuple(one.get(path) for one in flat) for path in paths}
    differences = {path: found for path, found in values.items() if any(one != found[0] for one in found)}
    return Contrast(tuple(findings), _winner(findings), differences)


def _winner(findings: Sequence[Finding]) -> int | None:
    if len({(finding.metrics, finding.directions) for finding in findings}) > 1 or len(findings[0].metrics) > 1:
        return None
    sign = 1 if findings[0].directions == ("minimize",) else -1
    ranked = sorted(
        (sign * finding.best[0], place) for place, finding in enumerate(findings) if finding.best is not None
    )
    if not ranked or (len(ranked) > 1 and ranked[0][0] == ranked[1][0]):
        return None
    return ranked[0][1]
