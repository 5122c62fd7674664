"""A study that exists: found by its folder or its name, and removed, or only its weights."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import optuna

from lightningtune.errors import ConfigurationError, did_you_mean, redact
from lightningtune.files import expand_home
from lightningtune.study.directory import StudyDirectory, remove_path
from lightningtune.study.liveness import await_heartbeats, find_busy_hosts, find_idle_hosts
from lightningtune.study.reporter import SEED
from lightningtune.study.storage import OUTAGE_SECONDS, check_storage, expand_storage, get_storage, open_storage
from lightningtune.wording import as_argument, command


@dataclass(frozen=True)
class FoundStudy:
    """A study that exists. Its storage is a URL without the password, or the path of a journal.

    Where that is not in its folder, the folder need not be there.
    """

    study: optuna.Study
    directory: StudyDirectory
    storage: str

    @property
    def is_in_folder(self) -> bool:
        """Whether the study is stored in the journal of its folder."""
        journal = self.directory.journal
        is_file = "://" not in self.storage and Path(self.storage).is_file() and journal.is_file()
        return is_file and journal.samefile(self.storage)


def find_study(study: str, storage: str | None = None, outage_seconds: float = OUTAGE_SECONDS) -> FoundStudy:
    """Open a study that exists, by its folder or its name; then its folder lies in ``lightningtune_runs``.

    A folder that was renamed still holds its study.
    """
    storage = None if storage is None else expand_storage(storage)
    directory = StudyDirectory(expand_home(study).absolute())
    is_folder = directory.journal.is_file() or (storage is not None and directory.definition.is_file())
    if Path(study).name == study and not is_folder:
        directory = StudyDirectory.named(None, study)
    if storage is None and not directory.journal.is_file():
        if directory.definition.is_file():
            raise ConfigurationError(
                f"The study in {directory.root} is not stored there: its folder holds no journal. Say where it is with "
                "--storage, such as --storage sqlite:///study.db."
            )
        raise ConfigurationError(f"There is no study in {directory.root}.{_list_others(directory)}")
    opened = _open_existing(storage, directory.journal, outage_seconds)
    names, name = optuna.get_all_study_names(opened), directory.root.name
    if storage is None and len(names) == 1:
        name = names[0]
    if name not in names:
        there = f" There: {', '.join(names)}.{did_you_mean(name, names)}" if names else ""
        raise ConfigurationError(f"There is no study '{name}' in {storage or directory.journal}.{there}")
    where = str(directory.journal) if storage is None else redact(storage)
    return FoundStudy(optuna.load_study(study_name=name, storage=opened), directory, where)


def list_study_names(storage: str, outage_seconds: float = OUTAGE_SECONDS) -> list[str]:
    """Return the names of the studies in a storage, which is a URL or the path of a journal."""
    storage = expand_storage(storage)
    return sorted(optuna.get_all_study_names(_open_existing(storage, Path(storage), outage_seconds)))


def _open_existing(storage: str | None, journal: Path, outage_seconds: float) -> optuna.storages.BaseStorage:
    check_storage(storage)
    file = _get_file(storage)
    if file is not None and not file.is_file():  # opening it would make it
        files = [path.name for path in file.parent.glob("*") if path.is_file()]
        raise ConfigurationError(f"storage={storage!r}: there is no such file.{did_you_mean(file.name, files)}")
    return open_storage(storage, journal, outage_seconds)


def _get_file(storage: str | None) -> Path | None:
    """Return the file that a storage is; None where it is none."""
    if storage is None:
        return None
    if "://" not in storage:
        return Path(storage)
    kind, _, path = storage.partition(":///")
    return Path(path.partition("?")[0]) if kind.startswith("sqlite") and path else None


def _list_others(directory: StudyDirectory) -> str:
    """Name the studies beside one that is not there."""
    names = sorted(journal.parent.name for journal in directory.root.parent.glob("*/journal.log"))
    if names:
        return f" There: {', '.join(names)}.{did_you_mean(directory.root.name, names)}"
    return " With a storage of its own, a study is found with --storage."


def check_idle(study: optuna.Study) -> None:
    """Refuse to go on while a host works on a study. Where that is not known at once, this takes half a minute."""
    hosts = find_busy_hosts(study) or await_heartbeats(study, find_idle_hosts(study))
    if hosts:
        raise ConfigurationError(
            f"Study '{study.study_name}' is being run by {', '.join(map(str, hosts))}. Pause it first: "
            f"{command('lightningtune', 'pause', *as_argument(study.study_name))}."
        )


def check_own(found: FoundStudy) -> None:
    """Refuse to go on where the folder that was found is not that of this study, or not of this study alone."""
    name, directory = found.study.study_name, found.directory
    if not directory.root.is_dir():
        return
    definition = directory.read_definition()
    why = None
    if "versions" not in definition:  # a user's own study file has none
        why = "there is no study.yaml of a study in it"
    elif definition.get("study_name") != name:
        why = f"its study.yaml is of study '{definition.get('study_name')}'"
    elif definition.get("seed") != found.study.user_attrs.get(SEED):
        why = "its study.yaml is of a study with another seed"
    elif directory.journal.exists() and not found.is_in_folder:
        why = f"its journal is not where this study is stored, {found.storage}"
    elif directory.journal.exists():
        others = [other for other in optuna.get_all_study_names(get_storage(found.study)) if other != name]
        if others:
            why = f"its journal holds {', '.join(others)} too"
    if why is not None:
        raise ConfigurationError(
            f"Nothing was removed: '{directory.root}' is not the folder of study '{name}' alone, for {why}."
        )


def find_weights(directory: StudyDirectory) -> list[Path]:
    """Return every checkpoint of a study, the winner's and those of refits among them."""
    belongings = directory.belongings()
    folders = [path for path in belongings if path.is_dir() and not path.is_symlink()]
    found = {checkpoint for folder in folders for checkpoint in folder.rglob("*.ckpt")}
    return sorted(found | ({directory.best_checkpoint} & {*belongings}))


def measure_size(paths: Iterable[Path]) -> int:
    """Return how many bytes files and folders take; a file with several names counts once, a link not at all."""
    found = (file for path in paths if not path.is_symlink() for file in (path, *path.rglob("*")))
    stats = [file.stat() for file in found if file.is_file() and not file.is_symlink()]
    return sum({(stat.st_dev, stat.st_ino): stat.st_size for stat in stats}.values())


def remove_weights(found: FoundStudy) -> None:
    """Remove every checkpoint of a study; configs, metrics and the study itself stay."""
    check_own(found)
    for path in find_weights(found.directory):
        remove_path(path)


def remove_study(found: FoundStudy) -> list[Path]:
    """Remove a study and its own files, and return what else lies in its folder, which stays.

    The files move into a hidden folder before they are removed, so that nobody sees half a study.
    """
    check_own(found)
    directory, root = found.directory, found.directory.root
    if not found.is_in_folder:
        optuna.delete_study(study_name=found.study.study_name, storage=get_storage(found.study))
    if root.is_symlink():
        root.unlink()
        return []
    if not root.is_dir():
        return []
    hidden = root / f".{uuid.uuid4().hex[:8]}.removed"
    hidden.mkdir()
    for path in directory.belongings():
        target = hidden / path.relative_to(root)
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    shutil.rmtree(hidden)
    for folder in (*directory.folders, root):
        with contextlib.suppress(OSError):  # it is not empty, or not there
            folder.rmdir()
    return sorted(root.iterdir()) if root.is_dir() else []
