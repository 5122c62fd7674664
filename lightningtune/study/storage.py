"""Where a study is stored: nothing given, a path, a URL, or one of Optuna's storages."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage

from lightningtune.errors import ConfigurationError
from lightningtune.files import expand_home
from lightningtune.streams import open_missing_streams
from lightningtune.study.journal import open_journal
from lightningtune.study.outage import is_away, waits
from lightningtune.study.patience import PATIENCE, PatientStorage

_MAKES_TABLES = re.compile(r"already exists|pg_type_typname_nsp_index")
"""What a server says where two hosts make the tables at a time."""
_AT_IN_PASSWORD = re.compile(r"[\w+.-]+://[^/?]*@[^/?]*@")
_STARTING = 10.0
"""Seconds for which a server is waited for at first: where it does not answer then, its address may be wrong."""


def open_storage(
    storage: str | os.PathLike[str] | BaseStorage | None, default: Path, patience: float = PATIENCE
) -> BaseStorage:
    """Open a storage, which may be away for a while later on: see `PatientStorage`.

    Args:
        storage: a URL (``sqlite:///study.db``), the path of a journal file, or an Optuna storage. One in memory, and
            one with a heartbeat, of which Optuna asks the type, are used as they are.
        default: the journal file to use when ``storage`` is None.
        patience: seconds for which it is waited for when it is away.

    Raises:
        ConfigurationError: when it is none of these, or cannot be opened.
    """
    open_missing_streams()
    check_storage(storage)
    if isinstance(storage, (str, os.PathLike)):
        storage = expand_storage(storage)
    if isinstance(storage, BaseStorage):
        if isinstance(storage, (InMemoryStorage, PatientStorage)) or getattr(storage, "heartbeat_interval", None):
            return storage
        return PatientStorage(optuna.storages.get_storage(storage), patience)  # which puts a cache before a database
    if isinstance(storage, str) and "://" in storage:
        return PatientStorage(_opened(storage, min(patience, _STARTING)), patience)
    # the lock is a link beside the file, from where a relative path would lead elsewhere
    path = (default if storage is None else Path(storage)).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    return PatientStorage(open_journal(path), patience)


def _opened(url: str, patience: float) -> BaseStorage:
    """Open a database; a server that is just being started again is waited for, and a host that makes its tables."""
    pauses, until = waits(), time.monotonic() + patience
    while True:
        pause = next(pauses)
        try:
            return optuna.storages.get_storage(url)
        except Exception as error:  # each database, and each missing driver, has its own
            is_passing = is_away(error) or _MAKES_TABLES.search(str(error))
            if url.startswith("sqlite") or not is_passing or time.monotonic() + pause > until:
                # Optuna guesses of any error of a database that the data are at fault
                told = (isinstance(error, StorageInternalError) and error.__cause__) or error
                reason = str(told).partition("\n")[0]
                raise ConfigurationError(f"storage={url!r} cannot be opened: {reason}") from None
        time.sleep(pause)


def expand_storage(storage: str | os.PathLike[str]) -> str:
    """Return a storage in which ``~`` is the user's home, at the beginning of a path or of an SQLite file's.

    Example:
        >>> expand_storage("sqlite:///~/study.db") == f"sqlite:///{Path.home()}/study.db"
        True
    """
    text = os.fspath(storage)
    kind, sign, path = text.partition(":///") if text.startswith("sqlite") else ("", "", text)
    return f"{kind}{sign}{expand_home(path)}" if path.startswith("~") else text


def check_storage(storage: Any) -> None:
    """Check what can be known of a storage without opening it.

    Raises:
        ConfigurationError: when it is nothing that `open_storage` opens, or the file of a database.
    """
    if not isinstance(storage, (str, os.PathLike, BaseStorage, type(None))):
        raise ConfigurationError(
            "storage must be a URL such as 'sqlite:///study.db', the path of a journal file, or an Optuna storage, "
            f"but got {storage!r}."
        )
    if isinstance(storage, str) and re.match(r"[a-z]\w+(\+\w+)?:/?[^/\\]", storage):
        # what is no URL, redact() does not know
        shown = f"{storage.partition(':')[0]}:***" if "@" in storage else storage
        raise ConfigurationError(
            f"storage={shown!r} is no URL: one begins with a name and '://', as 'sqlite:///study.db'."
        )
    if isinstance(storage, str) and _AT_IN_PASSWORD.match(storage):
        raise ConfigurationError(
            f"storage={storage!r} has more than one '@': within the user and the password it is written as %40."
        )
    if isinstance(storage, (str, os.PathLike)) and expand_home(storage).is_file():
        with expand_home(storage).open("rb") as file:
            if file.read(15) == b"SQLite format 3":
                raise ConfigurationError(
                    f"storage='{storage}' is an SQLite database, which is opened by its URL: 'sqlite:///{storage}'."
                )
