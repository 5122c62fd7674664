"""The commands that hand out a study or remove it: report, export and rm."""

import dataclasses
import json
import os
import subprocess
import sys
import webbrowser
from unittest.mock import ANY

import optuna
import pytest

from lightningtune.cli.main import main
from lightningtune.study.finding import find_study
from lightningtune.study.identity import WORKER, Worker
from lightningtune.study.storage import open_storage


@pytest.fixture
def run(studies, capsys):
    def run(line, code=0):
        assert main(line.split()) == code
        return capsys.readouterr()

    return run


def test_an_export_says_how_to_open_it(run, studies):
    said = run("export digits").out
    assert said.startswith("Wrote 'digits.zip', ")
    assert said.endswith(
        "To open it: 'python -m zipfile -e digits.zip lightningtune_runs', then 'lightningtune status digits'.\n"
    )
    assert run("export digits out/trials.csv").out.startswith("Wrote 'out/trials.csv', ")
    file = studies / "out" / "trials.csv"
    assert file.read_text().count("\n") == 5
    file.write_text("mine")
    assert "'out/trials.csv' is there already. Replace it with --force" in run("export digits out/trials.csv", 1).err
    assert file.read_text() == "mine"
    assert run("export digits out/trials.csv --force").out.startswith("Wrote 'out/trials.csv', ")
    told = {"study_name": "digits", "file": str(file), "bytes": file.stat().st_size}
    assert json.loads(run("export digits out/trials.csv --json --force").out) == told


def test_a_study_is_removed_and_first_its_weights(run, studies):
    folder = studies / "lightningtune_runs" / "digits"
    assert run("rm digits --weights --yes").out.startswith("Removed 2 checkpoints of study 'digits', ")
    assert [*folder.rglob("*.ckpt")] == []
    assert run("rm digits --weights").out == "Study 'digits' has no weights.\n"
    assert run("rm digits --yes").out.startswith("Removed study 'digits' with 4 trials, ")
    assert not folder.exists()
    assert (studies / "lightningtune_runs" / "faces").exists()


@pytest.mark.parametrize("line", ["rm digits --yes", "rm digits --weights --yes"])
def test_a_study_that_somebody_runs_is_not_removed(run, studies, line):
    parent = Worker.of(os.getppid())
    study = find_study("digits").study
    study.ask().set_user_attr(WORKER, dataclasses.asdict(parent))
    assert "Pause it first: 'lightningtune pause digits'" in run(line, code=1).err
    assert (studies / "lightningtune_runs" / "digits" / "best" / "model.ckpt").exists()


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
