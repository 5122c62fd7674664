import dataclasses
import io
import re

import pytest
from rich.console import Console

from lightningtune.report.live import LiveView, WatchedReporter
from lightningtune.study.results import TrialResult


def ended(number, state="complete", values=(0.5,), detail="", params=None):
    return TrialResult(number, state, values, params or {"model.lr": 0.01}, "", detail, 3, 1.0, number == 0, None, None)


@pytest.fixture
def out():
    return io.StringIO()


def console(out, terminal=False, width=80):
    return Console(file=out, force_terminal=terminal, width=width, highlight=False, color_system=None)


def run(view):
    view.begin(0, 2, "Study 's'")
    with view:
        view.trial_started(0, is_baseline=True)
        view.value_reported(0, (0.25,), 0)
        view.trial_ended(ended(0), (ended(0),))
        view.trial_ended(ended(1, "pruned", (0.1,), "pruned by X"), (ended(0),))
    view.end("the end", is_empty=False)


def test_outside_a_terminal_each_trial_is_a_plain_line(out):
    run(LiveView(("val_acc",), console(out)))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert lines == [
        "Study 's'",
        "   0 ★ complete val_acc 0.5  lr=0.01",
        "   1   pruned   X  lr=0.01",
        "",
        "the end",
    ]


@pytest.mark.parametrize("width", [80, 160])
def test_in_a_terminal_the_running_trial_is_shown_and_no_line_is_too_wide(out, width):
    run(LiveView(("val_acc",), console(out, terminal=True, width=width)))
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "0/2" in text
    assert "(untuned defaults)" in text or "trial 0: val_acc 0.25 at validation 0" in text
    assert max(len(line) for line in re.split(r"[\r\n]", text)) <= width


def test_an_interrupted_trial_is_called_so_and_is_not_done(out):
    view = LiveView(("val_acc",), console(out, terminal=True))
    view.begin(0, 2, "Study 's'")
    interrupted = dataclasses.replace(ended(0, "fail", None, "interrupted by Ctrl-C"), reason="interrupted")
    with view:
        view.trial_ended(interrupted, ())
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "0   interrupted interrupted by Ctrl-C" in text
    assert "1/2" not in text


def test_a_long_line_is_not_cut_outside_a_terminal(out):
    view = LiveView(("val_acc",), console(out))
    view.trial_ended(ended(0, "fail", None, "ValueError: " + "long " * 40), ())
    assert len(out.getvalue().splitlines()) == 1
    assert len(out.getvalue()) > 200


def test_a_quiet_console_shows_nothing(out):
    run(LiveView(("val_acc",), Console(file=out, quiet=True, force_terminal=True)))
    assert out.getvalue() == ""


def test_values_of_users_are_not_markup(out):
    view = LiveView(("val_acc",), console(out))
    view.begin(0, 1, "Study '[red]s[/]'")
    view.trial_ended(ended(0, "fail", None, "ValueError: [bold]x[/bold]", {"[blink]": "[/]"}), ())
    view.note("[red]note[/red]")
    assert "Study '[red]s[/]'" in out.getvalue()
    assert "ValueError: [bold]x[/bold]  [blink]=[/]" in out.getvalue()
    assert "[red]note[/red]" in out.getvalue()


def test_an_early_end_is_logged_where_nothing_is_shown(out, caplog):
    LiveView(("val_acc",), console(out)).stopped("it ends")
    assert (out.getvalue(), caplog.text) == ("it ends\n", "")
    LiveView(("val_acc",), Console(file=out, quiet=True)).stopped("it ends")
    assert "it ends" in caplog.text


def test_that_nothing_was_found_is_logged_where_nothing_is_shown(out, caplog):
    LiveView(("val_acc",), Console(file=out, quiet=True)).end("nothing", is_empty=True)
    assert (out.getvalue(), caplog.messages) == ("", ["nothing"])


def test_several_running_trials_are_counted(out):
    view = LiveView(("val_acc",), console(out, terminal=True))
    view.begin(0, 4, "Study 's'")
    with view:
        view.trial_started(0, is_baseline=True)
        view.trial_started(1, is_baseline=False)
    assert "2 running" in out.getvalue()


def test_a_watched_reporter_passes_values_and_the_verdict_on(out):
    class Reporter:
        def report(self, values, step):
            return f"{values} at {step}"

    watched = WatchedReporter(Reporter(), LiveView(("a",), console(out)), 0)
    assert watched.report((1.0,), 2) == "(1.0,) at 2"
