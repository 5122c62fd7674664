"""The commands that read studies: what they print for a person, and for a program."""

import csv
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from lightning.pytorch.cli import LightningCLI
from nets import Line, Points

from lightningtune.cli.main import main
from lightningtune.cli.study_file import read_study
from lightningtune.files import load_yaml
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.finding import find_study
from lightningtune.study.storage import open_storage


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


SERVE = "import sys; from lightningtune.cli.main import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"


def test_it_serves_the_study_on_this_machine_alone_without_torch_until_ctrl_c(studies):
    pytest.importorskip("optuna_dashboard")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [sys.executable, "-c", SERVE, "dashboard", "digits", "--port", str(port)]
    journal = studies / "lightningtune_runs" / "digits" / "journal.log"
    before = journal.read_bytes()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as served:
        assert served.stdout.readline() == f"Study 'digits': http://127.0.0.1:{port}, until Ctrl-C.\n"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=60) as answer:
            shown = json.load(answer)
        os.kill(served.pid, signal.SIGINT)
        out, errors = served.communicate(timeout=60)
    assert [study["study_name"] for study in shown["study_summaries"]] == ["digits"]
    assert (out, errors) == ("0 False\n", "")
    assert journal.read_bytes() == before


def test_without_optuna_dashboard_it_is_said_how_to_get_it(studies, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["dashboard", "digits"]) == 1
    assert "Try: pip install 'lightningtune[dashboard]'" in capsys.readouterr().err


def test_a_port_that_is_taken_is_a_line(studies, capsys):
    pytest.importorskip("optuna_dashboard")
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        assert main(["dashboard", "digits", "--port", str(taken)]) == 1
    errors = capsys.readouterr().err
    assert f"cannot listen at 127.0.0.1:{taken}" in errors
    assert "Give it another port with --port" in errors


@pytest.fixture
def home(studies, tmp_path, monkeypatch):
    """The user's home, with the studies in it; the working directory is another."""
    shutil.move(studies, tmp_path / "home")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "home"


@pytest.mark.parametrize(
    "line",
    [
        "status ~/lightningtune_runs/digits",
        "status digits --storage ~/lightningtune_runs/digits/journal.log",
        "list ~/lightningtune_runs",
        "report ~/lightningtune_runs/digits --output=~/a.html",
        "export ~/lightningtune_runs/digits ~/a.zip",
    ],
)
def test_commands_know_the_home(home, capsys, line):
    assert main(line.split()) == 0, capsys.readouterr().err
    assert not [*Path().iterdir()]


def test_what_a_study_file_names_is_found_in_the_home(home):
    (home / "base.yaml").write_text("trainer: {max_epochs: 3}\nmodel: ~/model.yaml\n")
    (home / "model.yaml").write_text("lr: 0.1\n")
    (home / "study.yaml").write_text("base_config: ~/base.yaml\n")
    assert read_study("~/study.yaml").base_config == {"trainer": {"max_epochs": 3}, "model": {"lr": 0.1}}
    assert StudyDirectory.named("~/runs", "digits").root == home / "runs" / "digits"
    open_storage("~/own.log", home)
    open_storage("sqlite:///~/own.db", home)
    assert {"own.log", "own.db"} <= {path.name for path in home.iterdir()}
    assert find_study("~/lightningtune_runs/faces").study.study_name == "faces"
    assert not [*Path().iterdir()]
