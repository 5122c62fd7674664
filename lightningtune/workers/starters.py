"""How the host starts trial processes, forked from a warm server or as new interpreters, and its handles of them."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import gc
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from lightningtune.errors import ConfigurationError, TrialError
from lightningtune.workers.fork_server import FORK, NUMBER, SIGNALS_OF_HOST, kill_group, serve
from lightningtune.workers.travel import Surroundings

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
"""The signal that no process survives; Windows knows one for all."""


def count_memory_kills(counts: Sequence[str] = ("/sys/fs/cgroup/memory.events", "/proc/vmstat")) -> int:
    """Count what Linux has killed for want of memory: processes of this control group, else of the machine."""
    for path in counts:
        with contextlib.suppress(OSError):
            events = dict(line.split() for line in Path(path).read_text().splitlines())
            if "oom_kill" in events:
                return int(events["oom_kill"])
    return 0


class Child(ABC):
    """A trial's process, seen from the host; any thread, and a signal handler, may send it a signal.

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
    """A process that the fork server has forked."""

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
    """An interpreter of its own."""

    def __init__(self, connection: Connection, process: subprocess.Popen[bytes], told: bytes) -> None:
        super().__init__(connection, process.pid)
        self._process = process
        self._end, end = Pipe(duplex=False)
        threading.Thread(target=_tell_and_wait, args=[process, told, end], daemon=True).start()

    @property
    def waitables(self) -> list[Any]:
        """Its connection, and one that is closed at its end."""
        return [self.connection, self._end]

    def _ended_with(self) -> int | None:
        """Return its exit code; of one that is about to end, None."""
        return self._process.poll()

    def _let_go(self) -> None:
        self._end.close()


def _tell_and_wait(process: subprocess.Popen[bytes], told: bytes, end: Connection) -> None:
    """Tell a process what it needs to know, and wait for its end: in a thread, since it may never read, nor end."""
    with end:
        assert process.stdin is not None
        with contextlib.suppress(OSError), process.stdin:  # it has ended
            process.stdin.write(told)
        process.wait()
        if hasattr(os, "killpg"):
            kill_group(process.pid)  # what it has started goes with it


@dataclass(frozen=True)
class ServerProcess:
    """The server's process.

    Attributes:
        number: its process number.
        wait: waits for its end, and returns its exit code.
    """

    number: int
    wait: Callable[[], int]


def is_fit_to_fork() -> bool:
    """Whether this process is fit to be forked into the fork server, which then need not import anything again.

    It is where nothing but Python's main thread, and no library with threads that bear a name of their own, has ever
    been at work here: what other threads hold, and what an accelerator's driver knows, does not survive a fork. The
    threads of torch, NumPy and Arrow bear the process's own name, and are known to be harmless. A process of many
    gigabytes would make each fork slow. Whoever asks ``multiprocessing`` for another way of starting processes than by
    forking means this one, too.
    """
    wishes = multiprocessing.get_start_method(allow_none=True)
    if wishes not in (None, "fork") or threading.active_count() > 1 or torch.cuda.device_count() > 0:
        return False
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        known = {Path("/proc/self/comm").read_text(), _JEMALLOC}
        names = {(thread / "comm").read_text() for thread in Path("/proc/self/task").iterdir()}
    except OSError:  # a thread has just ended, or nobody may know
        return False
    return names <= known and pages * os.sysconf("SC_PAGE_SIZE") < _LARGE


def fork_server(control: socket.socket, theirs: socket.socket, kept: object) -> ServerProcess:
    """Fork this process; the new one serves."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # it is None, or closed
            stream.flush()  # what waits there would be printed twice
    is_frozen = gc.get_freeze_count() > 0
    gc.collect()  # garbage of the user's is cleared away here, and not once more in the server
    gc.freeze()
    host = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS_OF_HOST)
    try:
        with warnings.catch_warnings():
            # Python warns of a process with several threads; that this one is fit to fork has been seen
            warnings.simplefilter("ignore", DeprecationWarning)
            number = os.fork()
        if number == 0:
            control.close()  # or the server would not notice that the host has gone
            serve(theirs.fileno(), host, is_forked=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if not is_frozen:
            gc.unfreeze()
    with contextlib.suppress(PermissionError, ProcessLookupError):  # it has done so itself, or has ended
        os.setpgid(number, number)
    return ServerProcess(number, lambda: _wait_for_exit_code(number))


def start_interpreter(control: socket.socket, theirs: socket.socket, here: Surroundings) -> ServerProcess:
    """Start an interpreter that serves."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(theirs.fileno()), str(os.getpid())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in a terminal is the host's to handle
        env=here.environment(),
    )
    return ServerProcess(process.pid, process.wait)


def get_thread_locals() -> list[object]:
    """Return what this thread holds in ``threading.local`` objects.

    In a process that another thread forks, this thread is gone, and what it held would be given up there: a database's
    session, for one, would end what it is at over the connection that it has in common with this process's.
    """
    return [vars(each) for each in gc.get_objects() if issubclass(type(each), threading.local)]


def _wait_for_exit_code(number: int) -> int:
    try:
        return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    except ChildProcessError:  # the user's code waits for all there are
        return -signal.SIGKILL


_SERVE = "import sys; from lightningtune.workers.fork_server import serve; serve(*map(int, sys.argv[1:]))"
_LARGE = 4 * 2**30
"""Bytes of memory, at some 10 milliseconds a gigabyte and fork."""
_JEMALLOC = "jemalloc_bg_thd\n"
"""Gives memory back for Arrow, which pandas imports; jemalloc starts another after a fork."""


OVER = "The study has ended: no further trial is started."
_START = "from lightningtune.workers.child import start_cold; start_cold()"


class Cold:
    """Starts each process as an interpreter of its own, on any platform."""

    shares_memory = False

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._is_over = False

    def start(self) -> None:
        """There is nothing to warm up."""

    def child(self) -> Child:
        """Start a process.

        Raises:
            TrialError: when there is to be no further process.
        """
        if self._is_over:
            raise TrialError(OVER)
        here = Surroundings.here()
        ours, theirs = Pipe()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", _START, str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                env=here.environment(),
                **_inheriting(theirs.fileno()),
            )
        return ColdChild(ours, process, pickle.dumps((here, self._payload)))

    def abort(self) -> None:
        """Start no further process; those that were started go on."""
        self._is_over = True

    def close(self) -> None:
        """Start no further process; nothing was warmed up."""
        self.abort()


def _inheriting(handle: int) -> dict[str, Any]:
    """Return the options with which a process inherits a connection."""
    if sys.platform == "win32":
        os.set_handle_inheritable(handle, True)
        return {"startupinfo": subprocess.STARTUPINFO(lpAttributeList={"handle_list": [handle]})}
    return {"pass_fds": [handle]}


class ForkServer:
    """Starts processes by forking a warm server, which is a process of its own.

    The server is forked from this process where that is fit for it, and starts at once; otherwise it is a new
    interpreter, whose imports take seconds.
    """

    shares_memory = True

    def __init__(self, payload: bytes, is_fit_to_fork: Callable[[], bool] = is_fit_to_fork) -> None:
        self._payload = payload
        self._is_fit_to_fork = is_fit_to_fork
        self._lock = threading.Lock()
        """One thread at a time talks to the server."""
        self._change = threading.RLock()
        """Guards what follows, never for long; a signal may come in between, and want it too."""
        self._is_over = False
        self._number: int | None = None
        self._control: socket.socket | None = None
        self._watch = threading.Thread()
        self._ready: Future[bool] = Future()
        """Whether the server could load the payload, and was not killed meanwhile."""
        _settle(self._ready, False)
        self._folders: list[Path] = []
        """What servers make, and cannot remove when they are killed."""

    def start(self) -> None:
        """Start the server; what it has to load, it loads while the host goes on."""
        here = Surroundings.here()
        with self._change:
            if self._is_over:
                raise TrialError(OVER)
            if self._is_fit_to_fork():
                begin = functools.partial(fork_server, kept=get_thread_locals())
            else:
                begin = functools.partial(start_interpreter, here=here)
            self._ready = Future()
            try:
                self._begin(begin, here)
            except BaseException:
                _settle(self._ready, False)  # whoever asks for a process next starts the server again
                self._kill()
                self._end()
                raise

    def _begin(self, begin: Callable[[socket.socket, socket.socket], ServerProcess], here: Surroundings) -> None:
        self._control, theirs = socket.socketpair()
        begun: Future[ServerProcess] = Future()
        ended: Future[int] = Future()
        with theirs:
            accompany = functools.partial(_accompany, begin, self._control, theirs, begun, ended)
            watch = threading.Thread(target=contextvars.copy_context().run, args=[accompany], daemon=True)
            watch.start()
            self._watch = watch
            self._number = begun.result().number
        connection = Connection(os.dup(self._control.fileno()))
        told = (here, self._payload)
        arguments = (connection, told, ended, self._ready, self._folders)
        threading.Thread(target=_shake_hands, args=arguments, daemon=True).start()

    def child(self) -> Child:
        """Fork a process; a server that was killed is started again.

        Raises:
            ConfigurationError: when the server could not load the payload.
            TrialError: when there is to be no further process.
            OSError: when the server could not fork.
        """
        with self._lock:
            for killed in range(_STARTS):
                if killed:
                    self._end()
                    self.start()
                child = self._fork_child()
                if child is not None:
                    return child
        raise TrialError(f"The process that trials are forked from was killed {_STARTS} times in a row.")

    def abort(self) -> None:
        """Start no further process, and give up a server that still loads, however long that would take.

        Threads that wait in `child` leave it with an error; processes that were started go on.
        """
        with self._change:
            self._is_over = True
            if not self._ready.done() and self._number is not None:
                self._kill()
                _fail(self._ready, TrialError(OVER))

    def close(self) -> None:
        """End the server, and with it every process that it has forked."""
        self.abort()
        self._end()

    def _end(self) -> None:
        control, self._control = self._control, None
        if control is None:
            return
        with control, contextlib.suppress(OSError):  # the server may have been killed
            control.shutdown(socket.SHUT_RDWR)
        if self._watch.ident is not None:  # the system has not refused its thread
            self._watch.join(_GRACE)
            self._kill()
            self._watch.join()
        while self._folders:
            shutil.rmtree(self._folders.pop(), ignore_errors=True)

    def _kill(self) -> None:
        """Kill the server, and what the user's code has started in it, unless it has ended."""
        if self._watch.is_alive() and self._number is not None:
            kill_group(self._number)

    def _fork_child(self) -> Child | None:
        """Fork a process; return None when there is no server any more."""
        is_loaded = self._ready.result()
        if self._is_over:
            raise TrialError(OVER)
        if not is_loaded or self._control is None:
            return None
        with contextlib.ExitStack() as undo:
            ours, theirs = Pipe()
            undo.enter_context(ours)
            status, told = os.pipe()
            undo.callback(os.close, status)
            with theirs:
                try:
                    socket.send_fds(self._control, [FORK], [theirs.fileno(), told])
                    is_answered = wait([self._control], _ANSWER)
                    answer = self._control.recv(NUMBER.size) if is_answered else b""
                except OSError:
                    answer = b""
                finally:
                    os.close(told)
            if not answer:
                return None
            number = NUMBER.unpack(answer)[0]
            if number < 0:
                raise OSError(-number, f"The trial's process could not be forked: {os.strerror(-number)}")
            undo.pop_all()
        return ForkedChild(ours, number, status)


def _accompany(
    begin: Callable[[socket.socket, socket.socket], ServerProcess],
    control: socket.socket,
    theirs: socket.socket,
    begun: Future[ServerProcess],
    ended: Future[int],
) -> None:
    """Start the server, wait for its end, and see to it that nobody waits for its answers: others may have its socket.

    This runs in a fresh thread for two reasons. PR_SET_PDEATHSIG kills the server when the thread that forked it ends,
    so that thread must wait for it. And OpenMP keeps a pool for each thread: in a fork of a thread that has computed,
    torch would wait for the threads of that pool, which a fork does not copy; a fresh thread has no pool yet.
    """
    try:
        process = begin(control, theirs)
    except BaseException as error:
        begun.set_exception(error)
        return
    begun.set_result(process)
    ended.set_result(process.wait())
    kill_group(process.number)  # what the user's code has started in it goes with it
    with contextlib.suppress(OSError):
        control.shutdown(socket.SHUT_RDWR)


def _shake_hands(
    connection: Connection,
    told: tuple[Surroundings, bytes],
    ended: Future[int],
    ready: Future[bool],
    folders: list[Path],
) -> None:
    """Send the payload, which waits for the server's imports, and hear whether it could be loaded.

    The server says what went wrong, or which folder it has made, if it has.
    """
    kills = count_memory_kills()
    try:
        with connection:
            connection.send(told)
            said: str | Path | None = connection.recv()
    except (EOFError, OSError):
        code = ended.result()
        if code == -KILL and count_memory_kills() == kills:  # from outside, it seems
            _settle(ready, False)
            return
        said = _NO_SERVER.format(code)
    if isinstance(said, str):
        _fail(ready, ConfigurationError(said))
        return
    if said is not None:
        folders.append(said)
    _settle(ready, True)


def _settle(ready: Future[bool], is_loaded: bool) -> None:
    with contextlib.suppress(InvalidStateError):  # it was given up
        ready.set_result(is_loaded)


def _fail(ready: Future[bool], error: Exception) -> None:
    with contextlib.suppress(InvalidStateError):  # what came first counts
        ready.set_exception(error)


_STARTS = 3
"""How often in a row a server is started that was killed."""
_ANSWER = 60.0
"""Seconds that the server has to fork; one that does not answer is killed, and started again."""
_GRACE = 10.0
"""Seconds that the server has to end by itself."""
_NO_SERVER = (
    "The process that trials are forked from ended with exit code {} while it loaded the classes of the study, and the "
    "data that share_data shares. What it printed says why."
)
