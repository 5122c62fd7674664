"""A trial's learning curves as a small picture: one panel for each metric."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

Curve = Sequence[tuple[float, float]]

_MOST = 12
"""Metrics that have a panel."""
_POINTS = 400
"""Points of a curve that are drawn: more than the picture has columns of pixels."""
_WIDTH, _HEIGHT, _LEFT, _TOP, _EDGE = 520, 110, 10, 24, 10


def read_metrics(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Read what a ``CSVLogger`` has written, each metric over the training step.

    Args:
        path: of ``metrics.csv``; a line that is just being written is left out.
    """
    written, _, _ = path.read_text(errors="replace").rpartition("\n")
    written = written.replace("\0", "")  # a crash of the machine may leave zeros, at which Python 3.10 stops
    curves: dict[str, list[tuple[float, float]]] = {}
    for place, row in enumerate(csv.DictReader(io.StringIO(written))):
        at = _number(row.get("step"))
        for name, text in row.items():
            value = _number(text)
            if isinstance(name, str) and name not in ("step", "epoch") and value is not None:
                curves.setdefault(name, []).append((place if at is None else at, value))
    return curves


def draw_curves(curves: Mapping[str, Curve], first: Sequence[str] = ()) -> str:
    """Draw curves as SVG.

    Args:
        curves: by metric, each with at least one point; what is not finite is left out. Of none, the picture says so.
        first: the metrics that come first; the others follow by name.
    """
    names = sorted(curves, key=lambda name: (name not in first, name))[:_MOST]
    panels = [_panel(name, curves[name], place * _HEIGHT) for place, name in enumerate(names)]
    panels = panels or [f'<text x="{_LEFT}" y="16" fill="#333333">nothing was logged</text>']
    height = max(len(names), 1) * _HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#ffffff"/>'
        f"{''.join(panels)}</svg>"
    )


def _panel(name: str, curve: Curve, top: int) -> str:
    finite = sorted((x, y) for x, y in curve if math.isfinite(x) and math.isfinite(y))
    title = f'<text x="{_LEFT}" y="{top + 16}" fill="#333333">{html.escape(name)}'
    if not finite:
        return f"{title}: never finite</text>"
    (left, first), (right, last) = finite[0], finite[-1]
    low, high = min(y for _, y in finite), max(y for _, y in finite)
    title += f", {first:.4g} to {last:.4g}; lowest {low:.4g}, highest {high:.4g}</text>"
    wide, tall = _WIDTH - 2 * _LEFT, _HEIGHT - _TOP - _EDGE
    each = math.ceil(len(finite) / _POINTS)
    drawn = [*finite[:-1:each], finite[-1]]
    points = [(_LEFT + wide * _share(x, left, right), top + _TOP + tall * (1 - _share(y, low, high))) for x, y in drawn]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return (
        f'{title}<path d="M{_LEFT} {top + _TOP}V{top + _TOP + tall}H{_LEFT + wide}" fill="none" stroke="#cccccc"/>'
        f'<polyline points="{line}" fill="none" stroke="#1f77b4" stroke-width="1.5"/>'
        f'<circle cx="{points[-1][0]:.1f}" cy="{points[-1][1]:.1f}" r="2.5" fill="#1f77b4"/>'
    )


def _share(value: float, low: float, high: float) -> float:
    """Return where between two values a third lies; a range of infinite width, or of none, has one place."""
    span = high - low
    return (value - low) / span if 0 < span < math.inf else 0.5


def _number(text: object) -> float | None:
    try:
        return float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
