import optuna
import pytest

from lightningtune import ConfigurationError
from lightningtune.study.finding import find_study
from lightningtune.study.storage import open_storage


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
