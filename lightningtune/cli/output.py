"""What a command prints to."""

from __future__ import annotations

import shutil
import sys
from typing import Any

from lightningtune.files import dump_json


def print_json(value: Any) -> None:
    """Print a value for a program."""
    print(dump_json(value))


def width() -> int | None:
    """Return how many characters a line of the terminal has; None where the output is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
