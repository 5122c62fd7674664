"""A process is forked into the server only where that is safe; what its main thread holds is left alone there."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from lightningtune.workers.starters import get_thread_locals

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="trials are forked on Linux only")
_PR_SET_NAME = 15


@pytest.mark.parametrize(
    ("before", "is_safe"),
    [
        ("torch.ones(999, 999, requires_grad=True).matmul(torch.ones(999, 999)).sum().backward()", True),
        ("threading.Thread(target=end.wait, daemon=True).start()", False),
        ("multiprocessing.set_start_method('spawn')", False),
        ("_thread.start_new_thread(work, (b'polars-0',)); at_work.wait()", False),
        ("_thread.start_new_thread(work, (b'jemalloc_bg_thd',)); at_work.wait()", True),
    ],
    ids=["computed", "a thread", "asked for another way", "another library's thread", "a harmless one"],
)
@pytest.mark.slow
def test_what_has_been_done_decides_whether_a_process_is_fit_to_fork(before, is_safe):
    script = f"""
import _thread, ctypes, multiprocessing, threading, torch
from lightningtune.workers.starters import is_fit_to_fork

at_work, end = threading.Event(), threading.Event()

def work(name):
    ctypes.CDLL(None).prctl({_PR_SET_NAME}, name)
    at_work.set()
    end.wait()

{before}
print(is_fit_to_fork())
"""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script]
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert said.stdout == f"{is_safe}\n"


class Session:
    """Tells when it is given up in another process than its own."""

    def __init__(self, told):
        self.told, self.owner = told, os.getpid()

    def __del__(self):
        if os.getpid() != self.owner:
            os.write(self.told, b"given up")


@pytest.mark.parametrize(("keep", "told"), [(list, b"given up"), (get_thread_locals, b"")], ids=["left", "kept"])
def test_what_the_main_thread_holds_is_not_given_up_in_the_server(keep, told):
    read, write = os.pipe()
    held = threading.local()
    held.session = Session(write)

    def fork(kept):
        number = os.fork()
        if number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(number, 0)

    thread = threading.Thread(target=fork, args=[keep()])
    thread.start()
    thread.join()
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        assert answer.read() == told
