"""Studies side by side: what each has found, what it took, and what differs in their definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightningtune.report.terminal import draw_table
from lightningtune.study.changes import flatten
from lightningtune.study.results import StudyResults
from lightningtune.wording import clock, number

_NOT_COMPARED = {"study_name", "metric", "direction"}
"""Parts of a definition that the table has already, or that differ always."""
_LONGEST = 40
_OUTCOMES = ("complete", "pruned", "fail", "interrupted", "running", "waiting")


@dataclass(frozen=True)
class ComparedStudy:
    """What one of several studies has found."""

    study_name: str
    metrics: tuple[str, ...]
    directions: tuple[str, ...]
    best: tuple[float, ...] | None  # the values of its best trial, in the first metric where there are several
    best_number: int | None
    baseline: tuple[float, ...] | None  # the values of the untuned defaults
    improvement: float | None  # of the best over the untuned defaults
    counts: Mapping[str, int]  # trials of each outcome
    epochs: int  # of all trials; those of one that was cut short are its successor's too, and count there
    seconds: float  # of all trials


@dataclass(frozen=True)
class Comparison:
    """Several studies side by side."""

    studies: tuple[ComparedStudy, ...]
    winner: int | None  # the index of the study with the best value; None where they do not tune the same, or are even
    differences: Mapping[str, tuple[Any, ...]]  # path into the definition → what each study has there


def compare_studies(several: Sequence[StudyResults], definitions: Sequence[Mapping[str, Any]]) -> Comparison:
    """Put studies side by side, each with its ``study.yaml``, which is empty where there is none."""
    studies = tuple(map(_sum_up, several))
    flat = [
        dict(flatten({name: part for name, part in definition.items() if name not in _NOT_COMPARED}))
        for definition in definitions
    ]
    values = {
        path: tuple(one.get(path) for one in flat) for path in dict.fromkeys(path for one in flat for path in one)
    }
    differences = {path: found for path, found in values.items() if any(one != found[0] for one in found)}
    return Comparison(studies, _find_winner(studies), differences)


def _sum_up(results: StudyResults) -> ComparedStudy:
    sign = 1 if results.directions[0] == "minimize" else -1
    best = min(results.best_trials, key=lambda trial: sign * (trial.value or 0.0), default=None)
    baseline = results.baseline
    return ComparedStudy(
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


def _find_winner(studies: Sequence[ComparedStudy]) -> int | None:
    if len({(study.metrics, study.directions) for study in studies}) > 1 or len(studies[0].metrics) > 1:
        return None
    sign = 1 if studies[0].directions == ("minimize",) else -1
    ranked = sorted((sign * study.best[0], index) for index, study in enumerate(studies) if study.best is not None)
    if not ranked or (len(ranked) > 1 and ranked[0][0] == ranked[1][0]):
        return None
    return ranked[0][1]


def draw_comparison(comparison: Comparison, width: int | None = None) -> str:
    """Draw studies as the columns of a table, and below, what differs in their definitions."""
    names = [study.study_name for study in comparison.studies]
    marked = [f"{name}{' ★' if index == comparison.winner else ''}" for index, name in enumerate(names)]
    columns = [_make_column(study) for study in comparison.studies]
    rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
    found = draw_table(("", *marked), [row for row in rows if any(row[1:])], width=width)
    if not comparison.differences:
        return f"{found}\n\nNothing that was written down of them differs."
    differences = [(path, *map(_shorten, values)) for path, values in comparison.differences.items()]
    return f"{found}\n\n{draw_table(('what differs', *names), differences, width=width)}"


def _make_column(study: ComparedStudy) -> dict[str, str]:
    trial = "" if study.best_number is None else f"  (trial {study.best_number})"
    return {
        "aim": ", ".join(f"{way} {name}" for way, name in zip(study.directions, study.metrics, strict=True)),
        "best": ", ".join(map(number, study.best or ())) + trial,
        "untuned defaults": ", ".join(map(number, study.baseline or ())),
        "better by": number(study.improvement),
        **{outcome: str(study.counts.get(outcome, "")) for outcome in _OUTCOMES},
        "epochs": str(study.epochs),
        "time of all trials": clock(study.seconds),
    }


def _shorten(value: Any) -> str:
    text = "" if value is None else " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
