"""Names and values in a figure, short enough to stand beside each other."""

from __future__ import annotations

import ast
import html
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import plotly.graph_objects as go

T = TypeVar("T")


def by_axis(figure: go.Figure) -> list[list[Any]]:
    """Return the values that are written beside each axis of parallel coordinates."""
    found: defaultdict[float, list[Any]] = defaultdict(list)
    for value in figure.layout.annotations:
        found[value.x].append(value)
    return [*found.values()]


def tick_choices(axis: Any, choices: Sequence[tuple[str, str]], room: float, most: int) -> None:
    """Write the choices of a parameter along its axis: shortened, turned where they are too wide, not too many.

    Args:
        axis: of Plotly's.
        choices: each as the axis has it, and as it is written, escaped.
        room: pixels that the axis has where it is narrowest.
        most: as many are written.
    """
    written = thinned(choices, most)
    texts = [middle_out(text) for _, text in written]
    texts = [text if texts.count(text) == 1 else whole for text, (_, whole) in zip(texts, written, strict=True)]
    is_wide = sum(7 * len(html.unescape(text)) + 8 for text in texts) > room
    axis.update(tickvals=[choice for choice, _ in written], ticktext=texts, tickangle=-45 if is_wide else 0)


def thinned(things: Sequence[T], most: int) -> Sequence[T]:
    """Return as many of some things at most, evenly.

    Example:
        >>> thinned("abcdefg", 4)
        'aceg'
    """
    return things[:: math.ceil(len(things) / most)]


def plain(choice: str) -> str:
    """Return a choice as a user would write it, of which Optuna has written the ``repr``; it stays escaped.

    Example:
        >>> plain("'relu'"), plain("16"), plain("nan")
        ('relu', '16', 'nan')
    """
    try:
        return str(ast.literal_eval(choice))
    except (ValueError, SyntaxError):
        return choice


def middle_out(text: str, most: int = 14) -> str:
    """Return both ends of a long text: what tells choices apart may stand at either; it is escaped.

    Example:
        >>> middle_out('GELU(approximate="tanh")'), middle_out("a short one")
        ('GELU(…="tanh")', 'a short one')
    """
    whole = html.unescape(text)
    tail = most - 6
    return text if len(whole) <= most else html.escape(f"{whole[:5]}…{whole[-tail:]}", quote=False)


def end_of(name: str, most: int = 22) -> str:
    """Return the end of a long name, where names stand beside each other; it is escaped."""
    whole = html.unescape(name)
    return name if len(whole) <= most else html.escape(f"…{whole[1 - most :]}", quote=False)
