"""What a trial's process does with a job, and says to the host."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each starts processes that import torch

SCRIPT = """
import pickle, sys
import cloudpickle, lightning as L
from nets import Line, Points
from lightningtune.config.schema import Schema
from lightningtune.training.build import Blueprint
from lightningtune.workers.child import Job
from lightningtune.workers.starters import Cold
from lightningtune.workers.devices import Slot
from lightningtune.workers.starters import ForkServer

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
payload = cloudpickle.dumps(Blueprint(Schema(Line, Points, L.Trainer), {}))
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
