"""The trainer's limits, which say when a fit ends by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LIMITS = frozenset({"max_epochs", "max_steps", "max_time"})


def with_limits_of(config: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the trainer's limits of another, and no others.

    Example:
        >>> with_limits_of({"trainer": {"max_epochs": 5, "max_time": "1h"}}, {"trainer": {"max_epochs": 9}})
        {'trainer': {'max_epochs': 9}}
    """
    kept = {name: value for name, value in config.get("trainer", {}).items() if name not in LIMITS}
    limits = {name: value for name, value in now.get("trainer", {}).items() if name in LIMITS}
    return {**config, "trainer": {**kept, **limits}}
