"""The commands that look at a study: what they print for a person, and for a program."""

import csv
import io
import json
import sys
from pathlib import Path

import pytest
from lightning.pytorch.cli import LightningCLI
from nets import Line, Points

from lightningtune.cli.main import main
from lightningtune.files import load_yaml


@pytest.fixture
def run(studies, capsys):
    def run(line, code=0):
        assert main(line.split()) == code
        said = capsys.readouterr()
        assert said.err == ""
        return said.out

    return run


def test_status_tells_how_far_a_study_is(run):
    lines = run("status digits").splitlines()
    assert lines[:4] == [
        "Study 'digits': minimize val_loss",
        "Trials: 4 of 4 done (3 complete, 1 fail)",
        "Best: trial 0 with val_loss 0.0110499, no better than the untuned defaults",
        "It has all its trials.",
    ]
    assert [line.split()[0] for line in lines[6:]] == ["0", "1", "2", "3"]


def test_status_for_a_program(run, studies):
    found = json.loads(run("status digits --json"))
    assert (found["done"], found["total"], found["counts"]) == (4, 4, {"complete": 3, "fail": 1})
    assert (found["best"][0]["number"], found["running"], found["seconds_left"]) == (0, [], None)
    assert found["directory"] == str(studies / "lightningtune_runs" / "digits")


def test_watching_a_study_that_has_all_its_trials_ends_at_once(run):
    assert run("status digits --watch --latest 1").count("Study 'digits'") == 1


def test_best_tells_the_score_and_where_it_lies(run, studies):
    shown = run("best digits")
    assert "Study 'digits', best: trial 0\n  val_loss = 0.0110499, no better" in shown
    assert str(studies / "lightningtune_runs" / "digits" / "trials" / "0000" / "best.ckpt") in shown
    path, _, config = shown.partition("Config:     ")[2].partition("\n")
    assert load_yaml(config) == load_yaml(Path(path).read_text())
    found = json.loads(run("best digits --number 2 --json"))
    assert (found["number"], found["improvement"], found["checkpoint"]) == (2, None, None)
    assert found["config"]["model"]["lr"] == found["params"]["lr"]


# LightningCLI uses what jsonargparse has deprecated
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_config_alone_is_the_file_and_runs_as_it_is(run, studies, tmp_path, monkeypatch):
    text = run("best digits --config_only")
    assert text == (studies / "lightningtune_runs" / "digits" / "best" / "config.yaml").read_text()
    config = tmp_path / "best.yaml"
    config.write_text(text)
    folder = f"--trainer.default_root_dir={tmp_path}"
    monkeypatch.setattr("sys.argv", ["train.py", "fit", f"--config={config}", folder, "--trainer.logger=false"])
    cli = LightningCLI(Line, Points, save_config_callback=None)
    assert cli.trainer.current_epoch == 2
    assert cli.model.lr == load_yaml(text)["model"]["lr"]


def test_a_config_that_was_changed_is_not_given_out(run, studies, capsys):
    path = studies / "lightningtune_runs" / "digits" / "trials" / "0000" / "config.yaml"
    path.unlink()
    path.write_text("model: {lr: 3.0}")
    assert main(["best", "digits", "--config_only"]) == 1
    assert "is not the config that trial 0 was trained with" in capsys.readouterr().err


def test_trials_are_a_table_csv_or_json(run):
    assert [line.split()[:2] for line in run("trials digits --sort lr --descending").splitlines()[1:]] == [
        ["1", "fail"],
        ["3", "complete"],
        ["2", "complete"],
        ["0", "complete"],
    ]
    rows = [*csv.DictReader(io.StringIO(run("trials digits --csv --where val_loss>1")))]
    assert [row["number"] for row in rows] == ["2", "3"]
    assert json.loads(run("trials digits --json --state fail"))[0]["reason"] == "failed"
    assert run("trials digits --csv --state waiting") == run("trials digits --csv").partition("\n")[0] + "\n"
    assert run("trials digits --state waiting") == "Study 'digits' has no trials of that kind.\n"


def test_studies_are_listed_and_one_that_is_spoilt_does_not_hide_the_others(run, studies):
    assert [line.split()[:2] for line in run("list").splitlines()] == [
        ["study", "trials"],
        ["digits", "4/4"],
        ["faces", "2/2"],
    ]
    (studies / "empty").mkdir()
    assert run("list empty") == "There are no studies in 'empty'.\n"
    assert run("list empty --json") == "[]\n"
    (studies / "lightningtune_runs" / "digits" / "study.yaml").write_text("day: !!timestamp 2024-13-45")
    (studies / "lightningtune_runs" / "faces" / "journal.log").write_text("spoilt\n")
    digits, faces = json.loads(run("list --json"))
    assert digits["study_name"] == "digits"
    assert "is damaged" in faces["error"]
    *table, row = run("list").splitlines()
    assert len(table) == 2
    assert row.startswith("faces  cannot be read: ")


def test_the_studies_of_a_storage_are_listed(run, monkeypatch):
    storage = "lightningtune_runs/faces/journal.log"
    assert [line.split()[:2] for line in run(f"list --storage {storage}").splitlines()[1:]] == [["faces", "2/2"]]
    monkeypatch.setenv("LIGHTNINGTUNE_STORAGE", storage)
    assert [study["study_name"] for study in json.loads(run("list --json"))] == ["faces"]
    assert len(json.loads(run("list lightningtune_runs --json"))) == 2, "a folder that is named comes first"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that cannot be read, by root either")
def test_a_study_that_cannot_be_read_does_not_hide_the_others(run, studies):
    journal = studies / "lightningtune_runs" / "digits" / "journal.log"
    journal.unlink()
    journal.symlink_to("/proc/self/mem")
    digits, faces = json.loads(run("list --json"))
    assert faces["study_name"] == "faces"
    assert digits["error"]


def test_studies_stand_side_by_side(run):
    shown = run("compare digits faces")
    assert "what differs  digits  faces\nn_trials      4       2" in shown
    found = json.loads(run("compare digits faces --json"))
    assert (found["winner"], found["differences"]) == (None, {"n_trials": [4, 2]})
    assert found["studies"][0]["counts"] == {"complete": 3, "fail": 1}


def test_a_trial_is_trained_again(run):
    assert run("replay digits 0").startswith("Trial 0, trained again, is identical: 2 validations and the score.")
    found = json.loads(run("replay digits 2 --json"))
    assert (found["agreement"], found["largest_difference"]) == ("identical", 0.0)


def test_a_trial_that_comes_to_something_else_is_an_exit_code(run, monkeypatch):
    monkeypatch.setattr(Line, "on_train_start", lambda self: self.net[0].weight.data.fill_(1.0))
    assert "parts from its record at validation 1" in run("replay digits 0", code=1)
