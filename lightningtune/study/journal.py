"""A journal file that survives its writers: it cuts torn lines, finds damaged ones, and frees the locks of the dead."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
import time
import zlib
from collections.abc import Generator, Iterator
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
_BLOCK = 4096
_CHAIN = b',"chain":'
"""Begins the last value of a record: the checksum of the file up to there. Optuna ignores keys it does not know."""
_OWN_SUM = "crc"
"""The key under which earlier versions wrote the checksum of a record alone."""
_Position = tuple[int, int, int]
"""How far a journal is known: its lines, their bytes, and their checksum."""


def open_journal(path: Path) -> JournalStorage:
    """Open a journal file, or create one.

    Raises:
        ConfigurationError: when it is damaged, or cannot be read.
    """
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

    The checksum of a record continues the checksum of all lines before it. Records of other programs and of earlier
    versions have none, but the next record that has one covers them. Lines that are missing at the end are not noticed:
    that is a crash of the machine.

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
        """Write records."""
        self._lock.acquire()
        try:
            with self._path.open("rb+") as file:
                checksum, text = _read_checksum(file), b""
                for log in logs:
                    record = json.dumps(log, separators=(",", ":")).encode()[:-1]
                    checksum = zlib.crc32(record, checksum)
                    text += b"%b%b%d}\n" % (record, _CHAIN, checksum)
                file.seek(0, os.SEEK_END)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        finally:
            self._lock.release()

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Read records. A last line without an end is left out: its writer is at work, or was killed.

        Raises:
            ConfigurationError: when a line is not as it was written, or not in its place.
        """
        known = self._known if self._known[0] <= log_number_from else (0, 0, 0)
        try:
            logs, self._known = self._read_after(known)
        except ConfigurationError as damage:
            # a writer may just have replaced a torn line: this reader saw the start of one and the end of the other.
            # Nobody writes while it holds the lock.
            try:
                self._lock.acquire()
            except (OSError, ConfigurationError):  # a read-only folder, or a damaged last line
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
        for line, log in zip(lines, logs, strict=True):
            number += 1
            record, written = _split_checksum(line)
            if written is not None:
                checksum = zlib.crc32(record, checksum)
                if line != b"%b%b%d}" % (record, _CHAIN, checksum):
                    why = "is not as it was written, or a line before it is missing or in another place"
                    raise _damaged(self._path, number, why)
                continue
            checksum = zlib.crc32(line, checksum)
            if isinstance(log, dict) and _OWN_SUM in log and not _has_own_sum(line, log[_OWN_SUM]):
                raise _damaged(self._path, number, "is not as it was written")
        return logs, (number, size + len(whole) + len(newline), checksum)

    def _decode(self, lines: list[bytes], number: int) -> list[Any]:
        """Decode lines that come after so many others."""
        with contextlib.suppress(ValueError, RecursionError):
            together: list[Any] = json.loads(b"[%b]" % b",".join(lines))
            if len(together) == len(lines):
                return together
        # some line is not JSON: one by one, to name it
        return [_decode_line(self._path, line, number) for number, line in enumerate(lines, number + 1)]


def _split_checksum(line: bytes) -> tuple[bytes, bytes | None]:
    """Split a line into what its checksum covers, and the checksum's digits; None where it has none."""
    record, chain, written = line.rpartition(_CHAIN)
    return (record, written[:-1]) if chain and written[:-1].isdigit() else (line, None)


def _has_own_sum(line: bytes, written: Any) -> bool:
    """Whether a line of an earlier version has the checksum that stands at its end."""
    record, _, _ = line.rpartition(b',"%b":' % _OWN_SUM.encode())
    return bool(written == zlib.crc32(record + b"}"))


def _decode_line(path: Path, line: bytes, number: int | None = None) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, number, f"is not JSON ({error})") from None


def _read_checksum(file: IO[bytes]) -> int:
    """Return the checksum of all lines of a journal, reading back to the last record that has one."""
    checksum, others, lines = 0, [], _read_backwards(file)
    next(lines)  # what stands after the last line's end
    for line in lines:
        _, written = _split_checksum(line)
        if written is not None:
            checksum = int(written)
            break
        others.append(line)
    for line in reversed(others):
        checksum = zlib.crc32(line, checksum)
    return checksum


def _damaged(path: Path, number: int | None, why: str) -> ConfigurationError:
    line = "last line" if number is None else f"line {number}"
    return ConfigurationError(
        f"The journal '{path}' is damaged, or is none: its {line} {why}. Put a copy of it in its place, or keep only "
        "the lines before that one."
    )


class JournalLock(JournalFileSymlinkLock):
    """Optuna's lock of a journal file, which other programs know too, with two additions.

    - It cuts a torn line, which a killed writer has left. Optuna reads over a last line without an end, but would
      append to it, and could then read neither the new record nor anything after it. Nobody else writes while the lock
      is held, so the writer of such a line is dead, and its record was never confirmed.
    - It frees Optuna's lock when its holder has died; Optuna waits for 30 seconds. Each holder also has the kernel's
      lock on the file, which ends with the process. Who gets the kernel's lock and finds Optuna's taken knows that its
      holder is dead, or is another program, which gives its lock back within a second.

    Args:
        filepath: the journal.
        dead_lock_seconds: after how many seconds Optuna's lock is freed.
    """

    def __init__(self, filepath: str, dead_lock_seconds: float = DEAD_LOCK_SECONDS) -> None:
        super().__init__(filepath)
        self._dead_lock_seconds = dead_lock_seconds
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Take the lock, and cut a torn line.

        Raises:
            ConfigurationError: when the last line is not JSON: once another follows, nothing could be read any more.
        """
        file = Path(self._lock_target_file).open("ab+")  # noqa: SIM115  # closed when the lock is released
        try:
            if _lock(file):
                self._free_dead_lock()
            acquired = super().acquire()
            self._file = file
            lines = _read_backwards(file)
            torn = next(lines)
            for last in itertools.islice(lines, 1):
                _decode_line(Path(self._lock_target_file), last)
            if torn:
                file.truncate(file.seek(0, os.SEEK_END) - len(torn))
        except BaseException:
            if self._file is not None:
                self.release()
            else:
                _unlock(file)
            raise
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


def _read_backwards(file: IO[bytes]) -> Iterator[bytes]:
    """Yield what stands after the last line's end, which may be nothing, then the lines from the last to the first."""
    start, block, first = file.seek(0, os.SEEK_END), _BLOCK, b""
    while start > 0:
        size = min(start, block)
        start, block = start - size, 2 * block
        file.seek(start)
        first, *lines = (file.read(size) + first).split(b"\n")
        yield from reversed(lines)
    yield first
