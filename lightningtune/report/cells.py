"""What stands in the cells of a table in a terminal: numbers, times and parameters, as short as they can be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def number(value: float | None) -> str:
    """Write a value with six digits at most, and none as nothing.

    Example:
        >>> number(0.123456789), number(1e-5), number(None)
        ('0.123457', '1e-05', '')
    """
    return "" if value is None else f"{value:.6g}"


def clock(seconds: float) -> str:
    """Write a duration as a clock does.

    Example:
        >>> clock(7), clock(754), clock(3 * 3600 + 61)
        ('0:07', '12:34', '3:01:01')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def about(seconds: float) -> str:
    """Write a duration that is not known to the second.

    Example:
        >>> about(7), about(754), about(3 * 3600 + 1300), about(3 * 86400)
        ('under a minute', '13 min', '3 h 22 min', '3 d 0 h')
    """
    minutes = round(seconds / 60)
    if minutes < 1:
        return "under a minute"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def size(count: float) -> str:
    """Write a number of bytes.

    Example:
        >>> size(512), size(20_480), size(3.4e9)
        ('512 B', '20 KiB', '3.2 GiB')
    """
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def parameters(params: Mapping[str, Any]) -> str:
    """Write parameters in a line, each by the last part of its name.

    Example:
        >>> parameters({"model.lr": 0.00123456, "depth": 3})
        'lr=0.00123 depth=3'
    """
    return " ".join(f"{name.rpartition('.')[2]}={_short(value)}" for name, value in params.items())


def plural(count: int, what: str) -> str:
    """Write a count of something.

    Example:
        >>> plural(1, "trial"), plural(2, "study")
        ('1 trial', '2 studies')
    """
    if count == 1:
        return f"1 {what}"
    return f"{count} {what[:-1]}ies" if what.endswith("y") else f"{count} {what}s"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
