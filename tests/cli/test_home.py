"""``~`` is the user's home in every path that somebody gives."""

import shutil
from pathlib import Path

import pytest

from lightningtune.cli.main import main
from lightningtune.cli.study_file import read_study
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.finding import find_study
from lightningtune.study.storage import open_storage


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
