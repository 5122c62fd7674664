"""The trials of a study, drawn as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightningtune.report.tables import table
from lightningtune.study.results import column_of
from lightningtune.study.selection import PARAMS
from lightningtune.wording import clock, number, short_names


def draw_trials(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], width: int | None = None) -> str:
    """Draw trials: a column for each parameter, and why those ended that did not complete.

    Args:
        rows: as `StudyResults.rows` returns them.
        metrics: the names of the tuned metrics.
        width: characters of a line; nothing is cut when not given.
    """
    params = [name for name in rows[0] if name.startswith(PARAMS)]
    names = [*short_names(name.removeprefix(PARAMS) for name in params).values()]
    header = ["trial", "state", *metrics, *names, "epochs", "time", ""]
    cells = [
        [
            str(row["number"]),
            row["state"],
            *(number(row[column_of(metric)]) for metric in metrics),
            *(_cell(row[name]) for name in params),
            str(row["epochs"]),
            clock(row["duration"]),
            _remark(row),
        ]
        for row in rows
    ]
    numeric = [
        name
        for name, column in zip(names, params, strict=True)
        if all(isinstance(row[column], (int, float, type(None))) for row in rows)
    ]
    return table(header, cells, right=("trial", *metrics, *numeric, "epochs", "time"), width=width)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _remark(row: Mapping[str, Any]) -> str:
    if row["continued_by"] is not None:
        return f"trial {row['continued_by']} goes on in its place"
    remarks = [
        "untuned defaults" if row["baseline"] else "",
        "" if row["feasible"] else "infeasible",
        "" if row["state"] == "complete" else str(row["detail"] or ""),
    ]
    return ", ".join(filter(None, remarks))
