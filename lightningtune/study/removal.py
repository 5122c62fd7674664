"""Removing a study: from its storage and with its folder, or only its weights."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from pathlib import Path

import optuna

from lightningtune.errors import ConfigurationError
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.finding import FoundStudy, is_same_file
from lightningtune.study.liveness import await_heartbeats, find_busy_hosts, find_idle_hosts
from lightningtune.study.reporter import SEED
from lightningtune.study.storage import get_storage
from lightningtune.wording import as_argument, command


def check_idle(study: optuna.Study) -> None:
    """Refuse to go on while a host works on a study. Where it is not known at once, that takes half a minute.

    Raises:
        ConfigurationError: naming the hosts.
    """
    hosts = find_busy_hosts(study) or await_heartbeats(study, find_idle_hosts(study))
    if hosts:
        raise ConfigurationError(
            f"Study '{study.study_name}' is being run by {', '.join(map(str, hosts))}. Pause it first: "
            f"{command('lightningtune', 'pause', *as_argument(study.study_name))}."
        )


def check_own(found: FoundStudy) -> None:
    """Refuse to go on where the folder that was found is not that of this study, or not of this study alone.

    Raises:
        ConfigurationError: saying what is there instead.
    """
    name, directory = found.study.study_name, found.directory
    if not directory.root.is_dir():
        return
    definition = directory.read_definition()
    says = None
    if "versions" not in definition:  # the study file of a user has none
        says = "there is no study.yaml of a study in it"
    elif definition.get("study_name") != name:
        says = f"its study.yaml is of study '{definition.get('study_name')}'"
    elif definition.get("seed") != found.study.user_attrs.get(SEED):
        says = "its study.yaml is of a study with another seed"
    elif directory.journal.exists() and not is_same_file(found.storage, directory.journal):
        says = f"its journal is not where this study is stored, {found.storage}"
    elif directory.journal.exists():
        others = [other for other in optuna.get_all_study_names(get_storage(found.study)) if other != name]
        if others:
            says = f"its journal holds {', '.join(others)} too"
    if says is not None:
        raise ConfigurationError(
            f"Nothing was removed: '{directory.root}' is not the folder of study '{name}' alone, for {says}."
        )


def weights_of(directory: StudyDirectory) -> list[Path]:
    """Return every checkpoint of a study, the winner's and those of refits among them."""
    folders = [path for path in directory.belongings() if path.is_dir() and not path.is_symlink()]
    found = {checkpoint for folder in folders for checkpoint in folder.rglob("*.ckpt")}
    return sorted(found | {path for path in [directory.best_checkpoint] if path in directory.belongings()})


def size_of(paths: list[Path]) -> int:
    """Return how many bytes files and folders take; one that has several names counts once, a link nothing."""
    found = (file for path in paths if not path.is_symlink() for file in (path, *path.rglob("*")))
    files = {file for file in found if file.is_file() and not file.is_symlink()}
    sizes = {(found.st_dev, found.st_ino): found.st_size for found in (file.stat() for file in files)}
    return sum(sizes.values())


def remove_weights(found: FoundStudy) -> None:
    """Remove every checkpoint of a study; configs, metrics and the study itself stay.

    Raises:
        ConfigurationError: when the folder is not the study's.
    """
    check_own(found)
    for path in weights_of(found.directory):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_study(found: FoundStudy) -> list[Path]:
    """Remove a study, and what is its own in its folder: that at once, so that nobody sees half of it.

    Returns:
        What else lies in the folder, which stays.

    Raises:
        ConfigurationError: when the folder is not the study's.
    """
    check_own(found)
    directory, root = found.directory, found.directory.root
    if not is_same_file(found.storage, directory.journal):
        optuna.delete_study(study_name=found.study.study_name, storage=get_storage(found.study))
    if root.is_symlink():
        root.unlink()
        return []
    if not root.is_dir():
        return []
    gone = root / f".{uuid.uuid4().hex[:8]}.removed"
    gone.mkdir()
    for path in directory.belongings():
        target = gone / path.relative_to(root)
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    shutil.rmtree(gone)
    for folder in (*directory.folders, root):
        with contextlib.suppress(OSError):  # it is not empty, or not there
            folder.rmdir()
    return sorted(root.iterdir()) if root.is_dir() else []
