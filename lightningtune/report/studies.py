"""Several studies, a line for each, drawn for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from lightningtune.report.tables import table
from lightningtune.study.progress import StudyProgress
from lightningtune.wording import about, number


def draw_studies(studies: Sequence[StudyProgress], width: int | None = None) -> str:
    """Draw a line for each study: its trials, what runs, the best value, the time left.

    Args:
        studies: how far each is.
        width: characters of a line; nothing is cut when not given.
    """
    header = ("study", "trials", "running", "metric", "best", "left")
    right = ("trials", "running", "best", "left")
    return table(header, [_row(progress) for progress in studies], right=right, width=width)


def _row(progress: StudyProgress) -> tuple[str, ...]:
    results = progress.results
    best = results.best_trials[0].value if len(results.best_numbers) == 1 else None
    return (
        results.study_name,
        f"{progress.done}/{'?' if progress.total is None else progress.total}",
        str(len(progress.running) or ""),
        ", ".join(results.metrics),
        number(best) if len(results.best_numbers) < 2 else f"{len(results.best_numbers)} on the Pareto front",
        "" if progress.seconds_left is None else about(progress.seconds_left),
    )
