"""The commands that change something: pause, export, rm."""

import dataclasses
import json
import os

import pytest

from lightningtune.cli.main import main
from lightningtune.study.finding import find_study
from lightningtune.study.identity import WORKER, Worker
from lightningtune.study.liveness import PAUSE


@pytest.fixture
def run(studies, capsys):
    def run(line, code=0):
        assert main(line.split()) == code
        return capsys.readouterr()

    return run


def test_a_study_is_asked_to_pause(run):
    assert run("pause digits").out == "Study 'digits' is asked to pause: none of its trials runs now.\n"
    study = find_study("digits").study
    assert study.user_attrs[PAUSE]
    study.ask()
    assert run("pause digits").out == "Study 'digits' is asked to pause: 1 running end at their next validation.\n"
    assert json.loads(run("pause digits --json").out) == {"study_name": "digits", "running": 1}


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


def test_without_optuna_dashboard_it_is_said_how_to_get_it(run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "Try: pip install 'lightningtune[dashboard]'" in run("dashboard digits", code=1).err
