"""One trial of a study, its best one as a rule, drawn for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from lightningtune.files import dump_yaml
from lightningtune.report.status import gain, trained_again
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.results import StudyResults, TrialResult
from lightningtune.wording import clock, counted, format_value, number, printable, size


def draw_best(
    results: StudyResults, chosen: int, directory: StudyDirectory, config: Mapping[str, Any] | None = None
) -> str:
    """Draw a trial: its values, its parameters, the untuned defaults beside it, where its files lie, and its config.

    Args:
        results: of the study.
        chosen: the trial's number.
        directory: the study's folder.
        config: what the trial was trained with, where that is known.
    """
    return "\n".join(_lines(results, results.trials[chosen], directory, config))


def _lines(
    results: StudyResults, trial: TrialResult, directory: StudyDirectory, config: Mapping[str, Any] | None
) -> Iterator[str]:
    is_best = trial.number in results.best_numbers
    values = "  ".join(_values(results, trial))
    yield printable(f"Study '{results.study_name}', {'best: ' if is_best else ''}trial {trial.number}")
    yield f"  {values}{gain(results) if is_best else ''}"
    yield ""
    width = max(map(len, trial.params), default=0)
    yield from (printable(f"  {name:<{width}}  {format_value(value)}") for name, value in trial.params.items())
    yield ""
    baseline = results.baseline
    rows = {
        "Defaults": "  ".join(_values(results, baseline)) if baseline is not None and baseline.values else "",
        "Again": trained_again(results, trial),
        "Took": ", ".join(_costs(trial)),
        "Checkpoint": str(trial.checkpoint or ""),
        "Config": "" if config is None else str(directory.config(trial.number)),
    }
    yield from (f"{name + ':':<12}{text}" for name, text in rows.items() if text)
    if config is not None:
        yield textwrap.indent(dump_yaml(config), "  ").rstrip()


def _values(results: StudyResults, trial: TrialResult) -> Iterator[str]:
    for metric, value in zip(results.metrics, trial.values or (), strict=True):
        yield f"{metric} = {number(value)}"


def _costs(trial: TrialResult) -> Iterator[str]:
    if trial.epochs:
        yield f"{counted(trial.epochs, 'epoch')} in {clock(trial.duration)}"
    if trial.facts.parameters is not None:
        yield f"{trial.facts.parameters:,} parameters"
    if trial.facts.memory is not None:
        yield size(trial.facts.memory)
