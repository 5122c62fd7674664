"""A starter never keeps the host waiting for a process that will not come."""

import os
import pickle
import signal
import sys
import threading
from multiprocessing.connection import wait
from pathlib import Path

import lightning as L
import pytest
from family import children_of
from nets import Line, Points

from lightningtune import ConfigurationError, TrialError
from lightningtune.config.overrides import Schema
from lightningtune.workers.child import Job, Payload
from lightningtune.workers.devices import Slot
from lightningtune.workers.starters import KILL, Cold, ForkServer

pytestmark = pytest.mark.slow  # each starts processes that import torch

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="trials are forked on Linux only")
SECONDS = 60


class Sees:
    """Runs code where it is unpickled."""

    def __init__(self, code):
        self.code = code

    def __reduce__(self):
        return exec, (self.code,)


class Missing(Points):
    def setup(self, stage):
        raise FileNotFoundError("no digits there")


def payload(model=Line, data=Points, **options):
    return pickle.dumps(Payload(Schema(model, data, L.Trainer), {}, **options))


def hangs(fifo):
    """Return a payload that tells when it is being loaded, and never ends that."""
    os.mkfifo(fifo)
    return payload(Sees(f"import pathlib, signal; pathlib.Path({str(fifo)!r}).write_text('loads'); signal.pause()"))


def refused(starter):
    """Ask for a process in a thread; return the thread, and what that raises."""
    errors = []

    def ask():
        try:
            starter.child()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, errors


@on_linux
@pytest.mark.parametrize("end", [ForkServer.abort, ForkServer.close])
def test_a_server_that_still_loads_is_given_up(tmp_path, capfd, end):
    before = children_of(os.getpid())
    server = ForkServer(hangs(tmp_path / "fifo"))
    server.start()
    thread, errors = refused(server)
    assert (tmp_path / "fifo").read_text() == "loads"
    end(server)
    thread.join(SECONDS)
    assert isinstance(errors[0], TrialError)
    assert str(errors[0]) == "The study has ended: no further trial is started."
    server.close()
    assert children_of(os.getpid()) == before
    assert capfd.readouterr().err == ""


@on_linux
def test_a_server_that_still_imports_is_given_up_without_a_word(capfd):
    before = children_of(os.getpid())
    server = ForkServer(payload())
    server.start()
    server.close()
    assert children_of(os.getpid()) == before
    assert capfd.readouterr().err == ""
    with pytest.raises(TrialError, match="The study has ended"):
        server.child()
    ForkServer(payload()).close()


@on_linux
@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"data": Missing, "share_data": True}, r"^The data that share_data shares could not be loaded: FileNotFound"),
        ({"data": None, "share_data": True}, r"^share_data takes a LightningDataModule"),
        ({"model": Sees("raise SystemExit(3)")}, r"^The classes of the study could not be loaded .*: SystemExit: 3"),
        ({"model": Sees("import os; os._exit(5)")}, r"ended with exit code 5 while it loaded the classes"),
    ],
    ids=["data", "no datamodule", "classes", "death"],
)
def test_what_could_not_be_loaded_is_said(given, text, capfd):
    server = ForkServer(payload(**given))
    server.start()
    with pytest.raises(ConfigurationError, match=text):
        server.child()
    server.close()
    assert capfd.readouterr().err == ""


def chatter(blueprint, connection):
    connection.send("first")
    return connection.recv()


def job(output, task=chatter):
    return pickle.dumps(Job(Slot(), {}, 1, output, pickle.dumps(task)))


def end_of(child):
    assert wait([child.waitables[-1]], SECONDS)
    return child.exit_code()


def test_a_cold_process_that_has_sent_something_has_not_ended(tmp_path):
    child = Cold(payload()).child()
    child.connection.send_bytes(job(tmp_path / "output.log"))
    assert wait(child.waitables, SECONDS) == [child.connection]
    assert child.exit_code() is None
    child.signal(KILL)
    assert end_of(child) == -signal.SIGKILL
    assert child.connection.recv() == "first"
    child.close()


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


def leaves_something(blueprint, connection):
    import atexit
    import subprocess

    atexit.register(print, "the interpreter has ended slowly")
    connection.send((os.environ.get("PYTHONPATH"), subprocess.Popen(["sleep", "1000"]).pid))
    return connection.recv()


@on_linux
def test_a_cold_process_leaves_at_once_and_takes_all_with_it(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    child = Cold(payload()).child()
    child.connection.send_bytes(job(tmp_path / "output.log", leaves_something))
    python_path, another = child.connection.recv()
    assert python_path is None
    with os.fdopen(os.pidfd_open(another)) as process:
        child.connection.send(True)
        assert child.connection.recv() is True
        assert end_of(child) == 0
        assert wait([process], SECONDS)
    assert Path(tmp_path / "output.log").read_text() == ""
    child.close()
