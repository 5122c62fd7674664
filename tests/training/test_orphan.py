"""A process that outlives its parent, with real processes and signals."""

import os
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow  # each starts processes that import torch

SCRIPT = """
import multiprocessing, os, pathlib, signal, sys
from lightningtune.training.signals import call_if_orphaned

def child(taken_back, parent_dies):
    take_back = call_if_orphaned(lambda: pathlib.Path("told").touch())
    if taken_back:
        take_back()
    if parent_dies:
        print(os.getpid(), flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGINT)  # once more, as from the next thread of a parent that dies

if __name__ == "__main__":
    process = multiprocessing.get_context(sys.argv[1]).Process(target=child, args=tuple(map(eval, sys.argv[2:])))
    process.start()
    process.join()
    print(process.exitcode)
"""


@pytest.fixture
def start(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)

    def run(method, taken_back, parent_dies):
        command = [sys.executable, "script.py", method, str(taken_back), str(parent_dies)]
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)

    return run


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("taken_back", [False, True], ids=["", "taken back"])
def test_an_orphan_tells_at_its_end(start, tmp_path, method, taken_back):
    with start(method, taken_back, True) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        os.kill(pid, signal.SIGINT)
        assert parent.stdout.read() == ""
    assert (tmp_path / "told").exists() is not taken_back


def test_a_child_with_a_parent_has_nothing_to_tell(start, tmp_path):
    with start("fork", False, False) as parent:
        assert parent.stdout.read() == "0\n"
    assert not (tmp_path / "told").exists()
