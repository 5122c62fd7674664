"""A journal file that survives its writers: it cuts torn lines, finds damaged ones, and frees the locks of the dead."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileSymlinkLock

from lightningtune.errors import ConfigurationError

if sys.platform != "win32":
    import fcntl

DEAD_LOCK_SECONDS = 1.0
"""Seconds after which Optuna's lock counts as a dead process's where nobody holds the kernel's lock: no write takes
so long."""
_KERNEL_LOCK_SECONDS = 30.0
"""Seconds for which the kernel's lock is waited for; Optuna waits as long for its own."""
_CHAIN = b',"chain":'
"""Begins the last value of a record: the checksum of the file up to there. Optuna ignores keys it does not know."""
_Position = tuple[int, int, int]
"""How far a journal is known: its lines, their bytes, and their checksum."""


def open_journal(path: Path) -> JournalStorage:
    """Open a journal file, or create one."""
    try:
        journal = Journal(path)
        return JournalStorage(journal)
    except ConfigurationError:  # it is a ValueError, too
        raise
    except OSError as error:
        raise ConfigurationError(f"The journal '{path}' cannot be opened: {error.strerror}.") from error
    except Exception as error:  # a record of another program may hold anything
        why = f"is no record, or none that fits the others ({type(error).__name__}: {error})"
        raise _damaged(path, journal.number, why) from error


class Journal(BaseJournalBackend):
    """A journal file in Optuna's format in which no record can change, vanish or move unnoticed.

    The checksum of a record continues the checksum of all lines before it. Records of other programs and of the first
    version have none, but the next record that has one covers them. Lines that are missing at the end are not noticed:
    that is a crash of the machine.

    A line without an end is a record whose writer is at work or was killed. Optuna reads over it, but would append to
    it, and could then read neither the new record nor anything after it. So a writer cuts it: nobody else writes while
    it holds the lock, and the record was never confirmed.

    Opening a study of a thousand trials takes as long as reading its lines. So all lines are decoded together, and a
    checksum is that of a line's bytes: encoding each record again took twice as long.

    Attributes:
        number: of the line that was read last.
    """

    def __init__(self, path: Path, lock: JournalLock | None = None) -> None:
        self.number = 0
        self._path = path
        self._known: _Position = (0, 0, 0)
        self._lock = JournalLock(str(path)) if lock is None else lock
        path.touch()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records, and cut a torn line before them."""
        self._lock.acquire()
        try:
            # a file that has become shorter is another one, such as a copy that was put in its place
            is_same = self._path.stat().st_size >= self._known[1]
            _, (_, size, checksum) = self._read_after(self._known if is_same else (0, 0, 0))
            text = b""
            for log in logs:
                record = json.dumps(log, separators=(",", ":")).encode()[:-1]
                checksum = zlib.crc32(record, checksum)
                text += b"%b%b%d}\n" % (record, _CHAIN, checksum)
            with self._path.open("rb+") as file:
                file.seek(size)
                file.truncate()
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        finally:
            self._lock.release()

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Read records."""
        known = self._known if self._known[0] <= log_number_from else (0, 0, 0)
        try:
            logs, self._known = self._read_after(known)
        except ConfigurationError as damage:
            # a writer may just have replaced a torn line: this reader saw the start of one and the end of the other.
            # Nobody writes while it holds the lock.
            try:
                self._lock.acquire()
            except OSError:  # a read-only folder
                raise damage from None
            try:
                logs, self._known = self._read_after(known)
            finally:
                self._lock.release()
        for number, log in enumerate(logs[log_number_from - known[0] :], log_number_from + 1):
            self.number = number
            yield log

    def _read_after(self, known: _Position) -> tuple[list[Any], _Position]:
        """Read and check the lines after those that are known."""
        number, size, checksum = known
        with self._path.open("rb") as file:
            file.seek(size)
            whole, newline, _ = file.read().rpartition(b"\n")
        lines = whole.split(b"\n") if newline else []
        logs = self._decode(lines, number)
        for line in lines:
            number += 1
            record, chain, written = line.rpartition(_CHAIN)
            if not chain or not written[:-1].isdigit():  # another program's
                checksum = zlib.crc32(line, checksum)
                continue
            checksum = zlib.crc32(record, checksum)
            if written != b"%d}" % checksum:
                why = "is not as it was written, or a line before it is missing or in another place"
                raise _damaged(self._path, number, why)
        return logs, (number, size + len(whole) + len(newline), checksum)

    def _decode(self, lines: list[bytes], number: int) -> list[Any]:
        """Decode lines that come after so many others."""
        with contextlib.suppress(ValueError, RecursionError):
            together: list[Any] = json.loads(b"[%b]" % b",".join(lines))
            if len(together) == len(lines):
                return together
        logs = []
        for line in lines:  # one by one, to name the one that is not JSON
            number += 1
            try:
                logs.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise _damaged(self._path, number, f"is not JSON ({error})") from None
        return logs


def _damaged(path: Path, number: int, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"The journal '{path}' is damaged, or is none: its line {number} {why}. Put a copy of it in its place, or keep "
        "only the lines before that one."
    )


class JournalLock(JournalFileSymlinkLock):
    """Optuna's lock of a journal file, which other programs know too, freed when its holder has died.

    Optuna waits for 30 seconds. Here each holder also has the kernel's lock on the file, which ends with the process.
    Who gets the kernel's lock and finds Optuna's taken knows that its holder is dead, or is another program, which
    gives its lock back within a second.
    """

    def __init__(self, filepath: str, dead_lock_seconds: float = DEAD_LOCK_SECONDS) -> None:
        super().__init__(filepath)
        self._dead_lock_seconds = dead_lock_seconds
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Take the lock."""
        file = Path(self._lock_target_file).open("ab+")  # noqa: SIM115  # closed when the lock is released
        try:
            if _lock(file):
                self._free_dead_lock()
            acquired = super().acquire()
        except BaseException:
            _unlock(file)
            raise
        self._file = file
        return acquired

    def release(self) -> None:
        """Give the lock back."""
        file, self._file = self._file, None
        try:
            super().release()
        finally:
            if file is not None:
                _unlock(file)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def _free_dead_lock(self) -> None:
        """Remove Optuna's lock once it has stayed the same for so long; return at once where there is none."""
        seen, since = None, 0.0
        while (found := _identify(self._lock_file)) is not None:
            if found != seen:
                seen, since = found, time.monotonic()
            elif time.monotonic() - since > self._dead_lock_seconds:
                with contextlib.suppress(RuntimeError):  # it has just been given back
                    super().release()
                return
            time.sleep(0.001)


def _lock(file: IO[bytes]) -> bool:
    """Take the kernel's lock on a file. Return False where there is none to have: then Optuna's alone decides."""
    if sys.platform == "win32":
        return False
    deadline = time.monotonic() + _KERNEL_LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # a process that was forked while the lock was held keeps it although the holder has died
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        except OSError:  # a network file system
            return False
        else:
            return True


def _unlock(file: IO[bytes]) -> None:
    # closing alone does not give the lock back: a process that was forked meanwhile has the file open still
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)
    file.close()


def _identify(lock: str) -> tuple[int, int] | None:
    """Return what tells a lock from the next one of the same name; None where there is none."""
    try:
        found = os.lstat(lock)
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns
