"""How a trial's process comes to be: forked from a warm server, or as a cold interpreter of its own."""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets
import signal
import socket
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from concurrent.futures import Future
from multiprocessing import Pipe
from multiprocessing.connection import Connection, Listener, wait
from pathlib import Path
from typing import Any

from lightningtune.errors import ConfigurationError
from lightningtune.workers.fork_server import FORK, STATUS

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
"""The signal that no process survives; Windows knows one for all."""


class Child(ABC):
    """A trial's process, seen from the host.

    Attributes:
        connection: a job goes in; values come out, then an outcome.
        number: its process number.
    """

    connection: Connection
    number: int

    @property
    @abstractmethod
    def waitables(self) -> list[Any]:
        """What ``multiprocessing.connection.wait`` waits for: something was sent, or the process has ended."""

    @abstractmethod
    def exit_code(self) -> int | None:
        """Return its exit code, negative where a signal has ended it; None while it runs."""

    def signal(self, number: int) -> None:
        """Send a signal: `KILL` to all it has started, any other to itself, for it to end softly."""
        if self.exit_code() is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if number == KILL and hasattr(os, "killpg"):
                os.killpg(self.number, number)
            else:
                os.kill(self.number, number)

    def close(self) -> None:
        """Give back what the host holds of it."""
        self.connection.close()


class ForkedChild(Child):
    """A process that the fork server has forked.

    Args:
        connection: to the process.
        status: a pipe on which the server tells its number, and its exit code at the end.
    """

    def __init__(self, connection: Connection, status: int) -> None:
        self.connection = connection
        self._status = status
        self._code: int | None = None
        self.number = self._told()

    @property
    def waitables(self) -> list[Any]:
        """Its connection, and the pipe."""
        return [self.connection, self._status]

    def exit_code(self) -> int | None:
        """Return what the server has told."""
        if self._code is None and wait([self._status], timeout=0):
            self._code = self._told()
        return self._code

    def close(self) -> None:
        """Close both."""
        super().close()
        os.close(self._status)

    def _told(self) -> int:
        told = os.read(self._status, STATUS.size)
        return int(STATUS.unpack(told)[0]) if told else -KILL  # the server was killed, and all with it


class ColdChild(Child):
    """An interpreter of its own.

    Args:
        connection: to the process.
        process: the process.
    """

    def __init__(self, connection: Connection, process: subprocess.Popen[bytes]) -> None:
        self.connection = connection
        self.number = process.pid
        self._process = process

    @property
    def waitables(self) -> list[Any]:
        """Its connection, which ends with it."""
        return [self.connection]

    def exit_code(self) -> int | None:
        """Return its exit code; of a process that has closed its connection, which is about to end, wait for it."""
        with contextlib.suppress(EOFError, OSError):
            if not self.connection.closed and not self.connection.poll():
                return self._process.poll()
        return self._process.wait()


class ForkServer:
    """Starts processes by forking a warm server, which is a process of its own.

    Args:
        payload: what the trials have in common, pickled.
    """

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._ready: Future[None] = Future()

    def start(self) -> None:
        """Start the server; it imports while the host goes on."""
        self._control, theirs = socket.socketpair()
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-c", _SERVE, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal is the host's to handle
                env=_environment(),
            )
        self._ready = Future()
        threading.Thread(target=self._shake_hands, args=[self._ready], daemon=True).start()

    def child(self) -> Child:
        """Fork a process; a server that was killed is started again.

        Raises:
            ConfigurationError: when the server could not load the payload.
        """
        with self._lock:
            if self._server is None or self._server.poll() is not None:
                self._ready.result()
                self.close()
                self.start()
            self._ready.result()
            ours, theirs = Pipe()
            status, told = os.pipe()
            with theirs:
                try:
                    socket.send_fds(self._control, [FORK], [theirs.fileno(), told])
                finally:
                    os.close(told)
        return ForkedChild(ours, status)

    def close(self) -> None:
        """End the server, and with it every process that it has forked."""
        if self._server is not None:
            with self._control, contextlib.suppress(OSError):  # the server may have been killed
                self._control.shutdown(socket.SHUT_RDWR)
            self._server.wait()

    def _shake_hands(self, ready: Future[None]) -> None:
        """Send the payload, which waits for the server's imports, and hear whether it could be loaded."""
        try:
            connection = Connection(os.dup(self._control.fileno()))
            with connection:
                connection.send((sys.path, str(Path.cwd()), self._payload))
                failure = connection.recv()
            if failure is not None:
                raise ConfigurationError(_NOT_LOADED.format(failure))
            ready.set_result(None)
        except (EOFError, OSError) as error:
            failure = ConfigurationError(_NOT_LOADED.format(f"it ended: {error or 'its output says why'}"))
            ready.set_exception(failure)
        except ConfigurationError as error:
            ready.set_exception(error)


class Cold:
    """Starts each process as an interpreter of its own, on any platform; it imports everything again.

    Args:
        payload: what the trials have in common, pickled.
    """

    def __init__(self, payload: bytes) -> None:
        self._payload = payload

    def start(self) -> None:
        """There is nothing to warm up."""

    def child(self) -> Child:
        """Start a process."""
        key = secrets.token_bytes(32)
        with Listener(authkey=key) as listener:
            process = subprocess.Popen(
                [sys.executable, "-c", _START],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                env=_environment(),
            )
            assert process.stdin is not None
            with process.stdin as pipe:
                pickle.dump((listener.address, key), pipe)
            connection = listener.accept()
        connection.send((sys.path, str(Path.cwd()), self._payload))
        return ColdChild(connection, process)

    def close(self) -> None:
        """Nothing was warmed up."""


def _environment() -> dict[str, str]:
    """Return the variables of a new interpreter: it finds this package wherever the host has found it."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


_SERVE = "import sys; from lightningtune.workers.fork_server import serve; serve(int(sys.argv[1]))"
_START = "from lightningtune.workers.child import start_cold; start_cold()"
_NOT_LOADED = (
    "The classes of the study could not be loaded in a trial's process. Import them from a module that is installed or "
    "lies beside the script, or train in this process with n_jobs=1 and isolate=False. It said:\n{}"
)
