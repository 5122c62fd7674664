"""Numbers, times, names and results as a person reads them."""

from __future__ import annotations

import datetime
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from lightningtune.errors import redact

_PLURALS = {"study": "studies", "batch": "batches"}


class Readable:
    """What an interpreter and a notebook show as ``print`` does: all its fields would fill pages."""

    def __repr__(self) -> str:
        return str(self)


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


def format_value(value: Any) -> str:
    """Write a parameter's value with at most six digits.

    Example:
        >>> format_value(0.30000000000000004), format_value(None)
        ('0.3', 'None')
    """
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def mask_numbers(text: str) -> str:
    """Replace the numbers and addresses in a message, to compare how trials fail.

    Example:
        >>> mask_numbers("CUDA out of memory: tried to allocate 2.50 GiB at 0x7f3a")
        'CUDA out of memory: tried to allocate # GiB at #'
    """
    return re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?", "#", text)


def format_duration(seconds: float) -> str:
    """Write a time in its two largest units.

    Example:
        >>> format_duration(0.0123), format_duration(75), format_duration(3 * 3600 + 120), format_duration(100000)
        ('12 ms', '1 min 15 s', '3 h 2 min', '1 d 3 h')
    """
    if seconds < 59.5:
        count, of = (seconds * 1000, "ms") if 0 < seconds < 0.0995 else (seconds, "s")
        return f"{count:.2g} {of}" if count < 9.95 else f"{count:.0f} {of}"
    whole = round(seconds)
    for unit, name, smaller, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            rest = whole % unit // smaller
            return f"{whole // unit} {name}" + (f" {rest} {part}" if rest else "")
    raise AssertionError(seconds)


def counted(count: float, what: str) -> str:
    """Write a number of things.

    Example:
        >>> counted(1, "trial"), counted(12345, "study"), counted(2.5, "batch"), counted(1234.5, "epoch")
        ('1 trial', '12,345 studies', '2.5 batches', '1,234 epochs')
    """
    number = f"{count:,.3g}" if isinstance(count, float) and abs(count) < 100 else f"{count:,.0f}"
    return f"{number} {what if count == 1 else _PLURALS.get(what, what + 's')}"


def list_numbers(numbers: list[int], most: int = 12) -> str:
    """Write numbers, the first of many.

    Example:
        >>> list_numbers([1, 2, 5], most=2)
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


def format_rough_duration(seconds: float) -> str:
    """Write a duration that is not known to the second.

    Example:
        >>> format_rough_duration(7), format_rough_duration(754), format_rough_duration(3 * 86400)
        ('under a minute', '13 min', '3 d 0 h')
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
    """Write parameters in a line: each by a short name, a class by its name.

    Example:
        >>> parameters({"model.lr": 0.00123456, "optimizer.class_path": "torch.optim.Adam"})
        'lr=0.00123 optimizer=Adam'
    """
    said = []
    for name, short_name in short_names(params).items():
        value = params[name]
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        text = text.rpartition(".")[2] if name.endswith(".class_path") else text
        said.append(f"{short_name}={text}")
    return printable(" ".join(said))


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Return the last part of each config path; of those that share it, more.

    Example:
        >>> [*short_names(["model.init_args.lr", "optimizer.class_path", "encoder.depth", "decoder.depth"]).values()]
        ['lr', 'optimizer', 'encoder.depth', 'decoder.depth']
    """
    paths = {name: name.replace(".init_args.", ".").removesuffix(".class_path") for name in names}
    count = Counter(path.rpartition(".")[2] for path in paths.values())
    lasts = {name: path.rpartition(".")[2] for name, path in paths.items()}
    return {name: last if count[last] == 1 else paths[name] for name, last in lasts.items()}


def printable(text: str, also: str = "") -> str:
    r"""Return a text that is safe in a terminal: control characters are written out, and no URL has a password.

    Everything that is printed goes through it, whoever has written the text.

    Example:
        >>> print(printable("red: \x1b[31m, two\nlines, naïve"))
        red: \x1b[31m, two\nlines, naïve
    """
    text = redact(text)
    if text.isprintable():
        return text
    kept = {*also, "\u200c", "\u200d"}  # joiners, which some scripts and emoji need
    return "".join(
        letter
        if letter.isprintable() or letter in kept or unicodedata.category(letter) == "Zs"
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


def command(*words: object) -> str:
    """Return a command that can be copied into a shell, in quotes.

    Args:
        *words: the command and its arguments, not yet quoted. One that begins with a dash must be an option.

    Example:
        >>> print(command("lightningtune", "pause", "digits"))
        'lightningtune pause digits'
        >>> print(command("lightningtune", "pause", "my digits"))
        `lightningtune pause 'my digits'`
    """
    text = shlex.join(map(str, words))
    return f"`{text}`" if "'" in text else f"'{text}'"


def as_argument(name: str) -> tuple[str, ...]:
    """Return a name as the last words of a command, where it is not taken for an option.

    Example:
        >>> as_argument("digits"), as_argument("--yes")
        (('digits',), ('--', '--yes'))
    """
    return ("--", name) if name.startswith("-") else (name,)
