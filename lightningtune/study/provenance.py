"""Where a trial comes from: the versions and the commit with which a host trains, and the names of its classes."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightningtune._version import __version__

if TYPE_CHECKING:  # jsonargparse comes with it, and who only reads a study need not wait for that
    from lightningtune.config.schema import Schema


@dataclass(frozen=True)
class Provenance:
    """Where a trial comes from.

    Attributes:
        versions: of Python and of the packages that decide a training.
        commit: of the repository that the user's code is in; None where there is none.
        is_dirty: whether tracked files had uncommitted changes, or git does not track the script; None where that is
            not known.
        classes: the names of what builds the model and the data.
    """

    versions: Mapping[str, str]
    commit: str | None = None
    is_dirty: bool | None = None
    classes: Mapping[str, str | None] = field(default_factory=dict)


def find_provenance(schema: Schema, timeout: float = 3.0) -> Provenance:
    """Ask for the versions, and ask git about the script's folder, or else about the working directory.

    Without git, or without a repository, no commit is named. Takes some 10 ms where there is one. Git has ``timeout``
    seconds to answer each of two questions.
    """
    file = script()
    commit, is_dirty = _git(Path() if file is None else file.parent, file, timeout)
    return Provenance(versions(), commit, is_dirty, class_names(schema))


@functools.cache
def versions() -> Mapping[str, str]:
    """Return the versions of Python and of the packages that decide a training."""
    packages = {name: importlib.metadata.version(name) for name in ("lightning", "torch", "optuna")}
    return {"lightningtune": __version__, "python": platform.python_version(), **packages}


def class_names(schema: Schema) -> Mapping[str, str | None]:
    """Name what builds the model and the data."""
    return {name: full_name(part) for name, part in schema.parts.items()}


def full_name(target: Any) -> str | None:
    """Name a class or a function so that another one has another name; None for none.

    What a script defines has the same name whether the script is run or imported. A notebook's kernel does not know its
    file, so its classes stay those of ``__main__``.

    Example:
        >>> full_name(dict)
        'builtins.dict'
    """
    if target is None:
        return None
    own = getattr(target, "__qualname__", None)
    name = f"{target.__module__}.{own}" if own else re.sub(r" at 0x[0-9a-f]+", "", repr(target))
    return re.sub(r"\b__main__\.", f"{_main_module()}.", name) if "__main__" in name else name


def _main_module() -> str:
    """Return the name by which others would import the module that is run."""
    spec, file = getattr(sys.modules["__main__"], "__spec__", None), script()
    if spec is not None and file is not None:  # python -m package.module
        return str(spec.name)
    return "__main__" if file is None else file.stem


def script() -> Path | None:
    """Return the user's script; None in a notebook, and for a command that is installed."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    path = Path(file).absolute() if file else None
    return None if path is None or path.is_relative_to(sys.prefix) or not path.exists() else path


def _git(folder: Path, file: Path | None, timeout: float) -> tuple[str | None, bool | None]:
    status = _ask(timeout, folder, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    lines = (status or "").splitlines()
    commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid ")), None)
    if commit in (None, "(initial)"):
        return None, None
    is_known = file is None or _ask(timeout, folder, "ls-files", "--error-unmatch", "--", file.name) is not None
    return commit, not is_known or any(not line.startswith("#") for line in lines)


def _ask(timeout: float, folder: Path, *arguments: str) -> str | None:
    """Return what git answers; None where it does not."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
        return answer.stdout if answer.returncode == 0 else None
    return None
