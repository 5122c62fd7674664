"""A journal file that outlives its writers: a torn line does not hurt, a damaged one is noticed, no lock stays."""

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

_BLOCK = 4096
_LONGEST_WAIT = 30.0
_PATIENCE = 1.0
_CHAIN = b',"chain":'
"""Begins the last value of a record: the checksum of the file up to there. Optuna ignores keys it does not know."""
_OWN_SUM = "crc"
"""The key under which earlier versions wrote the checksum of a record alone."""


def open_journal(path: Path) -> JournalStorage:
    """Open a journal file, or create one.

    Raises:
        ConfigurationError: when it is damaged, or cannot be read.
    """
    try:
        journal = _Journal(path)
        return JournalStorage(journal)
    except ConfigurationError:  # which is a ValueError
        raise
    except OSError as error:
        raise ConfigurationError(f"The journal '{path}' cannot be opened: {error.strerror}.") from error
    except Exception as error:  # a record of another program may hold anything
        why = f"is no record, or none that fits the others ({type(error).__name__}: {error})"
        raise _damaged(path, journal.number, why) from error


class _Journal(BaseJournalBackend):
    """A journal file in Optuna's format, in which no record can change, go, or change places unnoticed.

    The checksum of a record continues the checksum of all lines before it, whoever wrote those: a record of another
    program, or of an earlier version, has no such sum, but counts for the next one. So the first line that is not as it
    was written, or not in its place, is known. Lines that are missing at the end are a crash of the machine.

    Opening a study of a thousand trials takes as long as reading them. So all lines are decoded together, and a sum is
    that of a line's bytes: writing each record out again took twice as long.

    Attributes:
        number: of the line that was read last.
    """

    def __init__(self, path: Path) -> None:
        self.number = 0
        self._path = path
        self._known = (0, 0, 0)
        """Lines, bytes, and their sum: what has been read and need not be read again."""
        self._lock = JournalLock(str(path))
        path.touch()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records."""
        self._lock.acquire()
        try:
            with self._path.open("rb+") as file:
                total, text = _sum_of_all(file), b""
                for log in logs:
                    record = json.dumps(log, separators=(",", ":")).encode()[:-1]
                    total = zlib.crc32(record, total)
                    text += b"%b%b%d}\n" % (record, _CHAIN, total)
                file.seek(0, os.SEEK_END)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        finally:
            self._lock.release()

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Read records. A last line that has no end is being written, or its writer was killed.

        Raises:
            ConfigurationError: when a line is not as it was written, or not in its place.
        """
        known = self._known if self._known[0] <= log_number_from else (0, 0, 0)
        try:
            logs, self._known = self._read_after(*known)
        except ConfigurationError as damage:
            # while the lines were read, a writer may have replaced a torn one
            try:
                self._lock.acquire()
            except (OSError, ConfigurationError):  # a folder that is only to be read; the last line is damaged
                raise damage from None
            try:
                logs, self._known = self._read_after(*known)
            finally:
                self._lock.release()
        for number, log in enumerate(logs[log_number_from - known[0] :], log_number_from + 1):
            self.number = number
            yield log

    def _read_after(self, number: int, size: int, total: int) -> tuple[list[Any], tuple[int, int, int]]:
        """Read and check the lines after the first ones, of which number, bytes and sum are known."""
        with self._path.open("rb") as file:
            file.seek(size)
            whole, newline, _ = file.read().rpartition(b"\n")
        lines = whole.split(b"\n") if newline else []
        logs = _decoded(self._path, lines, number)
        for line, log in zip(lines, logs, strict=True):
            number += 1
            record, chain, written = line.rpartition(_CHAIN)
            if chain and written[:-1].isdigit():
                total = zlib.crc32(record, total)
                if written != b"%d}" % total:
                    why = "is not as it was written, or a line before it is missing or in another place"
                    raise _damaged(self._path, number, why)
                continue
            total = zlib.crc32(line, total)
            if isinstance(log, dict) and _OWN_SUM in log and not _is_as_written(line, log[_OWN_SUM]):
                raise _damaged(self._path, number, "is not as it was written")
        return logs, (number, size + len(whole) + len(newline), total)


def _decoded(path: Path, lines: list[bytes], number: int) -> list[Any]:
    """Decode lines of JSON, before which there are so many others.

    Raises:
        ConfigurationError: when one is not JSON.
    """
    with contextlib.suppress(ValueError, RecursionError):
        together: list[Any] = json.loads(b"[%b]" % b",".join(lines))
        if len(together) == len(lines):
            return together
    return [_decode(path, line, number) for number, line in enumerate(lines, number + 1)]


def _decode(path: Path, line: bytes, number: int | None = None) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, number, f"is not JSON ({error})") from None


def _is_as_written(line: bytes, written: Any) -> bool:
    """Whether a line of an earlier version is what the sum at its end was made of."""
    record, _, _ = line.rpartition(b',"%b":' % _OWN_SUM.encode())
    return bool(written == zlib.crc32(record + b"}"))


def _sum_of_all(file: IO[bytes]) -> int:
    """Return the sum of all lines of a journal: that of the last record that has one, continued over those after it."""
    total, others, lines = 0, [], _backwards(file)
    next(lines)
    for line in lines:
        _, chain, written = line.rpartition(_CHAIN)
        if chain and written[:-1].isdigit():
            total = int(written[:-1])
            break
        others.append(line)
    for line in reversed(others):
        total = zlib.crc32(line, total)
    return total


def _damaged(path: Path, number: int | None, why: str) -> ConfigurationError:
    line = "last line" if number is None else f"line {number}"
    return ConfigurationError(
        f"The journal '{path}' is damaged, or is none: its {line} {why}. Put a copy of it in its place, or keep only "
        "the lines before that one."
    )


class JournalLock(JournalFileSymlinkLock):
    """Optuna's lock of a journal file, which other programs know too, and within it two things more.

    A torn line, which a writer has left that was killed, is cut. Optuna reads over a last line that has no end, but
    would append to it, and could then read neither the new record nor, once another follows, anything at all. Nobody
    else writes while the lock is held, so a line without an end is a dead writer's, and was never told of as written.

    Whoever holds the lock also holds the kernel's lock on the file, which ends with the process. So whoever has got
    that, and finds Optuna's lock taken, knows that a process has died that held it, unless it is another program's,
    which is waited for; Optuna would wait for 30 seconds.
    """

    _file: IO[bytes] | None = None

    def acquire(self) -> bool:
        """Take the lock, and cut a torn line.

        Raises:
            ConfigurationError: when the last line is not JSON: after another one, nothing could be read any more.
        """
        file = Path(self._lock_target_file).open("ab+")  # noqa: SIM115  # closed when the lock is released
        try:
            if _lock(file):
                self._free_from_the_dead()
            acquired = super().acquire()
            self._file = file
            lines = _backwards(file)
            torn = next(lines)
            for last in itertools.islice(lines, 1):
                _decode(Path(self._lock_target_file), last)
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
        return {name: value for name, value in self.__dict__.items() if name != "_file"}

    def _free_from_the_dead(self) -> None:
        """Remove a lock that stays the same for as long as no write takes."""
        seen, since = None, 0.0
        while (found := _identity(self._lock_file)) is not None:
            if found != seen:
                seen, since = found, time.monotonic()
            elif time.monotonic() - since > _PATIENCE:
                with contextlib.suppress(RuntimeError):  # it has just been given back
                    super().release()
                return
            time.sleep(0.001)


def _lock(file: IO[bytes]) -> bool:
    """Take the kernel's lock on a file; False where there is none to have."""
    if sys.platform == "win32":
        return False
    deadline = time.monotonic() + _LONGEST_WAIT
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # a process that was forked from the holder may have it still
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        except OSError:  # a network's file system
            return False
        else:
            return True


def _unlock(file: IO[bytes]) -> None:
    """Give the kernel's lock back, and close the file; a process that was forked meanwhile has it open still."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)
    file.close()


def _identity(lock: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(lock)
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns


def _backwards(file: IO[bytes]) -> Iterator[bytes]:
    """Yield what stands after the end of the last line, maybe nothing, then the lines from the last to the first."""
    start, block, first = file.seek(0, os.SEEK_END), _BLOCK, b""
    while start > 0:
        size = min(start, block)
        start, block = start - size, 2 * block
        file.seek(start)
        first, *lines = (file.read(size) + first).split(b"\n")
        yield from reversed(lines)
    yield first
