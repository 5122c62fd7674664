"""Tab, pressed in real shells."""

import os
import re
import select
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from lightningtune.cli.main import main

SCRIPTS = sysconfig.get_path("scripts")
SHELLS = {
    "bash": (["bash", "--norc", "-i"], "bind 'set bell-style none'; bind 'set show-all-if-ambiguous on'"),
    "zsh": (["zsh", "-f", "-i"], "autoload -U compinit && compinit -u -D; setopt nobeep"),
}


class Terminal:
    """A shell in a terminal of its own, which a process without threads forks."""

    def __init__(self, command, folder):
        path = f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"
        environment = {"PATH": path, "TERM": "dumb", "HOME": str(folder), "PS1": "$ ", "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", "import pty, sys; pty.spawn(sys.argv[1:])", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=folder,
            env=environment,
        )

    def type(self, keys):
        self.process.stdin.write(keys.encode())
        self.process.stdin.flush()

    def read_until(self, pattern):
        """Return what is shown from now on, up to a pattern."""
        shown, until = "", time.monotonic() + 60
        while not re.search(pattern, shown):
            assert time.monotonic() < until, shown
            if select.select([self.process.stdout], [], [], 1)[0]:
                shown += os.read(self.process.stdout.fileno(), 65536).decode(errors="replace")
        return shown

    def close(self):
        self.type("\x15exit\r")
        self.process.stdin.close()
        self.process.stdout.read()
        self.process.stdout.close()
        assert self.process.wait() == 0


@pytest.fixture(params=SHELLS)
def shell(request, tmp_path):
    command, prepare = SHELLS[request.param]
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]} on this machine")
    (tmp_path / "study.yaml").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "lightningtune_runs/digits_a").mkdir(parents=True)
    terminal = Terminal(command, tmp_path)
    terminal.type(f'{prepare}; eval "$(lightningtune completion {request.param})"; echo re""ady\n')
    terminal.read_until(r"\bready\r?\n")
    yield terminal
    terminal.close()


def test_tab_completes_commands_options_values_files_and_studies(shell):
    for typed, line in [
        ("lightningtune tu\t", "lightningtune tune"),
        ("lightningtune tune --n_tr\t5 st\t", "lightningtune tune --n_trials 5 study.yaml"),
        ("lightningtune tune --trainer.max_epochs 3 --non_finite pru\t", "--trainer.max_epochs 3 --non_finite prune"),
        ("lightningtune pause digi\t", "lightningtune pause digits_a"),
    ]:
        shell.type(f"{typed}\x01echo have: \r")  # Ctrl-A: to the beginning of the line
        shell.read_until(rf"\nhave: [^\n]*{re.escape(line)}\s")


def test_what_a_shell_shows_is_the_commands_own_options(tmp_path):
    code = (
        "import os; os.environ.update(_ARGCOMPLETE='1', COMP_LINE=line, COMP_POINT=str(len(line)), "
        "_ARGCOMPLETE_IFS=' ', _ARGCOMPLETE_STDOUT_FILENAME='shown'); "
        "from lightningtune.cli.main import main; main()"
    )
    for line, expected in [
        ("lightningtune co", {"completion"}),
        ("lightningtune tune --", {"--n_trials", "--print_config", "--check", "--help"}),
        ("lightningtune tune --sampler G", {"GPSampler", "GridSampler"}),
        ("lightningtune tune study.yaml --pruner ", {"MedianPruner", "HyperbandPruner"}),
        ("lightningtune init --", {"--data", "--force", "--output"}),
        ("lightningtune completion ", {"bash", "zsh"}),
    ]:
        subprocess.run([sys.executable, "-c", f"line = {line!r}; {code}"], cwd=tmp_path, check=True)
        shown = {*(tmp_path / "shown").read_text().split()}
        assert {text.replace("\\", "") for text in shown} >= expected


def test_a_shell_that_is_not_known_is_refused(capsys):
    assert main(["completion", "fish"]) == 2
    assert "argument shell: invalid choice: 'fish'" in capsys.readouterr().err
    assert main(["completion", "zsh"]) == 0
    assert "compdef" in capsys.readouterr().out
    assert Path(SCRIPTS, "lightningtune").exists()
