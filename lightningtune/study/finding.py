"""Finding a study that exists, by its folder or its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import optuna

from lightningtune.errors import ConfigurationError, did_you_mean, redact
from lightningtune.files import expand_home
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.storage import OUTAGE_SECONDS, check_storage, expand_storage, open_storage


@dataclass(frozen=True)
class FoundStudy:
    """A study that exists.

    Attributes:
        study: the study.
        directory: its folder, which need not be there where it has another storage.
        storage: where it is stored, as a URL without its password or the path of a journal.
    """

    study: optuna.Study
    directory: StudyDirectory
    storage: str


def find_study(study: str, storage: str | None = None, patience: float = OUTAGE_SECONDS) -> FoundStudy:
    """Open a study that exists.

    A folder that was renamed holds its study still.

    Args:
        study: its folder; or its name, and then its folder lies in ``lightningtune_runs``.
        storage: where it is stored, as a URL or the path of a journal; the journal in its folder when not given.
        patience: seconds for which the storage is waited for when it is away.

    Raises:
        ConfigurationError: when there is none, naming those that there are.
    """
    storage = None if storage is None else expand_storage(storage)
    directory = StudyDirectory(expand_home(study).absolute())
    is_name = Path(study).name == study
    if (
        is_name
        and not directory.journal.is_file()
        and (storage is None or not (directory.root / "study.yaml").is_file())
    ):
        directory = StudyDirectory.named(None, study)
    if storage is None and not directory.journal.is_file():
        if (directory.root / "study.yaml").is_file():
            raise ConfigurationError(
                f"The study in {directory.root} is not stored there: its folder holds no journal. Say where it is with "
                "--storage, such as --storage sqlite:///study.db."
            )
        raise ConfigurationError(f"There is no study in {directory.root}.{_others(directory)}")
    check_storage(storage)
    file = _file_of(storage)
    if file is not None and not file.is_file():  # opening it would make it
        files = [path.name for path in file.parent.glob("*") if path.is_file()]
        raise ConfigurationError(f"storage={storage!r}: there is no such file.{did_you_mean(file.name, files)}")
    opened = open_storage(storage, directory.journal, patience)
    names, name = optuna.get_all_study_names(opened), directory.root.name
    if storage is None and len(names) == 1:
        name = names[0]
    if name not in names:
        there = f" There: {', '.join(names)}.{did_you_mean(name, names)}" if names else ""
        raise ConfigurationError(f"There is no study '{name}' in {storage or directory.journal}.{there}")
    where = str(directory.journal) if storage is None else redact(storage)
    return FoundStudy(optuna.load_study(study_name=name, storage=opened), directory, where)


def is_same_file(storage: str, journal: Path) -> bool:
    """Whether a storage is a journal.

    Args:
        storage: a URL, or a path.
        journal: which may not be there.
    """
    return "://" not in storage and Path(storage).is_file() and journal.is_file() and journal.samefile(storage)


def _file_of(storage: str | None) -> Path | None:
    """Return the file that a storage is, where it is one."""
    if storage is None:
        return None
    if "://" not in storage:
        return Path(storage)
    kind, _, path = storage.partition(":///")
    return Path(path.partition("?")[0]) if kind.startswith("sqlite") and path else None


def _others(directory: StudyDirectory) -> str:
    """Name the studies beside one that is not there."""
    names = sorted(journal.parent.name for journal in directory.root.parent.glob("*/journal.log"))
    if names:
        return f" There: {', '.join(names)}.{did_you_mean(directory.root.name, names)}"
    return " With a storage of its own, a study is found with --storage."
