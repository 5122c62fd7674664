"""A study as text for a terminal: how far it is, its trials, its best one, several studies, and its summary.

Where a width is given, it is that of a line in characters, and tables are cut there.
"""

from __future__ import annotations

import shlex
import statistics
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lightningtune.contract import Objective
from lightningtune.files import dump_yaml
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.progress import RunningTrial, StudyProgress
from lightningtune.study.results import StudyResults, TrialResult, metric_column
from lightningtune.study.selection import PARAMS
from lightningtune.wording import (
    as_argument,
    clock,
    counted,
    format_rough_duration,
    format_value,
    number,
    parameters,
    printable,
    short,
    short_names,
    size,
)


def headline(study_name: str, objective: Objective, done: int, total: int) -> str:
    """Say what is about to run."""
    verbs = {"min": "minimize", "max": "maximize"}
    aims = ", ".join(f"{verbs[mode]} {name}" for name, mode in zip(objective.monitor, objective.mode, strict=True))
    if done >= total:
        return f"Study '{study_name}': {aims}. It has its {counted(total, 'trial')}; raise n_trials to go on."
    return f"Study '{study_name}': {aims}, {counted(total, 'trial')}" + (f", going on after {done}." if done else ".")


def summary(results: StudyResults, directory: StudyDirectory) -> str:
    """Write the best parameters and score, the comparison with the untuned defaults, and where the files lie."""
    lines = [f"Study '{results.study_name}': {_counts(results) or 'no trials'}"]
    if not results.best_trials:
        return "\n".join([*lines, results.why_none()])
    for trial in results.best_trials:
        lines += [f"Best: trial {trial.number}  {_values(results, trial)}", *_parameters(trial)]
    baseline = results.baseline
    if baseline is not None and baseline.state == "complete":
        gain = ""
        if not baseline.is_feasible:
            gain = "  (infeasible: not compared with)"
        elif len(results.directions) == 1 and results.improvement is not None:
            better = f"better by {results.improvement:.4g}" if results.improvement else "nothing better was found"
            gain = f"  ({better})"
        lines.append(f"Untuned defaults: {_values(results, baseline)}{gain}")
    if len(results.best_trials) == 1 and len(results.directions) == 1:
        lines.append(f"Config:     {directory.best_config}")
        if directory.best_checkpoint.exists():
            lines.append(f"Checkpoint: {directory.best_checkpoint}")
    else:
        lines.append(f"Configs and checkpoints: {directory.root / 'trials'}")
    if directory.report.exists():
        lines.append(f"Report:     {directory.report}")
    return "\n".join(lines)


def draw_best(
    results: StudyResults, chosen: int, directory: StudyDirectory, config: Mapping[str, Any] | None = None
) -> str:
    """Draw a trial: its values, its parameters, the untuned defaults beside it, where its files lie, and its config."""
    trial, baseline = results.trials[chosen], results.baseline
    is_best = chosen in results.best_numbers
    costs = [f"{counted(trial.epochs, 'epoch')} in {clock(trial.duration)}"] if trial.epochs else []
    if trial.facts.parameters is not None:
        costs.append(f"{trial.facts.parameters:,} parameters")
    if trial.facts.memory is not None:
        costs.append(size(trial.facts.memory))
    lines = {
        "Defaults": _values(results, baseline) if baseline is not None and baseline.values else "",
        "Again": describe_refits(results, trial),
        "Took": ", ".join(costs),
        "Checkpoint": str(trial.checkpoint or ""),
        "Config": "" if config is None else str(directory.config(trial.number)),
    }
    return "\n".join(
        [
            printable(f"Study '{results.study_name}', {'best: ' if is_best else ''}trial {trial.number}"),
            f"  {_values(results, trial)}{_gain(results) if is_best else ''}",
            "",
            *map(printable, _parameters(trial)),
            "",
            *(f"{name + ':':<12}{text}" for name, text in lines.items() if text),
            *([] if config is None else [textwrap.indent(dump_yaml(config), "  ").rstrip()]),
        ]
    )


def draw_status(progress: StudyProgress, width: int | None = None, latest: int = 10) -> str:
    """Draw how far a study is: its counts, the best trial, the time left, what runs and the latest that ended."""
    results = progress.results
    aims = ", ".join(f"{way} {metric}" for way, metric in zip(results.directions, results.metrics, strict=True))
    lines = [printable(f"Study '{results.study_name}': {aims}"), *_describe_progress(progress), ""]
    ended = [trial for trial in results.trials if trial.state not in {"running", "waiting"}]
    listed = ended[-latest:] if latest else []
    listed += [trial for trial in results.best_trials if trial not in listed]
    rows = [_ended_row(results, trial) for trial in sorted(listed, key=lambda trial: trial.number)]
    rows += [_running_row(results, trial) for trial in progress.running]
    if rows:
        header = ("trial", "", "state", *results.metrics, "epochs", "time", "parameters")
        lines.append(draw_table(header, rows, ("trial", *results.metrics, "epochs", "time"), width))
    if len(ended) > len(listed):
        words = ["lightningtune", "trials", *as_argument(results.study_name)]
        more = f"{counted(len(ended) - len(listed), 'more trial')}: {shlex.join(words)}"
        lines.append(_cut(printable(more), width))
    return "\n".join(lines).rstrip()


def _describe_progress(progress: StudyProgress) -> Iterator[str]:
    results = progress.results
    total = "" if progress.total is None else f" of {progress.total}"
    yield f"Trials: {progress.done}{total} done ({_counts(results) or 'none yet'})"
    if len(results.best_numbers) == 1:
        values = _values(results, results.best, separator=", ", sign=" ")
        yield f"Best: trial {results.best.number} with {values}{_gain(results)}"
        refits = describe_refits(results, results.best)
        if refits:
            yield f"Trained again: {refits}"
    elif results.best_numbers:
        yield f"Best: {len(results.best_numbers)} trials on the Pareto front"
    elif results.counts.get("complete"):
        yield "Best: none, for each trial that is complete violates a constraint"
    if progress.rate is not None:
        left = "" if progress.seconds_left is None else f", {format_rough_duration(progress.seconds_left)} left"
        rate = f"{progress.rate:,.0f}" if progress.rate >= 10 else f"{progress.rate:.2g}"
        yield f"Rate: {rate} trials an hour{left}"
    dead = [str(trial.number) for trial in progress.running if trial.is_dead]
    if dead:
        yield f"The process of trial {', '.join(dead)} has died. Run the study again, and it goes on."
    elif not progress.running:
        has_more = progress.total is not None and not progress.is_over
        more = " Run it again, and it goes on." if has_more else ""
        yield "It has all its trials." if progress.is_over else f"Nothing runs now.{more}"


def _ended_row(results: StudyResults, trial: TrialResult) -> tuple[str, ...]:
    values = [number(value) for value in trial.values or ()] or [""] * len(results.metrics)
    mark = "★" if trial.number in results.best_numbers else ""
    text = parameters(trial.params)
    if trial.outcome in {"fail", "interrupted"}:
        text = trial.detail
    elif _remarks(trial.is_baseline, trial.is_feasible):
        text += f" ({', '.join(_remarks(trial.is_baseline, trial.is_feasible))})"
    return str(trial.number), mark, trial.outcome, *values, str(trial.epochs), clock(trial.duration), text


def _running_row(results: StudyResults, trial: RunningTrial) -> tuple[str, ...]:
    values = [number(trial.value), *[""] * (len(results.metrics) - 1)]
    epochs = str(trial.epoch) if trial.epoch is not None else f"{trial.validations} val."
    if trial.epoch is not None and trial.max_epochs is not None:
        epochs = f"{trial.epoch}/{trial.max_epochs}"
    text = parameters(trial.params) + (" (untuned defaults)" if trial.is_baseline else "")
    state = "died" if trial.is_dead else "running"
    return str(trial.number), "", state, *values, epochs, clock(trial.seconds), text


def draw_studies(
    studies: Sequence[StudyProgress], unreadable: Mapping[str, str] = MappingProxyType({}), width: int | None = None
) -> str:
    """Draw a line for each study, and one with the reason for each folder that cannot be read."""
    header = ("study", "trials", "running", "metric", "best", "left")
    right = ("trials", "running", "best", "left")
    rows = [
        (
            progress.results.study_name,
            f"{progress.done}/{'?' if progress.total is None else progress.total}",
            str(len(progress.running) or ""),
            ", ".join(progress.results.metrics),
            _best_value(progress.results),
            "" if progress.seconds_left is None else format_rough_duration(progress.seconds_left),
        )
        for progress in studies
    ]
    lines = [draw_table(header, rows, right, width)] if rows else []
    return "\n".join([*lines, *(printable(f"{name}  cannot be read: {why}") for name, why in unreadable.items())])


def _best_value(results: StudyResults) -> str:
    if len(results.best_numbers) > 1:
        return f"{len(results.best_numbers)} on the Pareto front"
    return number(results.best.value) if results.best_numbers else ""


def draw_trials(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], width: int | None = None) -> str:
    """Draw trials, as `StudyResults.rows` returns them, and why those ended that did not complete."""
    columns = [name for name in rows[0] if name.startswith(PARAMS)]
    names = [*short_names(name[len(PARAMS) :] for name in columns).values()]
    numeric = [
        name
        for name, column in zip(names, columns, strict=True)
        if all(isinstance(row[column], (int, float, type(None))) for row in rows)
    ]
    lines = [
        [
            str(row["number"]),
            row["state"],
            *(number(row[metric_column(metric)]) for metric in metrics),
            *(short(row[column]) for column in columns),
            str(row["epochs"]),
            clock(row["duration"]),
            _describe_row(row),
        ]
        for row in rows
    ]
    header = ["trial", "state", *metrics, *names, "epochs", "time", ""]
    return draw_table(header, lines, ("trial", *metrics, *numeric, "epochs", "time"), width)


def _describe_row(row: Mapping[str, Any]) -> str:
    if row["continued_by"] is not None:
        return f"trial {row['continued_by']} goes on in its place"
    detail = [row["detail"]] if row["detail"] and row["state"] != "complete" else []
    return ", ".join([*_remarks(row["baseline"], row["feasible"]), *detail])


def describe_refits(results: StudyResults, trial: TrialResult) -> str:
    """Return the scores of a trial's refits, beside those of the untuned defaults; "" where there are none."""
    own, baseline = _describe_repetitions(results, trial), results.baseline
    if not own or baseline is None or baseline.number == trial.number:
        return own
    others = _describe_repetitions(results, baseline)
    return f"{own}; the untuned defaults: {others}" if others else own


def _describe_repetitions(results: StudyResults, trial: TrialResult) -> str:
    texts = []
    for index, metric in enumerate(results.metrics):
        scores = results.repetitions(trial.number, index)
        if scores:
            spread = f" ± {number(statistics.stdev(scores))}" if len(scores) > 1 else ""
            texts.append(f"{metric} {number(statistics.fmean(scores))}{spread}")
    return f"{', '.join(texts)} ({counted(len(scores), 'training')})" if texts else ""


def _gain(results: StudyResults) -> str:
    if results.improvement is None:
        return ""
    if results.improvement == 0:
        return ", no better than the untuned defaults"
    return f", better than the untuned defaults by {number(results.improvement)}"


def _counts(results: StudyResults) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in results.counts.items())


def _values(results: StudyResults, trial: TrialResult, separator: str = "  ", sign: str = " = ") -> str:
    pairs = zip(results.metrics, trial.values or (), strict=True)
    return separator.join(f"{metric}{sign}{number(value)}" for metric, value in pairs)


def _parameters(trial: TrialResult) -> list[str]:
    width = max(map(len, trial.params), default=0)
    return [f"  {name:<{width}}  {format_value(value)}" for name, value in trial.params.items()]


def _remarks(is_baseline: bool, is_feasible: bool) -> list[str]:
    return ["untuned defaults"] * is_baseline + ["infeasible"] * (not is_feasible)


def draw_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = (), width: int | None = None
) -> str:
    """Draw a table; ``right`` names the columns that stand to the right, and lines end at ``width`` characters.

    Example:
        >>> print(draw_table(("n", "state"), [("9", "complete"), ("10", "fail")], right=("n",)))
         n  state
         9  complete
        10  fail
    """
    lines = [[printable(" ".join(text.split()) if "\n" in text else text) for text in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    drawn = []
    for line in lines:
        cells = [
            text.rjust(size) if name in right else text.ljust(size)
            for name, text, size in zip(header, line, widths, strict=True)
        ]
        drawn.append(_cut("  ".join(cells).rstrip(), width))
    return "\n".join(drawn)


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else f"{line[: width - 1]}…"
