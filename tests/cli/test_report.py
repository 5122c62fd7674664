import json
import subprocess
import sys
import webbrowser
from unittest.mock import ANY

import optuna
import pytest

from lightningtune.cli.main import main
from lightningtune.study.storage import open_storage


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "lightningtune_runs" / "digits"
    study = optuna.create_study(study_name="digits", storage=open_storage(None, folder / "journal.log"))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    return folder


def test_the_report_lies_in_the_studys_folder(folder, capsys):
    assert main(["report", "digits"]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    assert "digits" in (folder / "report.html").read_text()
    assert main(["report", "digits", "--json"]) == 0
    told = {"study_name": "digits", "file": str(folder / "report.html"), "bytes": ANY}
    assert json.loads(capsys.readouterr().out) == told


def test_it_may_lie_elsewhere_and_is_opened(folder, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    assert main(["report", str(folder), "--output", "my report.html", "--open"]) == 0
    assert opened == [(folder.parents[1] / "my report.html").as_uri()]
    assert (folder.parents[1] / "my report.html").exists()


def test_what_does_not_work_is_one_line(folder, capsys, monkeypatch):
    assert main(["report", "digits", "--output", "."]) == 1
    assert "is a folder; name the file" in capsys.readouterr().err
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    assert main(["report", "digits", "--open"]) == 1
    assert "No browser was found" in capsys.readouterr().err


def test_torch_is_not_imported(folder):
    code = (
        "import sys; from lightningtune.cli.main import main; main(['report', 'digits']); print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "False"
    assert ran.stderr == ""
