"""A journal file that outlives its writers: a torn line does not hurt, a damaged one is noticed, no lock stays."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import zlib
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import IO, Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from lightningtune.errors import ConfigurationError

if sys.platform != "win32":
    import fcntl

_BLOCK = 4096
_LONGEST_WAIT = 30.0
_PATIENCE = 1.0
_SUM = "crc"
"""The key of a record's checksum; Optuna passes over a key that it does not know."""


def open_journal(path: Path) -> JournalStorage:
    """Open a journal file, or begin one.

    Raises:
        ConfigurationError: when it is damaged, or cannot be read.
    """
    try:
        storage = JournalStorage(_Journal(path))
        with path.open("rb") as file:
            _check(path, _last_line(file)[0])  # Optuna reads over it, if it is spoilt
    except ConfigurationError:  # which says it all, and is a ValueError
        raise
    except ValueError as error:
        raise _damaged(path, f"a line of it is not JSON ({error})", "remove the lines that are not JSON") from None
    except (KeyError, TypeError, AssertionError) as error:
        why = f"a line of it is no record, or none that fits the others ({type(error).__name__}: {error})"
        raise _damaged(path, why, "remove that line") from None
    except OSError as error:
        raise ConfigurationError(f"The journal '{path}' cannot be opened: {error.strerror}.") from error
    return storage


class _Journal(JournalFileBackend):
    """Optuna's journal file, of which each record has a checksum; those of other programs have none, and are taken.

    Whoever opens a study of a thousand trials waits for it to be read. So all lines are decoded together, and a sum is
    that of a line's own bytes: of each line by itself, and of each record written out again, it took twice as long.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = (0, 0)
        super().__init__(str(path), JournalLock(str(path)))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records."""
        super().append_logs([{**log, _SUM: _sum_of(_bytes_of(log))} for log in logs])

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Read records. A last line that has no end is being written, or was never told of as written.

        Raises:
            ConfigurationError: when one is not as it was written.
            ValueError: when one is not JSON, and another follows.
        """
        known = self._read if self._read[0] <= log_number_from else (0, 0)
        with self._path.open("rb") as file:
            file.seek(known[1])
            whole, _, _ = file.read().rpartition(b"\n")
        lines = whole.split(b"\n") if whole else []
        logs = _decoded(lines)
        for number, (line, log) in enumerate(zip(lines, logs, strict=False), known[0] + 1):
            known = (number, known[1] + len(line) + 1)
            if number <= log_number_from:
                continue
            written = log.pop(_SUM, None) if isinstance(log, dict) else None
            if written is not None and not _is_as_written(line, written):
                raise _damaged(self._path, f"its line {number} is not as it was written", "remove that line")
            self._read = known
            yield log


def _decoded(lines: list[bytes]) -> list[Any]:
    """Decode lines of JSON, but for a last one that is none.

    Raises:
        ValueError: when another one is none.
    """
    with contextlib.suppress(ValueError):
        together: list[Any] = json.loads(b"[%b]" % b",".join(lines))
        if len(together) == len(lines):
            return together
    logs = []
    for number, line in enumerate(lines, 1):
        try:
            logs.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise
    return logs


def _bytes_of(log: Mapping[str, Any]) -> bytes:
    """Return a record as Optuna writes it."""
    return json.dumps(log, separators=(",", ":")).encode()


def _is_as_written(line: bytes, written: Any) -> bool:
    """Whether a line is what its sum, which stands at its end, was made of."""
    record, _, _ = line.rpartition(b',"%b":' % _SUM.encode())
    return bool(written == _sum_of(record + b"}"))


def _sum_of(record: bytes) -> int:
    return zlib.crc32(record)


def _damaged(path: Path, why: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(
        f"The journal '{path}' is damaged, or is none: {why}. Put a copy of it in its place, or {remedy}."
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
            last, torn = _last_line(file)
            if torn:
                file.truncate(file.seek(0, os.SEEK_END) - len(torn))
            _check(Path(self._lock_target_file), last)
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


def _last_line(file: IO[bytes]) -> tuple[bytes, bytes]:
    """Return the last line that has an end, and what stands after it; either may be empty."""
    end, block, tail = file.seek(0, os.SEEK_END), _BLOCK, b""
    start = end
    while start > 0 and tail.count(b"\n") < 2:
        start, block = max(0, start - block), 2 * block
        file.seek(start)
        tail = file.read(end - start)
    whole, newline, torn = tail.rpartition(b"\n")
    return (whole.rpartition(b"\n")[2] if newline else b""), torn


def _check(path: Path, line: bytes) -> None:
    try:
        json.loads(line or b"{}")
    except ValueError as error:
        raise _damaged(path, f"its last line is not JSON ({error})", "remove that line") from None
