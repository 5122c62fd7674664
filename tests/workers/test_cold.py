"""A cold process is seen to its end, however it comes."""

import os
import pickle
import signal
import sys
from multiprocessing.connection import wait
from pathlib import Path

import pytest
from nets import Sees, payload

from lightningtune import ConfigurationError, TrialError
from lightningtune.workers.child import Job
from lightningtune.workers.devices import Slot
from lightningtune.workers.starters import KILL, Cold

pytestmark = pytest.mark.slow  # each starts processes that import torch

SECONDS = 60


def leaves_something(blueprint, connection):
    import atexit
    import subprocess

    atexit.register(print, "the interpreter has ended slowly")
    connection.send((os.environ.get("PYTHONPATH"), subprocess.Popen(["sleep", "1000"]).pid))
    return connection.recv()


def job(output):
    return pickle.dumps(Job(Slot(), {}, 1, output, pickle.dumps(leaves_something)))


def end_of(child):
    assert wait([child.waitables[-1]], SECONDS)
    return child.exit_code()


def test_a_cold_process_that_dies_at_its_start_is_seen(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(7)")
    monkeypatch.syspath_prepend(tmp_path)
    child = Cold(b"x" * 10_000_000).child()
    assert end_of(child) == 7
    child.signal(KILL)
    child.close()


def test_a_cold_process_that_hangs_at_its_start_can_be_ended(tmp_path, monkeypatch):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "sitecustomize.py").write_text(
        f"import pathlib, signal; pathlib.Path({str(fifo)!r}).write_text('hangs'); signal.pause()"
    )
    monkeypatch.syspath_prepend(tmp_path)
    child = Cold(b"x" * 10_000_000).child()
    assert fifo.read_text() == "hangs"
    assert child.exit_code() is None
    child.signal(KILL)
    assert end_of(child) == -signal.SIGKILL
    child.close()


def test_what_a_cold_process_could_not_load_is_said(tmp_path):
    child = Cold(payload(Sees("print('prints'); raise ImportError('no such thing')"))).child()
    child.connection.send_bytes(job(tmp_path / "output.log"))
    assert child.connection.poll(SECONDS)
    error = child.connection.recv().error
    assert isinstance(error, ConfigurationError)
    assert "The classes of the study could not be loaded" in str(error)
    assert "ImportError: no such thing" in str(error)
    assert (tmp_path / "output.log").read_text() == "prints\n"
    assert end_of(child) == 0
    child.close()


def test_no_cold_process_is_started_after_the_end():
    cold = Cold(payload())
    cold.abort()
    with pytest.raises(TrialError, match="The study has ended"):
        cold.child()


@pytest.mark.skipif(sys.platform != "linux", reason="needs pidfd_open")
def test_a_cold_process_is_heard_and_leaves_at_once_with_all_it_has_started(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    child = Cold(payload()).child()
    child.connection.send_bytes(job(tmp_path / "output.log"))
    assert wait(child.waitables, SECONDS) == [child.connection], "what has sent something has not ended"
    assert child.exit_code() is None
    python_path, another = child.connection.recv()
    assert python_path is None
    with os.fdopen(os.pidfd_open(another)) as process:
        child.connection.send(True)
        assert child.connection.recv() is True
        assert end_of(child) == 0
        assert wait([process], SECONDS)
    assert Path(tmp_path / "output.log").read_text() == ""
    child.close()
