"""What can be sent to a trial's process, and how what cannot is named."""

import functools
import os
import pickle
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import lightning as L
import pytest
import torch
from nets import Line

from lightningtune import ConfigurationError, TrialError
from lightningtune.contract import StopReason, TrialOutcome
from lightningtune.workers.travel import Surroundings, TorchSettings, check_travels, pickle_result

LOCK = threading.Lock()
LOCKS = {"first": [LOCK]}


def refused(part):
    """Return what is said between the part's name and the way out."""
    with pytest.raises(ConfigurationError) as caught:
        check_travels("model_class", part)
    said = re.fullmatch(
        r"model_class cannot be sent to a trial's process: (.*)\. Open files, connections and locks inside the class "
        r"or the function, or train in this process with n_jobs=1 and isolate=False\.",
        str(caught.value),
    )
    assert said
    assert caught.value.__cause__ is not None
    return said[1]


def uses(name, kind="_thread.lock"):
    return f"it uses {name}, and that cannot be pickled: TypeError: cannot pickle '{kind}' object"


def test_what_travels_is_let_go():
    limit = 3

    class Net(Line):
        def training_step(self, batch, batch_idx):
            return limit * super().training_step(batch, batch_idx)

    for part in (Line, Net, Net(), functools.partial(Net, lr=0.1), lambda: Net(), {"a": 1}, None, refused):
        check_travels("model_class", part)


def test_a_variable_of_the_script_is_named():
    class Net(Line):
        def training_step(self, batch, batch_idx):
            with LOCK:
                return super().training_step(batch, batch_idx)

    class Inherits(Net):
        pass

    assert refused(Net) == refused(Inherits) == refused(lambda: Inherits()) == uses("LOCK")
    assert refused(lambda: LOCKS) == uses("LOCKS"), "it lies in a container"


def test_a_variable_of_the_function_around_it_is_named():
    guard = threading.Lock()

    def build():
        with guard:
            return Line()

    class Net(Line):
        @property
        def guarded(self):
            return guard.locked()

    assert refused(build) == refused(Net) == refused(functools.partial(build)) == uses("guard")


def test_an_attribute_is_named_by_the_way_to_it(tmp_path):
    class Writer:
        def __init__(self, file):
            self.file = file

    class Log(L.Callback):
        def __init__(self, file):
            self.writer = Writer(file)

    class Net(Line):
        guards = (threading.Lock(),)

    assert refused(Net) == uses("Net.guards")
    assert refused(Log(threading.Lock())) == uses("Log.writer.file")
    log = Log(threading.Lock())
    assert refused(lambda: log) == uses("log.writer.file")
    with (tmp_path / "log.txt").open("w") as file:
        assert refused(Log(file)).startswith("it uses Log.writer.file, and that cannot be pickled: ")


def test_what_cannot_be_told_is_left_out():
    class Odd(Line):
        def __getstate__(self):
            raise ValueError("not me")

    class Worse:
        def __reduce__(self):
            return list, ([threading.Lock()],)

        @property
        def __dict__(self):
            raise SystemError("nor this")

    class Link:
        def __init__(self, rest):
            self.rest = rest

    chain = None
    for _ in range(3000):
        chain = Link(chain)

    assert refused(Odd()) == "ValueError: not me"
    assert refused(Worse()) == "TypeError: cannot pickle '_thread.lock' object"
    assert refused([LOCK]) == "TypeError: cannot pickle '_thread.lock' object"
    assert refused(chain).startswith("PicklingError: ")


@pytest.mark.slow
def test_a_script_is_told_which_of_its_variables(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            from lightningtune.workers.travel import check_travels

            LOG = open(__file__, "a")

            def write(text):
                print(text, file=LOG)

            class Net:
                def forward(self):
                    write("forward")

            check_travels("model_class", Net)
        """)
    )
    ended = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    last = ended.stderr.splitlines()[-1]
    assert "model_class cannot be sent to a trial's process: it uses LOG, and that cannot be pickled: " in last


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
    path, variable = [str(tmp_path), *sys.path[1:]], here.environment()["PYTHONPATH"]
    assert variable.split(os.pathsep) == path
    monkeypatch.setenv("PYTHONPATH", variable)
    monkeypatch.chdir(tmp_path.parent)
    sys.path[:] = ["elsewhere"]
    here.take_over()
    assert (sys.path, Path.cwd(), os.environ.get("PYTHONPATH")) == (path, tmp_path, given)


def test_torch_computes_as_in_the_host():
    before = TorchSettings.here()
    try:
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.benchmark = True
        torch.autograd.set_detect_anomaly(True, check_nan=False)
        there = pickle.loads(pickle.dumps(TorchSettings.here()))
        before.take_over()
        assert TorchSettings.here() == before != there
        there.take_over()
        assert TorchSettings.here() == there
        assert torch.zeros(1).dtype is torch.float64
    finally:
        before.take_over()
