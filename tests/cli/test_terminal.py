"""The command that is installed, run in a real terminal and outside of one."""

import contextlib
import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import sysconfig
import termios
from pathlib import Path

import optuna
import pyte
import pytest

from lightningtune.study.finding import find_study

COMMAND = str(Path(sysconfig.get_path("scripts"), "lightningtune"))
WITHOUT_TORCH = """
import contextlib, io, sys
from lightningtune.cli.main import main
for line in sys.stdin.read().splitlines():
    with contextlib.redirect_stdout(io.StringIO()):
        code = main(line.split())
    print(line, code, "torch" in sys.modules)
"""


class Terminal:
    """A command in a terminal of 80 columns and 24 lines."""

    def __init__(self, *arguments):
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        self._shown = b""

    @property
    def text(self):
        return self._shown.decode(errors="ignore").replace("\r\n", "\n")  # a character may have come by half

    def read_until(self, pattern):
        """Read until a pattern is there, or the terminal is closed."""
        with contextlib.suppress(OSError):  # nobody has the other end open any more
            while not re.search(pattern, self.text) and (more := os.read(self._ours, 4096)):
                self._shown += more
        return self.text

    def type(self, text):
        os.write(self._ours, text.encode())

    def end(self):
        self.read_until(r"(?!)")
        os.close(self._ours)
        return self.process.wait(30), self.text


def outside(*arguments, **options):
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=120, **options)


def test_in_a_terminal_lines_end_where_it_does(studies):
    code, text = Terminal("trials", "digits").end()
    lines = text.splitlines()
    assert (code, len(lines)) == (0, 5)
    assert max(map(len, lines)) == 80
    assert lines[2].endswith("…")
    piped = outside("trials", "digits")
    assert (piped.returncode, piped.stderr) == (0, "")
    assert "RuntimeError: lr 19.133 is too high" in piped.stdout


@pytest.mark.slow
def test_in_a_terminal_a_study_is_checked_run_and_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    Path("digits.yaml").write_text(
        "{model_class: nets.Line, datamodule_class: nets.Points, n_trials: 3, seed: 1,"
        " base_config: {trainer: {max_epochs: 2, accelerator: cpu}}, search_space: {lr: [uniform, 0.01, 0.1]}}"
    )
    code, text = Terminal("tune", "digits.yaml", "--metric", "val_acc").end()
    assert code == 0
    assert "Checking 1 of 3: untuned defaults" in text
    assert "\x1b[33m  warning  'val_acc' is minimized" in text, "in colours"
    screen = pyte.Screen(80, 100)
    pyte.Stream(screen).feed(text.replace("\n", "\r\n"))
    stays = "\n".join(line.rstrip() for line in screen.display)
    assert stays.startswith("Study 'digits': minimize val_acc, 3 trials.\n")
    assert re.findall(r"^ +(\d) .* complete +val_acc", stays, re.MULTILINE) == ["0", "1", "2"]
    assert "left" not in stays, "what was shown of the running trials is gone"
    assert re.search(r"^Best: trial \d  val_acc = ", stays, re.MULTILINE)


def test_a_study_is_watched_until_ctrl_c_and_the_last_picture_stays(studies):
    study = find_study("digits").study
    study.ask()
    terminal = Terminal("status", "digits", "--watch", "--every", "0.05")
    terminal.read_until("(?s)1 running.*1 running")
    study.tell(study.trials[-1].number, 0.001)
    study.ask()
    terminal.read_until("Best: trial 4 with val_loss 0.001")
    terminal.process.send_signal(signal.SIGINT)
    code, text = terminal.end()
    assert code == 0
    # on another screen, without its cursor; and back
    assert (text.count("\x1b[?1049h\x1b[?25l"), text.count("\x1b[?25h\x1b[?1049l")) == (1, 1)
    last = text.rpartition("\x1b[?1049l")[2]
    assert last.startswith("Study 'digits': minimize val_loss\n")
    assert "\x1b" not in last


def test_before_a_study_is_removed_one_is_asked(studies):
    folder = studies / "lightningtune_runs" / "digits"
    for answer, code, is_there in (("\n", 1, True), ("y\n", 0, False)):
        terminal = Terminal("rm", "digits")
        assert re.search(
            r"Remove study 'digits' with 4 trials, \d+ [KM]iB in .*\? \[y/N\] $", terminal.read_until("N] ")
        )
        terminal.type(answer)
        assert terminal.end()[0] == code
        assert folder.exists() == is_there


def test_a_reader_that_has_had_enough_is_no_error(studies):
    study = find_study("digits").study
    for _ in range(30):  # more than a pipe holds
        study.add_trial(optuna.trial.create_trial(value=1.0, user_attrs={"lightningtune:detail": "x" * 5000}))
    listed = subprocess.Popen([COMMAND, "trials", "digits", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    listed.stdout.read(1)
    listed.stdout.close()
    assert (listed.wait(60), listed.stderr.read()) == (0, b"")
    listed.stderr.close()


def test_what_only_looks_does_not_import_torch(studies):
    lines = [
        "--help",
        "status digits",
        "status digits --json",
        "best digits",
        "best digits --config_only",
        "trials digits",
        "list",
        "compare digits faces",
        "report digits",
        "pause digits",
        "export digits",
        "tune --help",
        "rm faces --yes",
    ]
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines() == [f"{line} 0 False" for line in lines], ran.stderr
