"""What more trainings of a trial's config came to: the only measure of how much one training differs from the next."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightningtune.errors import ConfigError
from lightningtune.files import read_mapping
from lightningtune.study.directory import StudyDirectory


def retrained(directory: StudyDirectory, metric: str, direction: str, score: str = "best") -> Mapping[int, list[float]]:
    """Read the scores of refits from the tables that they have written.

    Args:
        directory: the study's folder.
        metric: the tuned metric.
        direction: "minimize" or "maximize".
        score: "best" or "last"; of another score nothing can be read from a table.

    Returns:
        The scores by the trial's number, one for each seed, but for those that wrote no table, and those that were not
        trained as the trial was, for longer as a rule.
    """
    if score not in ("best", "last"):
        return {}
    best = min if direction == "minimize" else max
    found: defaultdict[int, list[float]] = defaultdict(list)
    for folder in sorted((directory.root / "refit").glob("*_seed_*")):
        number, values = folder.name.partition("_")[0], _column(folder / "metrics.csv", metric)
        if number.isdecimal() and values:
            trained = _but_seed(folder / "config.yaml")
            if trained is not None and trained == _but_seed(directory.config(int(number))):
                found[int(number)].append(best(values) if score == "best" else values[-1])
    return dict(found)


def _but_seed(path: Path) -> Any:
    """Return a config without its seed; None where it cannot be read."""
    try:
        return {name: value for name, value in read_mapping(path).items() if name != "seed_everything"}
    except ConfigError:
        return None


def _column(table: Path, name: str) -> list[float]:
    """Return the finite numbers of a column; none where there is no such table."""
    values: list[float] = []
    if not table.is_file():  # a pipe may have no end
        return values
    with suppress(OSError, ValueError, csv.Error), table.open(newline="", encoding="utf-8") as file:
        values = [float(row[name]) for row in csv.DictReader(file) if row.get(name)]
    return [value for value in values if math.isfinite(value)]
