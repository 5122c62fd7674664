"""A server outlives whatever becomes of the trials that it forks, and of the host's interest in them."""

import multiprocessing
import operator
import os
import pickle
import resource
import signal
import subprocess
import sys
from multiprocessing.connection import wait
from pathlib import Path

import pytest
import torch
from nets import Points, payload

from lightningtune.contract import StopReason
from lightningtune.workers.child import Job
from lightningtune.workers.devices import Slot
from lightningtune.workers.starters import KILL, ForkServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="trials are forked on Linux only")
SECONDS = 60


class Helped(Points):
    """Has a process of its own, which ``setup`` starts and leaves running."""

    def __init__(self, folder: str = ""):
        super().__init__()
        self.folder = folder

    def setup(self, stage):
        helper = multiprocessing.get_context("fork").Process(target=signal.pause, daemon=True)
        helper.start()
        (Path(self.folder) / "helper").write_text(str(helper.pid))


class Humble(Points):
    """Has the server be nobody, whom limits bind."""

    def setup(self, stage):
        if os.getuid() == 0:
            os.setuid(65534)


def started(data, config, is_fit_to_fork=lambda: True):
    server = ForkServer(payload(data=data, config=config, share_data=True), is_fit_to_fork)
    server.start()
    return server


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(
    scope="module",
    params=[lambda: True, pytest.param(lambda: False, marks=pytest.mark.slow)],
    ids=["forked from here", "new interpreter"],
)
def server(request, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", "/the/users/own")
        server = started(Helped, {"data": {"folder": str(folder)}}, request.param)
        server.child().close()  # it is ready
    yield server
    server.close()


@pytest.fixture
def begin(server, tmp_path):
    children = []

    def begin(task, **options):
        child = server.child()
        children.append(child)
        give(child, task, **{"output": tmp_path / "output.log", **options})
        return child

    yield begin
    for child in children:
        child.signal(KILL)
        child.close()


def give(child, task, output, **slot):
    child.connection.send_bytes(pickle.dumps(Job(Slot(**slot), {}, 1, output, pickle.dumps(task))))


def heard(child):
    assert child.connection.poll(SECONDS)
    return child.connection.recv()


def end_of(child):
    """Wait until a process has ended, and return its exit code."""
    assert wait([child.waitables[-1]], SECONDS)
    return child.exit_code()


def parent_of(number):
    return int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])


def await_end(descriptor):
    with os.fdopen(descriptor) as process:
        assert wait([process], SECONDS)


def tell_parent(blueprint, connection):
    connection.send(os.getppid())
    return True


def wait_for_word(blueprint, connection):
    connection.send("waits")
    return connection.recv()


def tell_surroundings(blueprint, connection):
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE)
    expected = (signal.default_int_handler, signal.SIG_DFL, signal.SIG_DFL, signal.SIG_IGN)
    connection.send((tuple(map(signal.getsignal, signals)) == expected, os.environ.get("PYTHONPATH")))
    return True


def tell_placement(blueprint, connection):
    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
    connection.send((*map(os.environ.get, names), torch.get_num_threads(), os.sched_getaffinity(0)))
    return True


def start_another(blueprint, connection):
    connection.send(subprocess.Popen(["sleep", "1000"]).pid)
    return connection.recv()


def run_out_of_memory(blueprint, connection):
    raise MemoryError


def spoil_stdout(blueprint, connection):
    sys.stdout.close()
    return True


def number_of(begin):
    child = begin(tell_parent)
    number = heard(child)
    assert heard(child) is True
    assert end_of(child) == 0
    return number


def test_processes_of_the_users_are_left_alone_and_their_end_ends_nothing(begin, folder):
    number = number_of(begin)
    helper = int((folder / "helper").read_text())
    assert parent_of(helper) == number
    waits = begin(wait_for_word)
    assert heard(waits) == "waits"
    process = os.pidfd_open(helper)
    os.kill(helper, signal.SIGKILL)
    await_end(process)
    assert number_of(begin) == number
    waits.connection.send(True)
    assert heard(waits) is True
    assert end_of(waits) == 0


def test_a_host_that_does_not_ask_how_a_process_ends_ends_nothing(server, begin):
    number = number_of(begin)
    for _ in range(3):
        server.child().close()
    assert number_of(begin) == number


def test_a_signal_to_the_whole_job_leaves_the_server(begin):
    number = number_of(begin)
    waits = begin(wait_for_word)
    assert heard(waits) == "waits"
    for signalled in (signal.SIGTERM, signal.SIGINT):
        os.kill(number, signalled)
    child = begin(tell_surroundings)
    assert heard(child) == (True, "/the/users/own"), "a trial has the signals' defaults, and the user's variable"
    assert number_of(begin) == number
    waits.signal(signal.SIGTERM)
    assert end_of(waits) == -signal.SIGTERM


def test_a_process_has_what_its_slot_has(begin):
    core = max(os.sched_getaffinity(0))
    child = begin(tell_placement, devices=("5", "GPU-3"), cores=(core,), threads=3)
    assert heard(child) == ("5,GPU-3", "3", 1, {core})
    assert heard(begin(tell_placement))[0] == os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(
    ("options", "detail"),
    [({"output": Path("/proc/none/output.log")}, "FileNotFoundError: "), ({"cores": (10_000,)}, "OSError: ")],
)
def test_what_goes_wrong_before_the_training_is_said(begin, options, detail):
    child = begin(tell_parent, **options)
    outcome = heard(child)
    assert outcome.reason is StopReason.FAILED
    assert outcome.detail.startswith(detail)
    assert "in _settle" in outcome.traceback
    assert end_of(child) == 0


def test_out_of_memory_is_told_from_other_errors(begin):
    assert heard(begin(run_out_of_memory)).reason is StopReason.OUT_OF_MEMORY


def test_what_goes_wrong_after_the_training_is_printed(begin, tmp_path):
    child = begin(spoil_stdout)
    assert heard(child) is True
    assert end_of(child) == 1
    assert "I/O operation on closed file" in (tmp_path / "output.log").read_text()


def limit_server(blueprint, connection):
    """Set limits of the server's, as the host may not do with another user's process."""
    while (given := connection.recv()) is not None:
        limit, value = given
        soft, hard = resource.prlimit(os.getppid(), limit)
        resource.prlimit(os.getppid(), limit, (hard if value is None else value, hard))
        connection.send(soft)
    return True


def test_a_process_that_cannot_be_forked_is_one_trials_failure():
    server = started(Humble, {})
    try:
        limiter = server.child()
        give(limiter, limit_server, Path(os.devnull))
        for limit, value in ((resource.RLIMIT_NPROC, 0), (resource.RLIMIT_NOFILE, 3)):
            limiter.connection.send((limit, value))
            assert heard(limiter) != value
            with pytest.raises(OSError, match="The trial's process could not be forked: "):
                server.child()
            limiter.connection.send((limit, None))
            assert heard(limiter) == value
            child = server.child()
            give(child, operator.is_not, Path(os.devnull))
            assert heard(child) is True
            assert end_of(child) == 0
            child.close()
        limiter.connection.send(None)
        assert heard(limiter) is True, "it is the same server, which would have taken it along"
        limiter.close()
    finally:
        server.close()


def test_when_the_server_is_killed_so_is_all_that_its_trials_have_started(folder):
    server = started(Helped, {"data": {"folder": str(folder)}})
    try:
        child = server.child()
        give(child, start_another, Path(os.devnull))
        another = os.pidfd_open(heard(child))
        os.kill(parent_of(child.number), signal.SIGKILL)
        assert end_of(child) == -signal.SIGKILL
        await_end(another)
        child.close()
        following = server.child()
        give(following, operator.is_not, Path(os.devnull))
        assert heard(following) is True
        following.close()
        helper = os.pidfd_open(int((folder / "helper").read_text()))
    finally:
        server.close()
    await_end(helper)
