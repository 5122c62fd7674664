"""How the host starts trial processes, forked from a warm server or as new interpreters, and its handles of them."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import gc
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeAlias

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


class Child:
    """A trial's process, seen from the host; any thread, and a signal handler, may send it a signal.

    Attributes:
        connection: a job goes in; values come out, then an outcome.
        number: its process number.
    """

    def __init__(self, connection: Connection, number: int, status: Connection) -> None:
        self.connection = connection
        self.number = number
        self._status = status
        """Whoever waits for the process sends its exit code here."""
        self._code: int | None = None
        self._lock = threading.RLock()

    @property
    def waitables(self) -> list[Any]:
        """What ``multiprocessing.connection.wait`` waits for: something was sent, or the process has ended."""
        return [self.connection, self._status]

    def exit_code(self) -> int | None:
        """Return its exit code, negative where a signal has ended it; None while it runs."""
        with self._lock:
            if self._code is None and self._status.poll():
                try:
                    self._code = NUMBER.unpack(self._status.recv_bytes())[0]
                except EOFError:  # the server was killed, and the process with it, but not what that has started
                    kill_group(self.number)
                    self._code = -KILL
            return self._code

    def signal(self, number: int) -> None:
        """Send a signal: `KILL` to all it has started, any other to itself, for it to end softly."""
        with self._lock:
            if self._status.closed or self.exit_code() is not None:
                return
            if number == KILL and hasattr(os, "killpg"):
                kill_group(self.number)
            else:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(self.number, number)

    def close(self) -> None:
        """Give back what the host holds of it."""
        with self._lock:
            self.connection.close()
            self._status.close()


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


_Wait: TypeAlias = Callable[[], int]
"""Waits for the end of a server, and returns its exit code."""
_Begin: TypeAlias = Callable[[socket.socket, socket.socket], tuple[int, _Wait]]
"""Starts a server, and returns its process number; the server has the second of two connected sockets."""


def fork_server(control: socket.socket, theirs: socket.socket, kept: object) -> tuple[int, _Wait]:
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
    return number, lambda: _wait_for_exit_code(number)


def start_interpreter(control: socket.socket, theirs: socket.socket, here: Surroundings) -> tuple[int, _Wait]:
    """Start an interpreter that serves."""
    process = _run_python(_SERVE, here, theirs.fileno(), os.getpid(), stdin=subprocess.DEVNULL)
    return process.pid, process.wait


def _run_python(code: str, here: Surroundings, handle: int, *arguments: int, stdin: int) -> subprocess.Popen[bytes]:
    """Run code in a new interpreter, which inherits the connection that its first argument names."""
    options: dict[str, Any] = {"pass_fds": [handle]}
    if sys.platform == "win32":
        os.set_handle_inheritable(handle, True)
        options = {"startupinfo": subprocess.STARTUPINFO(lpAttributeList={"handle_list": [handle]})}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(handle), *map(str, arguments)],
        stdin=stdin,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in a terminal is the host's to handle
        env=here.environment(),
        **options,
    )


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
_START = "from lightningtune.workers.child import run_and_leave, work_cold; run_and_leave(work_cold)"


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
        status, end = Pipe(duplex=False)
        with theirs:
            process = _run_python(_START, here, theirs.fileno(), stdin=subprocess.PIPE)
        message = pickle.dumps((here, self._payload))
        threading.Thread(target=_tell_and_wait, args=[process, message, end], daemon=True).start()
        return Child(ours, process.pid, status)

    def abort(self) -> None:
        """Start no further process; those that were started go on."""
        self._is_over = True

    def close(self) -> None:
        """Start no further process; nothing was warmed up."""
        self.abort()


def _tell_and_wait(process: subprocess.Popen[bytes], message: bytes, end: Connection) -> None:
    """Tell a process what it needs to know, and wait for its end: in a thread, since it may never read, nor end."""
    with end:
        assert process.stdin is not None
        with contextlib.suppress(OSError), process.stdin:  # it has ended
            process.stdin.write(message)
        code = process.wait()
        if hasattr(os, "killpg"):
            kill_group(process.pid)  # what it has started goes with it
        with contextlib.suppress(OSError):  # the host does not want to know
            end.send_bytes(NUMBER.pack(code))


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
        """One thread at a time asks for a process."""
        self._server: ServerProcess | None = None
        self._is_over = False

    def start(self) -> ServerProcess:
        """Start the server; what it has to load, it loads while the host goes on."""
        self._refuse_after_end()
        here = Surroundings.here()
        if self._is_fit_to_fork():
            begin: _Begin = functools.partial(fork_server, kept=get_thread_locals())
        else:
            begin = functools.partial(start_interpreter, here=here)
        server = self._server = ServerProcess(begin, (here, self._payload))
        if self._is_over:  # a signal handler has said so meanwhile
            server.give_up()
        return server

    def child(self) -> Child:
        """Fork a process; a server that was killed is started again.

        Raises:
            ConfigurationError: when the server could not load the payload.
            TrialError: when there is to be no further process.
            OSError: when the server could not fork.
        """
        with self._lock:
            for _ in range(_STARTS):
                server = self._server or self.start()
                is_loaded = server.is_loaded()
                self._refuse_after_end()
                if is_loaded and (child := server.fork()) is not None:
                    return child
                self._end()
        raise TrialError(f"The process that trials are forked from was killed {_STARTS} times in a row.")

    def _refuse_after_end(self) -> None:
        if self._is_over:
            raise TrialError(OVER)

    def abort(self) -> None:
        """Start no further process, and give up a server that still loads, however long that would take.

        Threads that wait in `child` leave it with an error; processes that were started go on.
        """
        self._is_over = True
        server = self._server
        if server is not None:
            server.give_up()

    def close(self) -> None:
        """End the server, and with it every process that it has forked."""
        self.abort()
        self._end()

    def _end(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.end()


class ServerProcess:
    """One fork server, from its start to its end.

    Args:
        begin: starts its process.
        message: what it has to load, and where it finds that.
    """

    def __init__(self, begin: _Begin, message: tuple[Surroundings, bytes]) -> None:
        self._control, theirs = socket.socketpair()
        self._ready: Future[bool] = Future()
        """Whether the server could load the message, and was not killed meanwhile."""
        self._ended: Future[int] = Future()
        begun: Future[int] = Future()
        with contextlib.ExitStack() as undo:
            undo.enter_context(self._control)
            with theirs:
                accompany = functools.partial(self._accompany, begin, theirs, begun)
                self._watch = threading.Thread(target=contextvars.copy_context().run, args=[accompany], daemon=True)
                self._watch.start()
                self._number = begun.result()
            undo.callback(self.end)
            threading.Thread(target=self._shake_hands, args=[message], daemon=True).start()
            undo.pop_all()

    def is_loaded(self) -> bool:
        """Wait until the server has loaded everything; return False when it was killed or given up.

        Raises:
            ConfigurationError: when it could not load that.
        """
        try:
            return self._ready.result()
        except CancelledError:
            return False

    def give_up(self) -> None:
        """Kill a server that still loads; one that has loaded everything is left alone."""
        if self._ready.cancel():
            self._kill()

    def end(self) -> None:
        """End the server, and with it every process that it has forked."""
        with self._control, contextlib.suppress(OSError):  # the server may have been killed
            self._control.shutdown(socket.SHUT_RDWR)
        self._watch.join(_GRACE)
        self._kill()
        self._watch.join()

    def _kill(self) -> None:
        """Kill the server, and what the user's code has started in it, unless it has ended."""
        if self._watch.is_alive():
            kill_group(self._number)

    def fork(self) -> Child | None:
        """Fork a process; return None when the server has been killed.

        Raises:
            OSError: when the server could not fork.
        """
        with contextlib.ExitStack() as undo:
            ours, theirs = Pipe()
            undo.enter_context(ours)
            status, told = Pipe(duplex=False)
            undo.enter_context(status)
            with theirs, told:
                try:
                    socket.send_fds(self._control, [FORK], [theirs.fileno(), told.fileno()])
                    is_answered = wait([self._control], _ANSWER)
                    answer = self._control.recv(NUMBER.size) if is_answered else b""
                except OSError:
                    answer = b""
            if not answer:
                return None
            number = NUMBER.unpack(answer)[0]
            if number < 0:
                raise OSError(-number, f"The trial's process could not be forked: {os.strerror(-number)}")
            undo.pop_all()
        return Child(ours, number, status)

    def _accompany(self, begin: _Begin, theirs: socket.socket, begun: Future[int]) -> None:
        """Start the server, wait for its end, and shut its socket, which what it has started may hold open.

        This runs in a fresh thread for two reasons. PR_SET_PDEATHSIG kills the server when the thread that forked it
        ends, so that thread must wait for it. And OpenMP keeps a pool for each thread: in a fork of a thread that has
        computed, torch would wait for the threads of that pool, which a fork does not copy; a fresh thread has none.
        """
        try:
            number, wait_for_end = begin(self._control, theirs)
        except BaseException as error:
            begun.set_exception(error)
            return
        begun.set_result(number)
        self._ended.set_result(wait_for_end())
        kill_group(number)  # what the user's code has started in it goes with it
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)

    def _shake_hands(self, message: tuple[Surroundings, bytes]) -> None:
        """Send the message, which waits for the server's imports, and hear whether it could be loaded."""
        kills = count_memory_kills()
        failure: str | None = None
        is_killed = False
        try:
            with Connection(os.dup(self._control.fileno())) as connection:
                connection.send(message)
                failure = connection.recv()
        except (EOFError, OSError):
            code = self._ended.result()
            is_killed = code == -KILL and count_memory_kills() == kills  # from outside, it seems
            failure = None if is_killed else _NO_SERVER.format(code)
        with contextlib.suppress(InvalidStateError):  # it was given up
            if failure is None:
                self._ready.set_result(not is_killed)
            else:
                self._ready.set_exception(ConfigurationError(failure))


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
