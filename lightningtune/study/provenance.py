"""With which versions, and with which state of the user's code, a host trains."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lightningtune._version import __version__


@dataclass(frozen=True)
class Provenance:
    """Where a trial comes from.

    Attributes:
        versions: of Python and of the packages that decide a training.
        commit: of the repository in which the user's code lies; None where there is none.
        is_dirty: whether files that git knows had changes that were not committed, or git does not know the script;
            None where it was not to be found out.
    """

    versions: Mapping[str, str]
    commit: str | None = None
    is_dirty: bool | None = None


def provenance_here(timeout: float = 3.0) -> Provenance:
    """Ask for the versions, and ask git about the folder of the script, or else about the working directory.

    Without git, or without a repository, no commit is named. Takes some 10 ms where there is one.

    Args:
        timeout: seconds that git may take over each of two questions.
    """
    script = _script()
    try:
        folder = Path.cwd() if script is None else script.parent
    except OSError:  # the working directory has been removed
        return Provenance(versions())
    commit, is_dirty = _git(folder, script, timeout)
    return Provenance(versions(), commit, is_dirty)


@functools.cache
def versions() -> Mapping[str, str]:
    """Return the versions of Python and of the packages that decide a training."""
    packages = {name: importlib.metadata.version(name) for name in ("lightning", "torch", "optuna")}
    return {"lightningtune": __version__, "python": platform.python_version(), **packages}


def _script() -> Path | None:
    """Return the user's script; None in a notebook, and for a command that is installed."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    path = Path(file).absolute() if file else None
    return None if path is None or path.is_relative_to(sys.prefix) or not path.exists() else path


def _git(folder: Path, script: Path | None, timeout: float) -> tuple[str | None, bool | None]:
    status = _ask(timeout, folder, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    lines = (status or "").splitlines()
    commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid ")), None)
    if commit in (None, "(initial)"):
        return None, None
    is_known = script is None or _ask(timeout, folder, "ls-files", "--error-unmatch", "--", script.name) is not None
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
