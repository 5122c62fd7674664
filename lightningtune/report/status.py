"""How far a study is, drawn for a terminal."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Iterator

from lightningtune.report.tables import cut, table
from lightningtune.study.progress import RunningTrial, StudyProgress
from lightningtune.study.results import StudyResults, TrialResult
from lightningtune.wording import about, as_argument, clock, counted, number, parameters, printable

_LATEST = 10


def draw_status(progress: StudyProgress, width: int | None = None, latest: int = _LATEST) -> str:
    """Draw how far a study is: its counts, the best trial, the time left, what runs and what ended last.

    Args:
        progress: of the study.
        width: characters of a line of the table; nothing is cut when not given.
        latest: how many of the trials that ended last are shown.
    """
    results = progress.results
    aims = ", ".join(f"{way} {metric}" for way, metric in zip(results.directions, results.metrics, strict=True))
    lines = [printable(f"Study '{results.study_name}': {aims}"), *_summary(progress), ""]
    ended = [trial for trial in results.trials if trial.state not in {"running", "waiting"}]
    shown = ended[-latest:] if latest else []
    shown += [trial for trial in results.best_trials if trial not in shown]
    running = {trial.number: trial for trial in progress.running}
    rows = [_ended_row(results, trial) for trial in sorted(shown, key=lambda trial: trial.number)]
    rows += [_running_row(results, trial) for trial in running.values()]
    if rows:
        header = ("trial", "", "state", *results.metrics, "epochs", "time", "parameters")
        lines.append(table(header, rows, right=("trial", *results.metrics, "epochs", "time"), width=width))
    if len(ended) > len(shown):
        words = ["lightningtune", "trials", *as_argument(results.study_name)]
        more = f"{counted(len(ended) - len(shown), 'more trial')}: {shlex.join(words)}"
        lines.append(cut(printable(more), width))
    return "\n".join(lines).rstrip()


def _summary(progress: StudyProgress) -> Iterator[str]:
    results = progress.results
    counts = ", ".join(f"{count} {state}" for state, count in results.counts.items()) or "none yet"
    total = "" if progress.total is None else f" of {progress.total}"
    yield f"Trials: {progress.done}{total} done ({counts})"
    if len(results.best_numbers) == 1:
        yield f"Best: trial {results.best.number} with {_values(results, results.best)}{gain(results)}"
        again = trained_again(results, results.best)
        if again:
            yield f"Trained again: {again}"
    elif results.best_numbers:
        yield f"Best: {len(results.best_numbers)} trials on the Pareto front"
    elif results.counts.get("complete"):
        yield "Best: none, for each trial that is complete violates a constraint"
    if progress.rate is not None:
        left = "" if progress.seconds_left is None else f", {about(progress.seconds_left)} left"
        rate = f"{progress.rate:,.0f}" if progress.rate >= 10 else f"{progress.rate:.2g}"
        yield f"Rate: {rate} trials an hour{left}"
    dead = [trial for trial in progress.running if trial.is_dead]
    if dead:
        numbers = ", ".join(str(trial.number) for trial in dead)
        yield f"The process of trial {numbers} has died. Run the study again, and it goes on."
    elif not progress.running:
        has_more = progress.total is not None and not progress.is_over
        more = " Run it again, and it goes on." if has_more else ""
        yield "It has all its trials." if progress.is_over else f"Nothing runs now.{more}"


def gain(results: StudyResults) -> str:
    """Say what the search has gained over the untuned defaults; nothing where that is not known."""
    if results.improvement is None:
        return ""
    if results.improvement == 0:
        return ", no better than the untuned defaults"
    return f", better than the untuned defaults by {number(results.improvement)}"


def trained_again(results: StudyResults, trial: TrialResult) -> str:
    """Say what the refits of a trial came to, beside those of the untuned defaults; nothing where there are none."""
    baseline = results.baseline
    own = _repetitions(results, trial)
    others = _repetitions(results, baseline) if baseline is not None and baseline.number != trial.number else ""
    return f"{own}; the untuned defaults: {others}" if own and others else own


def _repetitions(results: StudyResults, trial: TrialResult) -> str:
    texts = []
    for index, metric in enumerate(results.metrics):
        scores = results.repetitions(trial.number, index)
        if scores:
            spread = f" ± {number(statistics.stdev(scores))}" if len(scores) > 1 else ""
            texts.append(f"{metric} {number(statistics.fmean(scores))}{spread}")
    return f"{', '.join(texts)} ({counted(len(scores), 'training')})" if texts else ""


def _values(results: StudyResults, trial: TrialResult) -> str:
    return ", ".join(
        f"{metric} {number(value)}" for metric, value in zip(results.metrics, trial.values or (), strict=True)
    )


def _ended_row(results: StudyResults, trial: TrialResult) -> tuple[str, ...]:
    values = [number(value) for value in trial.values or ()] or [""] * len(results.metrics)
    mark = "★" if trial.number in results.best_numbers else ""
    what = parameters(trial.params)
    if trial.outcome in {"fail", "interrupted"}:
        what = trial.detail
    else:
        remarks = ["untuned defaults"] * trial.is_baseline + ["infeasible"] * (not trial.is_feasible)
        what += f" ({', '.join(remarks)})" if remarks else ""
    return str(trial.number), mark, trial.outcome, *values, str(trial.epochs), clock(trial.duration), what


def _running_row(results: StudyResults, trial: RunningTrial) -> tuple[str, ...]:
    values = [number(trial.value), *[""] * (len(results.metrics) - 1)]
    epochs = str(trial.epoch) if trial.epoch is not None else f"{trial.validations} val."
    if trial.epoch is not None and trial.max_epochs is not None:
        epochs = f"{trial.epoch}/{trial.max_epochs}"
    what = parameters(trial.params) + (" (untuned defaults)" if trial.is_baseline else "")
    state = "died" if trial.is_dead else "running"
    return str(trial.number), "", state, *values, epochs, clock(trial.seconds), what
