"""Commands on a study whose folder somebody else has filled: a line or a result, and no wait without end."""

import contextlib
import io
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import Line, Points

from lightningtune import OptunaDrivenOptimizer
from lightningtune.cli.main import main

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs fifos")

SECONDS = 60
COMMANDS = (
    ["list", "RUNS"],
    *([name, "RUNS/digits"] for name in ("status", "best", "trials", "report")),
    *(["export", "RUNS/digits", f"RUNS/exported.{form}"] for form in ("zip", "csv", "json")),
    ["rm", "RUNS/digits", "--weights", "--yes"],
)
REPLACEMENTS = {
    "nothing": lambda path: None,
    "an empty file": Path.touch,
    "noise": lambda path: path.write_bytes(os.urandom(300)),
    "zeros": lambda path: path.write_bytes(bytes(300)),
    "deep nesting": lambda path: path.write_bytes(b"[" * 50_000),
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to a file": lambda path: path.symlink_to(__file__),
    "a link to a folder": lambda path: path.symlink_to(Path(__file__).parent),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of a study of two trials, one of them trained again."""
    folder = tmp_path_factory.mktemp("runs")
    optimizer = OptunaDrivenOptimizer(
        {"trainer": {"max_epochs": 1, "accelerator": "cpu"}},
        {"lr": ("loguniform", 1e-3, 1.0)},
        Line,
        Points,
        n_trials=2,
        study_name="digits",
        seed=0,
        experiment_dir=folder,
        baseline=False,
        verbose=False,
    )
    optimizer.optimize()
    optimizer.refit(seeds=[1])
    return folder


@pytest.fixture(scope="module")
def places(runs):
    return sorted(path.relative_to(runs) for path in runs.rglob("*"))


def too_long(number, frame):
    raise AssertionError(f"a command takes more than {SECONDS} seconds")


@given(st.data(), st.sampled_from(COMMANDS), st.sampled_from(sorted(REPLACEMENTS)))
@settings(max_examples=40)
def test_whatever_is_in_a_files_place_a_command_gives_a_line_or_a_result(runs, places, data, command, replacement):
    place = data.draw(st.sampled_from(places))
    said, error = io.StringIO(), io.StringIO()
    before = signal.signal(signal.SIGALRM, too_long)
    with tempfile.TemporaryDirectory() as temporary:
        copy = shutil.copytree(runs, Path(temporary) / "runs")
        path = copy / place
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        REPLACEMENTS[replacement](path)
        signal.alarm(SECONDS)
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(error):
                code = main([argument.replace("RUNS", str(copy)) for argument in command])
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
    assert "--debug" not in error.getvalue(), "nobody has foreseen it"
    assert code in (0, 1)
    if code:
        assert error.getvalue().startswith("lightningtune: ")
        assert error.getvalue().count("\n") == 1
