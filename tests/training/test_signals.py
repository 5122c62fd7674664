"""SIGTERM where Lightning does not listen: it raises while a fit begins or ends, and is given back afterwards."""

import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import lightning as L
import pytest
from fits import Scripted, data, trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightningtune.training.signals import SigtermGuard, get_late_sigterm


@pytest.fixture(autouse=True)
def _default():
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


class Follow(L.Callback):
    """Has the guard follow its fit, and does something in a hook."""

    def __init__(self, guard, hook, do):
        self.guard = guard
        setattr(self, hook, lambda *_, **__: do())

    def setup(self, trainer, pl_module, stage):
        self.guard.follow(trainer)


def test_it_raises_with_the_code_of_a_process_that_sigterm_ended():
    guard = SigtermGuard()
    for _ in range(2):  # as often as it comes, where nothing ends of it
        with pytest.raises(SIGTERMException) as caught:
            terminate()
        assert caught.value.code == 143
    guard.release()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None])
def test_a_handler_of_the_users_stays(handler):
    signal.signal(signal.SIGTERM, handler)
    guard = SigtermGuard()
    assert signal.getsignal(signal.SIGTERM) is handler
    guard.release()
    assert signal.getsignal(signal.SIGTERM) is handler


def test_the_latest_listens_and_an_earlier_one_gives_back_nothing():
    first, second = SigtermGuard(), SigtermGuard()
    first.release()
    with pytest.raises(SIGTERMException):
        terminate()
    second.release()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_another_thread_listens_to_nothing():
    thread = threading.Thread(target=lambda: SigtermGuard().release())
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_running_fit_is_not_left_alone():
    guard = SigtermGuard()
    with pytest.raises(SIGTERMException):
        trainer(Follow(guard, "on_fit_start", lambda: (guard.release(), terminate()))).fit(Scripted(), data(), data())
    guard.release()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_it_is_not_raised_twice_while_the_fit_ends_of_it():
    """A supervisor may send it several times; what is told of the trial is not to be cut short."""
    guard = SigtermGuard()
    follow = Follow(guard, "on_fit_start", terminate)
    follow.on_exception = lambda *_: terminate()
    with pytest.raises(SIGTERMException):
        trainer(follow).fit(Scripted(), data(), data())


def test_while_lightning_listens_it_is_lightnings():
    guard, seen = SigtermGuard(), []

    def twice():
        terminate()
        seen.append("went on")

    run = trainer(Follow(guard, "on_train_batch_start", twice))
    with pytest.raises(SIGTERMException):
        run.fit(Scripted(), data(), data())
    assert seen == ["went on"]


@pytest.mark.parametrize(("do", "code"), [(terminate, 143), (bool, None)])
def test_what_came_after_the_last_batch_is_seen_at_the_end_of_the_fit(do, code):
    class See(L.Callback):
        def on_train_end(self, trainer, pl_module):
            do()

        def on_fit_end(self, trainer, pl_module):
            found.append(get_late_sigterm(trainer))

    found = []
    trainer(See(), max_epochs=1).fit(Scripted(), data(), data())
    assert [getattr(error, "code", None) for error in found] == [code]


def test_it_travels_to_a_process_of_a_distributed_strategy():
    guard = SigtermGuard()
    pickle.loads(pickle.dumps(guard)).release()
    guard.release()


SCRIPT = """
import multiprocessing, os, signal, sys
from fits import Scripted, data, trainer
from lightningtune.training.signals import SigtermGuard

guard = SigtermGuard()

def terminate():
    os.kill(os.getpid(), signal.SIGTERM)

child = multiprocessing.get_context("fork").Process(target=terminate)
child.start()
child.join()
print(child.exitcode)
run = trainer(max_epochs=1)
if sys.argv[1] == "ended":
    guard.follow(run)
    run.fit(Scripted(), data(), data())
else:
    class Broken(Scripted):
        def training_step(self, *_):
            guard.follow(run)
            raise ValueError
    try:
        run.fit(Broken(), data(), data())
    except ValueError:
        guard.release()
terminate()
"""


@pytest.mark.slow
@pytest.mark.parametrize("case", ["ended", "failed"])
def test_who_is_not_in_a_fit_ends_at_once(case):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", SCRIPT, case], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-15, "-15\n"), done.stderr
