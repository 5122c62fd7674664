import dataclasses
import os

import optuna
import pytest

from lightningtune import ConfigurationError
from lightningtune.study.finding import find_study
from lightningtune.study.identity import WORKER, Worker
from lightningtune.study.removal import check_idle, remove_study, remove_weights, size_of, weights_of
from lightningtune.study.storage import open_storage


@pytest.fixture
def found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "lightningtune_runs" / "digits"
    optuna.create_study(study_name="digits", storage=open_storage(None, root / "journal.log"))
    for name in ("trials/0000/best.ckpt", "trials/0000/config.yaml", "best/config.yaml", "refit/0000_seed_1/best.ckpt"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("12345")
    os.link(root / "trials/0000/best.ckpt", root / "best/model.ckpt")
    return find_study("digits")


def test_a_study_is_removed_with_its_folder_and_nothing_else(found):
    beside = found.directory.root.parent / "notes.txt"
    beside.write_text("mine")
    remove_study(found)
    assert [*beside.parent.iterdir()] == [beside]


def test_one_in_a_database_is_removed_from_there_and_others_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "faces"):
        optuna.create_study(study_name=name, storage="sqlite:///study.db")
    folder = tmp_path / "lightningtune_runs" / "digits"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text("n_trials: 3")
    remove_study(find_study("digits", "sqlite:///study.db"))
    assert optuna.get_all_study_names("sqlite:///study.db") == ["faces"]
    assert not folder.exists()


def test_a_folder_that_is_none_of_a_study_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    optuna.create_study(study_name="digits", storage="sqlite:///study.db")
    precious = tmp_path / "digits" / "thesis.tex"
    precious.parent.mkdir()
    precious.write_text("all of it")
    found = find_study("digits", "sqlite:///study.db")
    with pytest.raises(ConfigurationError, match="left as it is"):
        remove_study(found)
    assert precious.exists()
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
    assert len(weights_of(directory)) == 3
    assert size_of(weights_of(directory)) == 10, "a file with two names counts once"
    (directory.root / "trials/0000/sharded.ckpt").mkdir()
    (directory.root / "trials/0000/sharded.ckpt/0.pt").write_text("123")
    remove_weights(directory)
    assert weights_of(directory) == []
    assert directory.config(0).exists()
    assert directory.journal.exists()


def test_a_study_that_somebody_runs_is_not_to_be_touched(found):
    check_idle(found.study)
    parent = Worker.of(os.getppid())
    found.study.ask().set_user_attr(WORKER, dataclasses.asdict(parent))
    with pytest.raises(ConfigurationError, match=rf"run by process {os.getppid()} on .*lightningtune pause digits"):
        check_idle(found.study)
