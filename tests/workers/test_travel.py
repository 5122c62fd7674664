"""What can be sent to a trial's process, and how what cannot is named."""

import functools
import os
import re
import subprocess
import sys
import textwrap
import threading

import lightning as L
import pytest
from nets import Line

from lightningtune import ConfigurationError
from lightningtune.workers.travel import check_travels

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
    assert refused(lambda: [LOCK.locked() for _ in range(3)]) == uses("LOCK"), "in code within the function's"
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


def test_a_default_and_an_argument_are_named():
    assert refused(lambda lr, guard=LOCK: Line(lr)) == uses("guard")
    assert refused(lambda lr, *, guard=LOCK: Line(lr)) == uses("guard")
    assert refused(functools.partial(dict, guard=LOCK)) == uses("partial.guard")


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
