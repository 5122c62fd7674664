"""The lock of a journal file: a writer that is killed leaves neither a torn line that hurts nor a lock that stays."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import IO, Any

from optuna.storages.journal import JournalFileSymlinkLock

if sys.platform != "win32":
    import fcntl

_BLOCK = 4096
_LONGEST_WAIT = 30.0
_PATIENCE = 1.0


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
        """Take the lock, and cut a torn line."""
        file = Path(self._lock_target_file).open("ab+")  # noqa: SIM115  # closed when the lock is released
        try:
            if _lock(file):
                self._free_from_the_dead()
            acquired = super().acquire()
            self._file = file
            _cut_torn_line(file)
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


def _cut_torn_line(file: IO[bytes]) -> None:
    size = end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _BLOCK)
        file.seek(start)
        line_end = file.read(end - start).rfind(b"\n")
        if line_end >= 0:
            end = start + line_end + 1
            break
        end = start
    if end < size:
        file.truncate(end)
