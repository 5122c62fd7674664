"""What a shell may complete an argument with, beside the options themselves."""

from __future__ import annotations

import argparse
import ast
import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def suggest(action: argparse.Action, values: Callable[..., Iterable[str]]) -> None:
    """Have a shell complete an argument.

    Args:
        action: the argument, as ``add_argument`` returned it.
        values: what it may be; called with the keywords ``prefix``, ``action``, ``parser`` and ``parsed_args``.

    Example:
        >>> suggest(argparse.ArgumentParser().add_argument("--verbose"), one_of("true", "false"))
    """
    action.completer = values  # type: ignore[attr-defined]  # this is where argcomplete looks


def one_of(*values: str) -> Callable[..., Iterable[str]]:
    """Return what suggests some values."""
    return lambda **_: values


def studies_here(**_: Any) -> list[str]:
    """Return the names of the studies that lie where studies do."""
    return [folder.name for folder in sorted(Path("lightningtune_runs").glob("*")) if folder.is_dir()]


def optunas(kind: str) -> Callable[..., Iterable[str]]:
    """Return what suggests Optuna's samplers or pruners; their names are read without importing Optuna.

    Args:
        kind: "sampler" or "pruner".

    Example:
        >>> "TPESampler" in optunas("sampler")()
        True
    """

    def names(**_: Any) -> list[str]:
        found = importlib.util.find_spec("optuna")
        if found is None or found.origin is None:
            return []
        text = Path(found.origin).with_name(f"{kind}s").joinpath("__init__.py").read_text(encoding="utf-8")
        every = {node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)}
        named = [str(name) for name in every if str(name).endswith(kind.title())]
        return sorted(name for name in named if not name.startswith("Base"))

    return names


def study_files(prefix: str, **_: Any) -> list[str]:
    """Return the YAML and JSON files, and the folders, that begin as what was typed does."""
    from argcomplete.completers import FilesCompleter  # only a shell asks, which argcomplete has told how to

    return list(FilesCompleter(("yaml", "yml", "json"))(prefix))
