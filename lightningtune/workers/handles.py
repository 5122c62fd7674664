"""A trial's process, seen from the host."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import threading
from abc import ABC, abstractmethod
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
"""The signal that no process survives; Windows knows one for all."""
NUMBER = struct.Struct("i")
"""How the fork server tells the number of a process, and its exit code."""


def kill_group(number: int) -> None:
    """Kill a process and all that it has started, as far as there are any."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(number, signal.SIGKILL)


class Child(ABC):
    """A trial's process, seen from the host; any thread, and a signal handler, may send it a signal.

    Args:
        connection: to the process.
        number: its process number.

    Attributes:
        connection: a job goes in; values come out, then an outcome.
        number: its process number.
    """

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self.number = number
        self._lock = threading.RLock()
        self._is_closed = False

    @property
    @abstractmethod
    def waitables(self) -> list[Any]:
        """What ``multiprocessing.connection.wait`` waits for: something was sent, or the process has ended."""

    @abstractmethod
    def _ended_with(self) -> int | None:
        """Return its exit code, negative where a signal has ended it; None while it runs."""

    @abstractmethod
    def _let_go(self) -> None:
        """Give back what else the host holds of it."""

    def exit_code(self) -> int | None:
        """Return its exit code, negative where a signal has ended it; None while it runs."""
        with self._lock:
            return self._ended_with()

    def signal(self, number: int) -> None:
        """Send a signal: `KILL` to all it has started, any other to itself, for it to end softly."""
        with self._lock:
            if self._is_closed or self._ended_with() is not None:
                return
            if number == KILL and hasattr(os, "killpg"):
                kill_group(self.number)
            else:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(self.number, number)

    def close(self) -> None:
        """Give back what the host holds of it."""
        with self._lock:
            self._is_closed = True
            self.connection.close()
            self._let_go()


class ForkedChild(Child):
    """A process that the fork server has forked.

    Args:
        connection: to the process.
        number: its process number.
        status: a pipe on which the server tells its exit code at the end.
    """

    def __init__(self, connection: Connection, number: int, status: int) -> None:
        super().__init__(connection, number)
        self._status = status
        self._code: int | None = None

    @property
    def waitables(self) -> list[Any]:
        """Its connection, and the pipe."""
        return [self.connection, self._status]

    def _ended_with(self) -> int | None:
        """Return what the server has told."""
        if self._code is None and wait([self._status], timeout=0):
            told = os.read(self._status, NUMBER.size)
            if not told:  # the server was killed, and the process with it, but not what that has started
                kill_group(self.number)
            self._code = NUMBER.unpack(told)[0] if told else -KILL
        return self._code

    def _let_go(self) -> None:
        os.close(self._status)


class ColdChild(Child):
    """An interpreter of its own.

    Args:
        connection: to the process.
        process: the process, which reads on its standard input what it needs to know.
        told: is written there.
    """

    def __init__(self, connection: Connection, process: subprocess.Popen[bytes], told: bytes) -> None:
        super().__init__(connection, process.pid)
        self._process = process
        self._end, end = Pipe(duplex=False)
        threading.Thread(target=_accompany, args=[process, told, end], daemon=True).start()

    @property
    def waitables(self) -> list[Any]:
        """Its connection, and one that is closed at its end."""
        return [self.connection, self._end]

    def _ended_with(self) -> int | None:
        """Return its exit code; of one that is about to end, None."""
        return self._process.poll()

    def _let_go(self) -> None:
        self._end.close()


def _accompany(process: subprocess.Popen[bytes], told: bytes, end: Connection) -> None:
    """Tell a process what it needs to know, and wait for its end: in a thread, since it may never read, nor end."""
    with end:
        assert process.stdin is not None
        with contextlib.suppress(OSError), process.stdin:  # it has ended
            process.stdin.write(told)
        process.wait()
        if hasattr(os, "killpg"):
            kill_group(process.pid)  # what it has started goes with it
