"""Numbers and times as a person reads them."""

from __future__ import annotations

import datetime
from typing import Any


def short(value: Any, digits: int = 4) -> str:
    """Write a value with few digits.

    Example:
        >>> short(0.000123456), short(128), short(14700.0), short(True), short(None)
        ('0.0001235', '128', '14700', 'True', '')
    """
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e7:
        return f"{value:.0f}"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def spent(seconds: float) -> str:
    """Write a time in its two largest units.

    Example:
        >>> spent(0.25), spent(75), spent(3 * 3600 + 120), spent(100000)
        ('0.25 s', '1 min 15 s', '3 h 2 min', '1 d 3 h')
    """
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    for unit, name, smaller, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            rest = whole % unit // smaller
            return f"{whole // unit} {name}" + (f" {rest} {part}" if rest else "")
    raise AssertionError(seconds)


def counted(count: float, what: str) -> str:
    """Write a number of things.

    Example:
        >>> counted(1, "trial"), counted(12345, "epoch")
        ('1 trial', '12,345 epochs')
    """
    return f"{count:,g} {what}" if count == 1 else f"{count:,g} {what}s"


def listed(numbers: list[int], most: int = 12) -> str:
    """Write numbers, the first of many.

    Example:
        >>> listed([1, 2, 5], most=2)
        '1, 2 and 1 more'
    """
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return ", ".join(map(str, numbers[:most])) + more


def moment(when: datetime.datetime) -> str:
    """Write a day and a time.

    Example:
        >>> moment(datetime.datetime(2026, 3, 9, 8, 5))
        '9 March 2026, 08:05'
    """
    return f"{when.day} {when:%B %Y, %H:%M}"
