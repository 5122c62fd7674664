"""Command lines of chance, and folders that somebody else has filled: a result, or one line that was foreseen."""

import contextlib
import io
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nets import Line, Points

from lightningtune import OptunaDrivenOptimizer
from lightningtune.cli.main import COMMANDS, main

# these would serve, or train what they are given
LEFT_OUT = {"dashboard", "replay"}
NAMES = sorted({*COMMANDS} - LEFT_OUT)
OPTIONS = [
    *("--json", "--csv", "--config_only", "--watch", "--help", "--debug", "--yes", "--weights", "--force", "--version"),
    *("--latest", "--every", "--limit", "--sort", "--where", "--state", "--number", "--seeds", "--descending"),
    *("--storage", "--output", "--n_trials", "--n_jobs", "--tolerance", "--print_config", "--trainer.max_epochs"),
    *("--metric", "--direction", "--timeout", "--search_space", "--base_config", "--sampler", "--check", "--", "-x"),
]
VALUES = [
    *("digits", "faces", "nothing", ".", "..", "", "0", "-1", "1e999", "9" * 30, "nan", "null", "true", "[", "{a: 1}"),
    *("lr<1", "val_loss>=", "state=fail", "lr", "number", "complete", "a.zip", "a.csv", "a.json", "a.yaml", "train.py"),
    *("sqlite:///no.db", "sqlite://", "x://y", "redis://:p@h", "~", "~nobody", "\udc80", "\x1b[2J", "a\nb", "é" * 300),
]  # fmt: skip
WORDS = st.one_of(
    st.sampled_from(OPTIONS),
    st.sampled_from(VALUES),
    st.text(st.characters(exclude_characters="/~\0"), max_size=8),
    st.builds("{}={}".format, st.sampled_from(OPTIONS), st.sampled_from(VALUES)),
)


@pytest.fixture
def ask(studies):
    """What a command line comes to, in a folder with two studies that is as it was before each."""
    kept = shutil.copytree(studies / "lightningtune_runs", studies.parent / "kept")

    def ask(line):
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            code = main(line)
        if "rm" in line[:2] or "pause" in line[:2]:
            shutil.rmtree(studies / "lightningtune_runs", ignore_errors=True)
            shutil.copytree(kept, studies / "lightningtune_runs")
        return code, out.getvalue(), err.getvalue()

    return ask


@settings(max_examples=100, deadline=None, suppress_health_check=[*HealthCheck])
@given(st.sampled_from(NAMES), st.sampled_from([[], ["digits"], ["digits", "faces"]]), st.lists(WORDS, max_size=4))
def test_a_line_is_a_result_or_one_line_that_was_foreseen(ask, name, studies, words):
    code, out, err = ask([name, *studies, *words])
    if code == 0:
        assert out, "a result is shown"
        return
    assert code in (1, 2), err
    if "--debug" not in words:
        assert err.count("\n") == 1 or name in ("list", "check"), err
        assert "Traceback" not in err
        is_foreseen = "With --debug there is the traceback" not in err or "File name too long" in err
        assert is_foreseen, err


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
    "a pipe": lambda path: os.mkfifo(path),
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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs fifos")
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
