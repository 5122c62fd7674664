"""The table of trials: what stands in its cells, and by what they are sorted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lightningtune.report.html.record import Record, parameters_of
from lightningtune.study.results import TrialResult
from lightningtune.wording import short, size, spent


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what is shown.
        key: what it is sorted by, a number where it is one; empty cells come last.
        whole: the value in full, where the text is shorter.
        link: where a click leads; "" nowhere.
    """

    text: str
    key: str = ""
    whole: str = ""
    link: str = ""

    @property
    def is_number(self) -> bool:
        """Whether it is sorted as a number, and stands to the right."""
        try:
            float(self.key)
        except ValueError:
            return False
        return True


@dataclass(frozen=True)
class Row:
    """One trial.

    Attributes:
        outcome: how it ended.
        is_best: whether it is the best, or on the Pareto front.
        cells: one for each column.
    """

    outcome: str
    is_best: bool
    cells: tuple[Cell, ...]


def columns_of(record: Record) -> list[str]:
    """Return the heads of the table's columns."""
    work = ["epochs" if record.is_ours else "reports", "time"]
    own = ["memory", "note"] if record.is_ours else []
    return ["trial", "state", *record.results.metrics, *parameters_of(record.trials), *work, *own]


def rows_of(record: Record, page: Path) -> list[Row]:
    """Return a row for each trial.

    Args:
        record: the study.
        page: where the report will lie, from which links to folders lead.
    """
    names, best = parameters_of(record.trials), {*record.results.best_numbers}
    return [
        Row(
            outcome=trial.outcome,
            is_best=trial.number in best,
            cells=tuple(_cells(trial, record, names, page)),
        )
        for trial in record.results.trials
    ]


def link_to(path: Path, page: Path, is_folder: bool) -> str:
    """Return the address of a file or a folder beside the page; "" where there is none."""
    if not (path.is_dir() if is_folder else path.is_file()):
        return ""
    try:
        relative = os.path.relpath(path, page.parent)
    except ValueError:  # another drive
        return path.absolute().as_uri()
    return quote(Path(relative).as_posix()) + ("/" if is_folder else "")


def shown(value: Any) -> str:
    """Write what a parameter was set to.

    Example:
        >>> shown(0.000123456), shown(None)
        ('0.0001235', 'None')
    """
    return "None" if value is None else short(value)


def _cells(trial: TrialResult, record: Record, names: Sequence[str], page: Path) -> list[Cell]:
    is_ours = record.is_ours
    values = trial.values or (None,) * len(record.results.metrics)
    state = trial.outcome if trial.is_feasible else f"{trial.outcome}, infeasible"
    own = [Cell(_note(trial))]
    if trial.facts.memory is not None:
        own.insert(0, Cell(size(trial.facts.memory), str(trial.facts.memory)))
    else:
        own.insert(0, Cell(""))
    return [
        Cell(str(trial.number), str(trial.number), link=link_to(trial.directory, page, True) if is_ours else ""),
        Cell(state, state),
        *(Cell("") if value is None else _cell(value) for value in values),
        *(_cell(trial.params[name]) if name in trial.params else Cell("") for name in names),
        Cell(str(trial.epochs), str(trial.epochs)),
        Cell(spent(trial.duration) if trial.duration else "", str(trial.duration) if trial.duration else ""),
        *(own if is_ours else ()),
    ]


def _note(trial: TrialResult) -> str:
    notes = ["untuned defaults"] if trial.is_baseline else []
    if trial.continues is not None:
        notes.append(f"goes on from trial {trial.continues}")
    if trial.continued_by is not None:
        notes.append(f"trial {trial.continued_by} goes on from it")
    return "; ".join([*notes, *([trial.detail] if trial.detail else [])])


def _cell(value: Any) -> Cell:
    text, whole = shown(value), str(value)
    key = str(float(value)) if isinstance(value, (int, float)) else whole
    return Cell(text, key, whole if whole != text else "")
