"""The command ``lightningtune``, and `TuneCLI`, which is LightningCLI with a subcommand ``tune``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightningtune.cli.tune_cli import TuneCLI

__all__ = ["TuneCLI"]


def __getattr__(name: str) -> Any:
    if name != "TuneCLI":
        raise AttributeError(f"module 'lightningtune.cli' has no attribute '{name}'")
    from lightningtune.cli.tune_cli import TuneCLI  # deferred import: the command does without torch

    return TuneCLI
