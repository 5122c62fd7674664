"""Command lines made of all there is and of chance: one line that was foreseen, or a result."""

import contextlib
import io
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
