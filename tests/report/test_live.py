import contextlib
import dataclasses
import io
import os
import pty
import re
import signal
import struct
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import pyte
import pytest
from rich.console import Console

from lightningtune.report.live import LiveView, view_console
from lightningtune.study.events import (
    Events,
    Level,
    Message,
    StudyBegan,
    StudyEnded,
    TrialEnded,
    TrialStarted,
    ValuesReported,
)
from lightningtune.study.results import StudyResults, TrialResult

NOTHING = StudyResults("s", ("val_acc",), ("maximize",), (), ())


def ended(number, state="complete", values=(0.5,), detail="", params=None):
    return TrialResult(number, state, values, params or {"model.lr": 0.01}, "", detail, 3, 1.0, number == 0, None, None)


@pytest.fixture
def out():
    return io.StringIO()


def console(out, terminal=False, width=80):
    return Console(file=out, force_terminal=terminal, width=width, highlight=False, color_system=None)


def run(view):
    view(StudyBegan(NOTHING, 0, 2, "Study 's'"))
    with view:
        view(TrialStarted(0, {}, is_baseline=True))
        view(ValuesReported(0, (0.25,), 0))
        view(TrialEnded(ended(0), (ended(0),), 1))
        view(TrialEnded(ended(1, "pruned", (0.1,), "pruned by X"), (ended(0),), 2))
    view(StudyEnded("the end", is_empty=False))


def test_outside_a_terminal_each_trial_is_a_plain_line(out):
    run(LiveView(("val_acc",), console(out)))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert lines == [
        "Study 's'",
        "   0 ★ complete val_acc 0.5  lr=0.01",
        "   1   pruned   by X  lr=0.01",
        "",
        "the end",
    ]


@pytest.mark.parametrize("width", [80, 160])
def test_in_a_terminal_the_running_trial_is_shown_and_no_line_is_too_wide(out, width):
    run(LiveView(("val_acc",), console(out, terminal=True, width=width), clock=lambda: 0.0))
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "0/2 trials" in text
    assert "no validation yet  0:00  untuned defaults" in text
    assert "best val_acc 0.5 (trial 0)" in text
    assert max(len(line) for line in re.split(r"[\r\n]", text)) <= width


def test_a_trial_that_violates_a_constraint_is_called_infeasible(out):
    view = LiveView(("val_acc",), console(out))
    view(StudyBegan(NOTHING, 0, 2, "Study 's'"))
    view(TrialEnded(dataclasses.replace(ended(1), is_feasible=False), (), 1))
    assert "complete val_acc 0.5, infeasible  lr=0.01" in out.getvalue()


def test_an_interrupted_trial_is_called_so_and_is_not_done(out):
    view = LiveView(("val_acc",), console(out, terminal=True))
    view(StudyBegan(NOTHING, 0, 2, "Study 's'"))
    interrupted = dataclasses.replace(ended(0, "fail", None, "interrupted by Ctrl-C"), reason="interrupted")
    with view:
        view(TrialEnded(interrupted, (), 0))
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "0   interrupted by Ctrl-C" in text
    assert "1/2" not in text


def test_a_long_line_is_not_cut_outside_a_terminal(out):
    view = LiveView(("val_acc",), console(out))
    view(TrialEnded(ended(0, "fail", None, "ValueError: " + "long " * 40), (), 1))
    assert len(out.getvalue().splitlines()) == 1
    assert len(out.getvalue()) > 200


class Gone(io.StringIO):
    """A terminal that has gone, or a pipe that nobody reads from."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(5, "gone"), UnicodeEncodeError("ascii", "x", 0, 1, "y")])
@pytest.mark.parametrize("terminal", [False, True])
def test_what_cannot_be_shown_ends_nothing_and_is_told_once(error, terminal, caplog):
    view = LiveView(("val_acc",), console(Gone(error), terminal=terminal))
    run(view)
    view(Message("note"))
    view(Message("it ends", Level.ERROR))
    assert len([text for text in caplog.messages if text.startswith("The study is not shown any more")]) == 1
    assert "it ends" in caplog.messages, "it must be seen"


def test_trials_that_begin_at_one_moment_are_not_each_drawn_anew(out):
    view = LiveView(("val_acc",), console(out, terminal=True), clock=lambda: 0.0)
    view(StudyBegan(NOTHING, 0, 100, "Study 's'"))
    with view:
        for number in range(100):
            view(TrialStarted(number, {}, is_baseline=False))
    assert 2 <= out.getvalue().count("0/100 trials") < 50  # rich's own thread draws twice a second


def test_a_quiet_console_shows_nothing(out):
    run(LiveView(("val_acc",), Console(file=out, quiet=True, force_terminal=True)))
    assert out.getvalue() == ""


def test_values_of_users_are_not_markup(out):
    view = LiveView(("val_acc",), console(out))
    view(StudyBegan(NOTHING, 0, 1, "Study '[red]s[/]'"))
    view(TrialEnded(ended(0, "fail", None, "ValueError: [bold]x[/bold]", {"[blink]": "[/]"}), (), 1))
    view(Message("[red]note[/red]"))
    assert "Study '[red]s[/]'" in out.getvalue()
    assert "ValueError: [bold]x[/bold]  [blink]=[/]" in out.getvalue()
    assert "[red]note[/red]" in out.getvalue()


def test_an_early_end_is_logged_where_nothing_is_shown(out, caplog):
    LiveView(("val_acc",), console(out))(Message("it ends", Level.ERROR))
    assert (out.getvalue(), caplog.text) == ("it ends\n", "")
    LiveView(("val_acc",), Console(file=out, quiet=True))(Message("it ends", Level.ERROR))
    assert "it ends" in caplog.text


def test_that_nothing_was_found_is_logged_where_nothing_is_shown(out, caplog):
    LiveView(("val_acc",), Console(file=out, quiet=True))(StudyEnded("nothing", is_empty=True))
    assert (out.getvalue(), caplog.messages) == ("", ["nothing"])


def test_a_log_is_told_now_and_then_how_far_a_long_trial_is(out):
    now = [0.0]
    view = LiveView(("val_acc",), console(out), clock=lambda: now[0])
    view(StudyBegan(NOTHING, 0, 2, "Study 's'"))
    with view:
        view(TrialStarted(0, {"model.lr": 0.1}, is_baseline=False))
        for step in range(7):
            now[0] += 100
            view(ValuesReported(0, (step / 10,), step))
    lines = [re.sub(" +", " ", line).strip() for line in out.getvalue().splitlines()]
    assert lines == [
        "Study 's'",
        "0/2 trials · 0 ▁▅█ 0.2 at validation 3 5:00 lr=0.1",
        "0/2 trials · 0 ▁▂▄▅▇█ 0.5 at validation 6 10:00 lr=0.1",
    ]


STUDY = """
import sys
import lightning as L
from nets import Line, Points
from lightningtune import OptunaDrivenOptimizer

class Waits(L.Callback):
    def on_validation_end(self, trainer, pl_module):
        if trainer.current_epoch == 2 and not trainer.sanity_checking:
            open("reached", "w").close()
            open("go_on").close()

OptunaDrivenOptimizer(
    {"trainer": {"max_epochs": 4, "accelerator": "cpu"}}, {"lr": ("loguniform", 1e-3, 1.0)}, Line, Points,
    n_trials=2, experiment_dir="runs", seed=0, callbacks=[Waits()],
).optimize()
"""


ROWS = 60


class Terminal:
    """A study in a terminal, and what stands on its screen; it waits in the third epoch of each trial."""

    def __init__(self, folder, width):
        self._folder = folder
        for name in ("reached", "go_on"):
            os.mkfifo(folder / name)
        self._screen = pyte.Screen(width, ROWS)
        self._stream = pyte.ByteStream(self._screen)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
        environment |= {"TERM": "xterm-256color", "PYTHONWARNINGS": "ignore"}
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(sys.executable, [sys.executable, "-c", STUDY], environment)
        self.resize(width)

    def resize(self, width):
        ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, width, 0, 0))
        self._screen.resize(ROWS, width)

    def lines(self):
        return [line.rstrip() for line in self._screen.display if line.strip()]

    def read(self):
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # the other end is closed
            data = b""
        self._stream.feed(data)
        return data

    def read_until(self, *shown):
        """Read until a line has all of some texts."""
        self.read_until_one(lambda line: all(text in line for text in shown))

    def read_until_one(self, is_it):
        """Read until a line is the one; what has been read may be a part of what is drawn."""
        while not any(map(is_it, self.lines())):
            assert self.read(), self.lines()

    def go_on(self):
        with (self._folder / "reached").open():
            pass
        with (self._folder / "go_on").open("w"):
            pass

    def end(self):
        while self.read():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def terminal(tmp_path):
    begun = []

    def start(width):
        begun.append(Terminal(tmp_path, width))
        return begun[0]

    yield start
    with contextlib.suppress(ProcessLookupError):
        os.kill(begun[0].pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("width", [80, 160])
def test_a_terminal_shows_what_has_ended_and_below_it_what_runs(terminal, width):
    study = terminal(width)
    study.read_until("   0  ", "at epoch 2/4")
    first = study.lines()
    study.go_on()
    study.read_until("   1  ", "at epoch 2/4")
    second = study.lines()
    study.go_on()
    assert study.end() == 0
    assert first[0] == second[0] == "Study 'optuna_study': minimize val_loss, 2 trials."
    assert first[1] == "0/2 trials"
    assert re.fullmatch(r"   0  █.* at epoch 2/4  \d:\d\d  untuned defaults", first[2])
    assert second[1].startswith("   0 ★ complete val_loss ")
    assert re.match(r"1/2 trials · \d+:\d\d left", second[2])
    assert second[3].startswith("best val_loss ")
    assert second[4].startswith("   1  █")
    final = study.lines()
    assert final[2].startswith("   1 ")
    assert final[3] == "Study 'optuna_study': 2 complete"
    assert not any("at epoch" in line for line in final)


@pytest.mark.slow
def test_after_ctrl_c_nothing_stands_twice_and_what_was_alive_is_gone(terminal):
    study = terminal(80)
    study.read_until("   0  ", "at epoch 2/4")
    os.kill(study.pid, signal.SIGINT)
    study.read_until("Ctrl-C: running trials end at their next validation.")
    study.go_on()
    assert study.end() == -signal.SIGINT
    lines = study.lines()
    assert sum(line.startswith("Ctrl-C: running trials end") for line in lines) == 1
    assert not any(line.startswith("0/2 trials") for line in lines)


@pytest.mark.slow
def test_what_ctrl_c_does_stays_on_the_screen_and_a_narrower_one_is_kept_to(terminal):
    study = terminal(160)
    study.read_until("   0  ", "at epoch 2/4")
    study.resize(60)
    os.kill(study.pid, signal.SIGINT)
    study.read_until("0/2 trials")
    study.read_until("Ctrl-C: running trials end at their next validation.")
    for _ in range(3):  # drawn anew
        study.read()
    study.read_until_one(lambda line: line.startswith("Ctrl-C: running trials end"))
    study.read_until_one(lambda line: line.startswith("   0  █") and len(line) <= 60)
    study.go_on()
    assert study.end() == -signal.SIGINT
    lines = study.lines()
    assert any(line.startswith("Ctrl-C: running trials end") for line in lines)
    text = " ".join(lines)
    assert "0   interrupted by Ctrl-C" in text
    assert "Interrupted. 0 of 2 trials are done; run again to go on." in text
    assert "KeyboardInterrupt" in text


def test_a_notice_of_all_trials_is_shown_once(out):
    events = Events([LiveView(("a",), console(out))])
    for _ in range(2):
        events.warn_once("all trials share a folder")
    assert out.getvalue().count("all trials share a folder") == 1


def test_what_is_shown_stands_in_the_log_too(caplog):
    caplog.set_level("INFO", "lightningtune")
    view = LiveView(("val_acc",), Console(quiet=True))
    run(view)
    view(Message("a note"))
    assert caplog.messages[:3] == [
        "Study 's'",
        "Trial 0: complete val_acc 0.5, with lr=0.01",
        "Trial 1: pruned by X, with lr=0.01",
    ]
    assert caplog.messages[-1] == "a note"


def test_what_could_move_the_cursor_is_written_out(out):
    view = LiveView(("val_acc",), console(out))
    view(TrialEnded(ended(0, "fail", None, "ValueError: \x1b[2J\nmore", {"act": "\x1b[31mred\n"}), (), 1))
    view(Message("\x1b[2J two\nlines"))
    assert out.getvalue().splitlines() == [
        r"   0   fail     ValueError: \x1b[2J more  act=\x1b[31mred\n",
        r"\x1b[2J two",
        "lines",
    ]


def test_a_file_without_the_letters_has_question_marks(tmp_path):
    with (tmp_path / "log").open("w", encoding="ascii") as file:
        run(LiveView(("val_acc",), Console(file=file, force_terminal=True, width=80)))
        assert file.errors == "strict"
    text = (tmp_path / "log").read_text()
    assert "0 ? complete val_acc 0.5" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert text.endswith("the end\n")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a terminal that goes")
def test_a_terminal_that_has_gone_ends_nothing(caplog):
    ours, theirs = os.openpty()
    os.close(ours)
    file = os.fdopen(theirs, "w", encoding="utf-8")
    run(LiveView(("val_acc",), Console(file=file, force_terminal=True, width=80)))
    with contextlib.suppress(OSError):
        file.close()
    assert any(text.startswith("The study is not shown any more") for text in caplog.messages)


def test_where_trials_print_too_each_is_a_plain_line(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert view_console(True, is_shared=False).is_interactive
    assert not view_console(True, is_shared=True).is_interactive
    assert view_console(False, is_shared=False).quiet
