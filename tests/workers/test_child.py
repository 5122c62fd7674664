"""What a trial's process says to the host."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from lightningtune import ConfigurationError, TrialError
from lightningtune.contract import StopReason, TrialOutcome
from lightningtune.workers.child import Surroundings, pickle_result

pytestmark = pytest.mark.slow  # each starts processes that import torch

SCRIPT = """
import pickle, sys
import cloudpickle, lightning as L
from nets import Line, Points
from lightningtune.config.overrides import Schema
from lightningtune.workers.child import Job, Payload
from lightningtune.workers.devices import Slot
from lightningtune.workers.starters import Cold, ForkServer

class Mine(Exception):
    pass

class Other(Mine):
    pass

def local():
    class Local(Exception):
        pass
    return Local

def fails(error, blueprint, connection):
    raise error

def outcome_of(starter, task):
    child = starter.child()
    child.connection.send_bytes(pickle.dumps(Job(Slot(), {}, 1, sys.argv[1], cloudpickle.dumps(task))))
    outcome = child.connection.recv()
    child.close()
    return outcome

import functools, pathlib
sys.argv[1] = pathlib.Path(sys.argv[1])
payload = cloudpickle.dumps(Payload(Schema(Line, Points, L.Trainer), {}))
for starter in [ForkServer(payload)] * (sys.platform == "linux") + [Cold(payload)]:
    starter.start()
    for error in (Other(Mine(3)), local()("four"))[: 2 if isinstance(starter, ForkServer) else 1]:
        found = outcome_of(starter, functools.partial(fails, error))
        print(type(found.error) in (Mine, Other), type(found.error).__name__, found.error.args, found.detail)
    starter.close()
"""


@pytest.mark.slow
def test_an_error_of_a_scripts_own_class_is_of_that_class_in_the_host(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    done = subprocess.run(
        [sys.executable, script, tmp_path / "output.log"], capture_output=True, text=True, env=environment, check=True
    )
    other, local = "True Other (Mine(3),) Other: 3", "False TrialError ('Local: four',) Local: four"
    assert done.stdout.splitlines() == ([other, local, other] if sys.platform == "linux" else [other])
    assert done.stderr == ""


class Particular(Exception):  # noqa: N818 - it is
    """It can be pickled, and not be built again."""

    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


class ParticularError(Particular, ConfigurationError):
    """A mistake of the user's."""


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (KeyError("a"), KeyError, "'a'"),
        (Particular(1, 2), TrialError, "Particular: 1 and 2"),
        (ParticularError(1, 2), ConfigurationError, "1 and 2"),
        (ValueError(lambda: 0), TrialError, "ValueError: <function"),
    ],
)
def test_an_error_that_cannot_travel_arrives_as_its_message(error, kind, text):
    sent = TrialOutcome.failed(error)
    outcome = pickle.loads(pickle_result(sent))
    assert type(outcome.error) is kind
    assert str(outcome.error).startswith(text)
    assert (outcome.detail, outcome.traceback) == (sent.detail, sent.traceback)


def test_what_is_no_failure_travels_as_it_is():
    for result in (True, False, TrialOutcome(StopReason.COMPLETED, score=(1.0,))):
        assert pickle.loads(pickle_result(result)) == result


@pytest.mark.parametrize("given", [None, "/the/users/own"])
def test_a_new_interpreter_finds_the_package_and_its_children_the_users_path(monkeypatch, tmp_path, given):
    if given is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", given)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.chdir(tmp_path)
    here = pickle.loads(pickle.dumps(Surroundings.here()))
    path, variable = [*sys.path], here.environment()["PYTHONPATH"]
    assert variable.split(os.pathsep) == path[1:]
    monkeypatch.setenv("PYTHONPATH", variable)
    monkeypatch.chdir(tmp_path.parent)
    sys.path[:] = ["elsewhere"]
    here.take_over()
    assert (sys.path, Path.cwd(), os.environ.get("PYTHONPATH")) == (path, tmp_path, given)
