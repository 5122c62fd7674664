"""The command ``lightningtune``, and `TuneCLI`, which is LightningCLI with a subcommand ``tune``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightningtune.tune_cli import TuneCLI

__all__ = ["TuneCLI"]


def __getattr__(name: str) -> Any:
    """Import `TuneCLI` when it is first used: the command does without torch."""
    if name != "TuneCLI":
        raise AttributeError(f"module 'lightningtune.cli' has no attribute '{name}'")
    return importlib.import_module("lightningtune.tune_cli").TuneCLI
