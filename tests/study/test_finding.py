"""Studies that exist are found, and removed with nothing that is somebody else's."""

import dataclasses
import os

import optuna
import pytest

from lightningtune import ConfigurationError
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.finding import (
    check_idle,
    find_study,
    find_weights,
    measure_size,
    remove_study,
    remove_weights,
)
from lightningtune.study.identity import WORKER, Worker
from lightningtune.study.storage import get_storage, open_storage


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "faces"):
        storage = open_storage(None, tmp_path / "lightningtune_runs" / name / "journal.log")
        optuna.create_study(study_name=name, storage=storage)
    optuna.create_study(study_name="stored", storage="sqlite:///study.db")
    return tmp_path / "lightningtune_runs"


def test_a_study_is_found_by_its_folder_its_name_and_its_storage(runs):
    assert find_study("digits").study.study_name == "digits"
    assert find_study("lightningtune_runs/faces").study.study_name == "faces"
    found = find_study(str(runs / "faces") + "/")
    assert (found.study.study_name, found.directory.root) == ("faces", runs / "faces")
    assert found.storage == str(runs / "faces" / "journal.log")
    found = find_study("stored", "sqlite:///study.db")
    assert (found.study.study_name, found.storage) == ("stored", "sqlite:///study.db")


def test_a_folder_that_was_renamed_holds_its_study_still(runs):
    (runs / "digits").rename(runs / "old_digits")
    found = find_study("old_digits")
    assert (found.study.study_name, found.directory.root.name) == ("digits", "old_digits")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("digts",), r"no study in .*digts\. There: digits, faces\. Did you mean 'digits'\?"),
        (("lightningtune_runs",), r"no study in .*lightningtune_runs\. There: digits, faces\."),
        (("stor", "sqlite:///study.db"), r"no study 'stor' in sqlite:///study.db\. There: stored\. Did you mean"),
        (("stored", "sqlite:///stud.db"), r"no such file\. Did you mean 'study.db'\?"),
        (("stored", "typo/journal.log"), "no such file"),
        (("a/b",), r"no study in .*/a/b\."),
        (("/",), r"no study in /\."),
        (("",), "usable as a folder's name"),
    ],
)
def test_a_study_that_is_not_there_is_named_with_those_that_are(runs, given, says):
    with pytest.raises(ConfigurationError, match=says):
        find_study(*given)
    assert sorted(path.name for path in runs.parent.iterdir()) == ["lightningtune_runs", "study.db"]
    assert sorted(path.name for path in runs.iterdir()) == ["digits", "faces"]


def test_a_folder_that_is_no_study_does_not_hide_one_of_that_name(runs):
    (runs.parent / "digits").mkdir()
    assert find_study("digits").study.study_name == "digits"


def test_of_a_folder_whose_study_is_stored_elsewhere_that_is_said(runs):
    folder = runs / "stored"
    folder.mkdir()
    (folder / "study.yaml").write_text("study_name: stored\n")
    with pytest.raises(ConfigurationError, match=r"holds no journal\. Say where it is with --storage"):
        find_study("stored")
    assert find_study("stored", "sqlite:///study.db").directory.root == folder


@pytest.fixture
def found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "lightningtune_runs" / "digits"
    optuna.create_study(study_name="digits", storage=open_storage(None, root / "journal.log"))
    for name in (
        "trials/0000/best.ckpt",
        "trials/0000/config.yaml",
        "best/config.yaml",
        "refit/0000_seed_1/best.ckpt",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("12345")
    StudyDirectory(root).write_definition({"study_name": "digits", "versions": {}})
    os.link(root / "trials/0000/best.ckpt", root / "best/model.ckpt")
    return find_study("digits")


def test_a_study_is_removed_with_its_folder_and_nothing_else(found):
    beside = found.directory.root.parent / "notes.txt"
    beside.write_text("mine")
    remove_study(found)
    assert [*beside.parent.iterdir()] == [beside]


def test_what_others_have_put_into_its_folders_stays(found):
    mine = found.directory.root / "refit" / "picture.png"
    mine.write_text("mine")
    assert remove_study(found) == [mine.parent]
    assert [*mine.parent.iterdir()] == [mine]


def test_one_in_a_database_is_removed_from_there_and_others_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "faces"):
        optuna.create_study(study_name=name, storage="sqlite:///study.db")
    folder = tmp_path / "lightningtune_runs" / "digits"
    folder.mkdir(parents=True)
    StudyDirectory(folder).write_definition({"study_name": "digits", "versions": {}})
    remove_study(find_study("digits", "sqlite:///study.db"))
    assert optuna.get_all_study_names("sqlite:///study.db") == ["faces"]
    assert not folder.exists()


def test_a_folder_that_is_none_of_a_study_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    optuna.create_study(study_name="digits", storage="sqlite:///study.db")
    precious = tmp_path / "digits" / "thesis.tex"
    precious.parent.mkdir()
    precious.write_text("all of it")
    weights = precious.with_name("pretrained.ckpt")
    weights.write_text("a month of training")
    found = find_study("./digits", "sqlite:///study.db")
    for remove in (remove_study, remove_weights):
        with pytest.raises(ConfigurationError, match="Nothing was removed: .*there is no study.yaml"):
            remove(found)
    assert precious.exists()
    assert weights.exists()
    assert optuna.get_all_study_names("sqlite:///study.db") == ["digits"]


def test_of_a_link_only_the_link_goes(found):
    elsewhere = found.directory.root.parent.parent / "elsewhere"
    found.directory.root.rename(elsewhere)
    found.directory.root.symlink_to(elsewhere)
    remove_study(find_study("digits"))
    assert not found.directory.root.is_symlink()
    assert (elsewhere / "journal.log").exists()


def test_only_the_weights_go(found):
    directory = found.directory
    assert len(find_weights(directory)) == 3
    assert measure_size(find_weights(directory)) == 10, "a file with two names counts once"
    (directory.root / "trials/0000/sharded.ckpt").mkdir()
    (directory.root / "trials/0000/sharded.ckpt/0.pt").write_text("123")
    remove_weights(found)
    assert find_weights(directory) == []
    assert directory.config(0).exists()
    assert directory.journal.exists()


def test_a_study_that_somebody_runs_is_not_to_be_touched(found):
    check_idle(found.study)
    parent = Worker.of(os.getppid())
    found.study.ask().set_user_attr(WORKER, dataclasses.asdict(parent))
    with pytest.raises(ConfigurationError, match=rf"run by process {os.getppid()} on .*lightningtune pause digits"):
        check_idle(found.study)


def test_a_folder_of_that_name_that_is_no_study_is_not_taken_for_the_studys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    optuna.create_study(study_name="digits", storage="sqlite:///study.db")
    weights = tmp_path / "digits" / "pretrained.ckpt"
    weights.parent.mkdir()
    weights.write_text("a month of training")
    assert remove_study(find_study("digits", "sqlite:///study.db")) == []
    assert weights.exists()
    assert optuna.get_all_study_names("sqlite:///study.db") == []


def test_a_project_in_which_the_journal_lies_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    optuna.create_study(study_name="digits", storage=open_storage("journal.log", tmp_path))
    (tmp_path / "train.py").write_text("import lightning")
    (tmp_path / "study.yaml").write_text("n_trials: 3")  # the user's study file
    for remove in (remove_study, remove_weights):
        with pytest.raises(ConfigurationError, match="there is no study.yaml of a study"):
            remove(find_study("."))
    assert {path.name for path in tmp_path.iterdir()} == {"journal.log", "train.py", "study.yaml"}


def test_what_is_not_the_studys_stays_and_is_told(found):
    root = found.directory.root
    mine = [root / name for name in ("notes.txt", "trials/notes.txt", "best/pretrained.ckpt", "data/x.ckpt")]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    remove_weights(found)
    assert remove_study(found) == [root / name for name in ("best", "data", "notes.txt", "trials")]
    assert sorted(path for path in root.rglob("*") if path.is_file()) == sorted(mine)


def test_through_a_link_in_the_folder_nothing_goes(found, tmp_path):
    weights = tmp_path / "shared" / "0000" / "best.ckpt"
    weights.parent.mkdir(parents=True)
    weights.write_text("another's")
    (found.directory.root / "replay").symlink_to(tmp_path / "shared")
    (found.directory.root / "trials" / "0001").symlink_to(weights.parent)
    remove_weights(found)
    remove_study(found)
    assert weights.exists()
    assert not found.directory.root.exists()


@pytest.mark.parametrize(
    ("definition", "says"),
    [
        ({"study_name": "faces", "versions": {}}, "study.yaml is of study 'faces'"),
        ({"study_name": "digits", "versions": {}, "seed": 7}, "another seed"),
        ({"study_name": "digits", "versions": {}}, "not where this study is stored"),
    ],
)
def test_the_folder_of_another_study_stays(found, definition, says):
    found.directory.write_definition(definition)
    optuna.create_study(study_name="digits", storage="sqlite:///study.db")
    before = sorted(found.directory.root.rglob("*"))
    for remove in (remove_study, remove_weights):
        with pytest.raises(ConfigurationError, match=says):
            remove(find_study("digits", "sqlite:///study.db"))
    assert sorted(found.directory.root.rglob("*")) == before
    assert optuna.get_all_study_names("sqlite:///study.db") == ["digits"]


def test_a_journal_that_holds_another_study_too_stays(found):
    optuna.create_study(study_name="faces", storage=get_storage(found.study))
    with pytest.raises(ConfigurationError, match="holds faces too"):
        remove_study(found)
    assert found.directory.journal.exists()


def test_a_study_whose_own_journal_is_given_as_the_storage_is_removed(found):
    given = os.path.relpath(found.directory.journal)
    assert remove_study(find_study("digits", given)) == []
    assert not found.directory.root.exists()
