"""Where a command prints: every text goes through `printable`, which keeps escape sequences and passwords out."""

from __future__ import annotations

import shutil
import sys
from typing import Any

from lightningtune.wording import printable

LINES = "\n\t"
"""The control characters of a text of several lines, for `show` and `tell` to keep."""


def show(text: str, also: str = "", end: str = "\n") -> None:
    """Print a text for a person, with the control characters `also` kept."""
    print(printable(text, also), end=end, flush=True)


def tell(text: str, also: str = "") -> None:
    """Print to stderr what is wrong, or what somebody should know besides the result."""
    print(printable(text, also), file=sys.stderr)


def print_json(value: Any) -> None:
    """Print a value for a program: each command's ``--json`` does it here, so that NaN is null in all of them."""
    from lightningtune.files import dump_json  # deferred import: keeps --help fast

    print(dump_json(value))


def width() -> int | None:
    """Return how many characters a line of the terminal has; None where the output is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
