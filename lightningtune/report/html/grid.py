"""The grid of a contour, made coarser: Optuna's has a line for each trial, which is megabytes for 500 of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CELLS = 36
"""As many there are each way at most."""


def binned(
    x: Sequence[Any], y: Sequence[Any], z: Any, kinds: tuple[str | None, str | None]
) -> tuple[list[Any], list[Any], list[list[float | None]]]:
    """Return the positions and the means of the cells of a coarser grid; along names of categories it stays.

    Args:
        x: positions of the columns.
        y: positions of the rows.
        z: values, NaN where there is none; of shape (rows, columns).
        kinds: of the axes, as Plotly calls them: "log", "category" or None among others.

    Example:
        >>> binned(["a", "b"], [1, 2], [[0.5, float("nan")], [1.5, 2.5]], ("category", None))
        (['a', 'b'], [1, 2], [[0.5, None], [1.5, 2.5]])
    """
    # not at the top: NumPy comes with Optuna, and takes its time
    import numpy as np

    values = np.asarray(z, dtype=float)
    columns, places_x = _bins(x, kinds[0])
    rows, places_y = _bins(y, kinds[1])
    row, column = np.nonzero(~np.isnan(values))
    total, count = np.zeros((len(places_y), len(places_x))), np.zeros((len(places_y), len(places_x)))
    np.add.at(total, (rows[row], columns[column]), values[row, column])
    np.add.at(count, (rows[row], columns[column]), 1)
    means = [
        [float(t / c) if c else None for t, c in zip(totals, counts, strict=True)]
        for totals, counts in zip(total, count, strict=True)
    ]
    return places_x, places_y, means


def _bins(positions: Sequence[Any], kind: str | None) -> tuple[Any, list[Any]]:
    """Return which bin each position falls into, and the bins' own positions."""
    import numpy as np

    is_named = kind == "category" or any(isinstance(position, str) for position in positions)
    if is_named or len(positions) <= CELLS:
        return np.arange(len(positions)), list(positions)
    values = np.asarray(positions, dtype=float)
    values = np.log(values) if kind == "log" else values
    low, high = values.min(), values.max()
    which = np.rint((values - low) / (high - low) * (CELLS - 1)).astype(int)
    places = np.linspace(low, high, CELLS)
    return which, [float(place) for place in (np.exp(places) if kind == "log" else places)]
