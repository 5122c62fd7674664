"""A server never keeps the host waiting for a process that will not come, however it was started."""

import contextlib
import functools
import os
import resource
import signal
import sys
import threading

import pytest
from family import children_of, have_ended
from nets import Points, Sees, payload

from lightningtune import ConfigurationError, TrialError
from lightningtune.workers.starters import ForkServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="trials are forked on Linux only")
SECONDS = 60
Forked = functools.partial(ForkServer, is_fit_to_fork=lambda: True)
Interpreter = functools.partial(ForkServer, is_fit_to_fork=lambda: False)
both = pytest.mark.parametrize(
    "server_of",
    [Forked, pytest.param(Interpreter, marks=pytest.mark.slow)],
    ids=["forked from here", "new interpreter"],
)


class Missing(Points):
    def setup(self, stage):
        raise FileNotFoundError("no digits there")


class KillsOnce:
    """Kills the process in which it is unpickled, the first time, and is a model's class from then on."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        is_first = f"not (mark := __import__('pathlib').Path({str(self.mark)!r})).exists()"
        kill = f"{is_first} and (mark.touch(), (os := __import__('os')).kill(os.getpid(), 9))"
        return eval, (f"({kill}, __import__('nets').Line)[1]",)


DIES = {"model": Sees("import os; os._exit(5)")}


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


@both
def test_a_server_that_still_loads_is_given_up(tmp_path, capfd, server_of):
    before = children_of(os.getpid())
    server = server_of(hangs(tmp_path / "fifo"))
    server.start()
    thread, errors = refused(server)
    assert (tmp_path / "fifo").read_text() == "loads"
    server.abort()
    thread.join(SECONDS)
    assert isinstance(errors[0], TrialError)
    assert str(errors[0]) == "The study has ended: no further trial is started."
    server.close()
    assert children_of(os.getpid()) <= before
    assert capfd.readouterr().err == ""


@both
def test_a_server_that_has_just_begun_is_given_up_without_a_word(capfd, server_of):
    before = children_of(os.getpid())
    server = server_of(payload())
    server.start()
    server.close()
    assert children_of(os.getpid()) <= before
    assert capfd.readouterr().err == ""
    with pytest.raises(TrialError, match="The study has ended"):
        server.child()
    server_of(payload()).close()


@pytest.mark.parametrize(
    ("given", "text", "server_of"),
    [
        (
            {"data": Missing, "share_data": True},
            r"^The data that share_data shares could not be loaded: FileNotFound",
            Forked,
        ),
        ({"data": None, "share_data": True}, r"^share_data takes a LightningDataModule", Forked),
        ({"model": Sees("raise SystemExit(3)")}, r"^The classes of the study could not be .*: SystemExit: 3", Forked),
        (DIES, r"ended with exit code 5 while it loaded the classes", Forked),
        pytest.param(DIES, r"ended with exit code 5 while", Interpreter, marks=pytest.mark.slow),
    ],
    ids=["data", "no datamodule", "classes", "death", "death of a new interpreter"],
)
def test_what_could_not_be_loaded_is_said(given, text, capfd, server_of):
    server = server_of(payload(**given))
    server.start()
    with pytest.raises(ConfigurationError, match=text):
        server.child()
    server.close()
    assert capfd.readouterr().err == ""


def test_a_server_that_was_killed_while_it_loaded_is_started_again(tmp_path):
    server = Forked(payload(KillsOnce(tmp_path / "mark")))
    server.start()
    with contextlib.closing(server):
        child = server.child()
        child.close()


def test_a_server_is_started_three_times_in_all():
    """The trial has failed then, and may be tried again: whoever kills servers may have ended by then."""
    server = Forked(payload(Sees("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")))
    server.start()
    with contextlib.closing(server), pytest.raises(TrialError, match="was killed 3 times in a row"):
        server.child()


@both
def test_a_server_that_loads_goes_with_its_host(tmp_path, server_of):
    """Even where that is killed, and its share of the work would take for ever."""
    fifo = tmp_path / "fifo"
    told = hangs(fifo)
    host = os.fork()
    if host == 0:
        server_of(told).start()
        signal.pause()
    assert fifo.read_text() == "loads"
    family = {host, *children_of(host)}
    assert len(family) == 2
    os.kill(host, signal.SIGKILL)
    os.waitpid(host, 0)
    assert have_ended(family)


def test_a_server_that_could_not_be_started_is_started_when_a_process_is_asked_for():
    server = Forked(payload())
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            server.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    child = server.child()
    child.signal(signal.SIGKILL)
    child.close()
    server.close()
