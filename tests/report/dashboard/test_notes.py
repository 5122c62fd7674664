import dataclasses
import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from lightningtune.contract import TrialFacts
from lightningtune.report.dashboard.notes import code, note_of, plain_text
from lightningtune.study.results import TrialResult


def trial(folder, state="complete", reason="completed", **changed):
    known = {"detail": "", "epochs": 3, "duration": 75.0, "is_baseline": False, **changed}
    return TrialResult(
        7, state, None, {}, reason, directory=folder, checkpoint=None, facts=TrialFacts("cpu (x_86)"), **known
    )


def test_a_note_says_what_a_trial_was(tmp_path):
    said = note_of(trial(tmp_path, is_baseline=True))
    assert said.split("\n\n") == [
        "**complete** · 3 epochs · 1 min 15 s · cpu \\(x\\_86\\)",
        "It trains the untuned defaults.",
        f"Folder: `{tmp_path}`",
    ]


def test_it_says_why_a_trial_ended_and_who_goes_on(tmp_path):
    was_cut = trial(tmp_path / "gone", "fail", "interrupted", detail="interrupted by Ctrl-C", continued_by=9)
    assert note_of(was_cut).split("\n\n")[1:] == [
        "interrupted by Ctrl\\-C",
        "Trial 9 goes on from it, and counts in its place.",
    ]
    assert note_of(was_cut).startswith("**interrupted**")
    goes_on = trial(tmp_path / "gone", "waiting", "", epochs=0, duration=0.0, continues=7)
    assert "It goes on from trial 7, which was cut short." in note_of(goes_on)


def test_of_a_trial_that_waits_there_is_nothing_to_say(tmp_path):
    waiting = dataclasses.replace(trial(tmp_path / "gone", "waiting", ""), epochs=0, duration=0.0, facts=TrialFacts())
    assert note_of(waiting) == ""


@pytest.mark.parametrize("text", ["<script>x</script>", "a_b_c *d* `e` [f](g) #1", "1. x", "- y", "~~z~~ | & &amp;"])
def test_what_users_name_is_text(text):
    shown = MarkdownIt("commonmark").render(plain_text(text))
    assert _seen(shown) == text


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_any_text_is_shown_as_it_is(text):
    render = MarkdownIt("commonmark").render
    assert _seen(render(plain_text(text))) == text
    assert _seen(render(code(text))) == text


def _seen(shown):
    return html.unescape(re.sub("<[^>]*>", "", shown)).strip()
