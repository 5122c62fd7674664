"""Several studies, a line for each, drawn for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from lightningtune.report.tables import table
from lightningtune.study.progress import StudyProgress
from lightningtune.wording import about, number, printable


def draw_studies(
    studies: Sequence[StudyProgress], unreadable: Mapping[str, str] = MappingProxyType({}), width: int | None = None
) -> str:
    """Draw a line for each study: its trials, what runs, the best value, the time left.

    Args:
        studies: how far each is.
        unreadable: the folders that cannot be read, by name, with the reason; a line for each.
        width: characters of a line; nothing is cut when not given.
    """
    header = ("study", "trials", "running", "metric", "best", "left")
    right = ("trials", "running", "best", "left")
    drawn = [table(header, [_row(progress) for progress in studies], right=right, width=width)] if studies else []
    return "\n".join([*drawn, *(printable(f"{name}  cannot be read: {why}") for name, why in unreadable.items())])


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
