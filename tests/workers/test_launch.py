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


SCRIPT = f"""
import _thread, ctypes, multiprocessing, os, threading, torch
from lightningtune.workers.starters import is_fit_to_fork

at_work, end = threading.Event(), threading.Event()

def start_thread(name):
    _thread.start_new_thread(work, (name,))
    at_work.wait()

def work(name):
    ctypes.CDLL(None).prctl({_PR_SET_NAME}, name)
    at_work.set()
    end.wait()

def compute():
    torch.ones(999, 999, requires_grad=True).matmul(torch.ones(999, 999)).sum().backward()

def start_python_thread():
    threading.Thread(target=end.wait, daemon=True).start()

def wish_otherwise():
    multiprocessing.set_start_method("spawn")

for before in (
    compute, lambda: start_thread(b"jemalloc_bg_thd"), start_python_thread, wish_otherwise,
    lambda: start_thread(b"polars-0")
):
    if os.fork() == 0:  # nothing has been done there yet
        before()
        print(is_fit_to_fork(), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.slow
def test_what_has_been_done_decides_whether_a_process_is_fit_to_fork():
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT]
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert said.stdout.split() == ["True", "True", "False", "False", "False"]


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
