"""What a command prints for a program: JSON, of plain values only."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import sys
from collections.abc import Mapping
from typing import Any


def print_json(value: Any) -> None:
    """Print a value as JSON: of a dataclass its fields, of a path its text, of NaN and infinity null."""
    print(json.dumps(as_json(value), indent=2, ensure_ascii=False))


def as_json(value: Any) -> Any:
    """Return a value as JSON has it.

    Example:
        >>> as_json({"values": (1.5, float("nan"))})
        {'values': [1.5, None]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [as_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (int, str, type(None))) else str(value)


def width() -> int | None:
    """Return how many characters a line of the terminal has; None where the output is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
