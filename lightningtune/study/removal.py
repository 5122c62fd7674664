"""Removing a study: from its storage and with its folder, or only its weights."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import optuna

from lightningtune.errors import ConfigurationError
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.finding import FoundStudy
from lightningtune.study.hosts import busy_hosts, give_signs, idle_hosts
from lightningtune.study.identifiers import storage_of


def check_idle(study: optuna.Study) -> None:
    """Refuse to go on while a host works on a study. Where it is not known at once, that takes half a minute.

    Raises:
        ConfigurationError: naming the hosts.
    """
    hosts = busy_hosts(study) or give_signs(study, idle_hosts(study))
    if hosts:
        raise ConfigurationError(
            f"Study '{study.study_name}' is being run by {', '.join(map(str, hosts))}. Pause it first: "
            f"'lightningtune pause {study.study_name}'."
        )


def weights_of(directory: StudyDirectory) -> list[Path]:
    """Return every checkpoint in a study's folder, the winner's and those of refits among them."""
    return sorted({*directory.root.rglob("*.ckpt")})


def size_of(paths: list[Path]) -> int:
    """Return how many bytes files and folders take; one that has several names counts once."""
    files = {file for path in paths for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()}
    sizes = {(found.st_dev, found.st_ino): found.st_size for found in (file.stat() for file in files)}
    return sum(sizes.values())


def remove_weights(directory: StudyDirectory) -> None:
    """Remove every checkpoint in a study's folder; configs, metrics and the study itself stay."""
    for path in weights_of(directory):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_study(found: FoundStudy) -> None:
    """Remove a study, and its folder: that at once, so that nobody sees half of it.

    Raises:
        ConfigurationError: when the folder is none of a study.
    """
    root = found.directory.root
    is_own_journal = found.storage == str(found.directory.journal)
    is_folder = found.directory.journal.is_file() or (root / "study.yaml").is_file()
    if root.is_dir() and not is_folder:
        raise ConfigurationError(f"'{root}' holds neither a journal nor a study.yaml: it is left as it is.")
    if not is_own_journal:
        optuna.delete_study(study_name=found.study.study_name, storage=storage_of(found.study))
    if root.is_symlink():
        root.unlink()
    elif root.is_dir():
        gone = root.rename(root.with_name(f".{root.name}.{uuid.uuid4().hex[:8]}.removed"))
        shutil.rmtree(gone)
