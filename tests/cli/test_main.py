"""The command, run as one."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import optuna
import pytest

from lightningtune.cli.main import main
from lightningtune.study.pause import PAUSE
from lightningtune.study.storage import open_storage

COMMAND = str(Path(sysconfig.get_path("scripts"), "lightningtune"))


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage = open_storage(None, tmp_path / "lightningtune_runs" / "digits" / "journal.log")
    return optuna.create_study(study_name="digits", storage=storage)


def test_a_study_is_asked_to_pause(study, capsys):
    assert main(["pause", "digits"]) == 0
    assert capsys.readouterr().out == "Study 'digits' is asked to pause: none of its trials runs now.\n"
    assert study.user_attrs[PAUSE]
    study.ask()
    assert main(["pause", "digits"]) == 0
    assert capsys.readouterr().out == "Study 'digits' is asked to pause: 1 running end at their next validation.\n"


def test_a_study_that_is_not_there_is_one_line_on_stderr(study, capsys):
    assert main(["pause", "digit"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert "Did you mean 'digits'?" in captured.err


def test_the_command_is_installed_and_neither_it_nor_pausing_imports_torch(study):
    ran = subprocess.run([COMMAND, "--help"], capture_output=True, text=True, check=True)
    assert "pause" in ran.stdout
    code = (
        "import sys; from lightningtune.cli.main import main; main(['pause', 'digits']); print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "False"
