import csv
import json
import zipfile

import optuna
import pytest

from lightningtune import ConfigurationError
from lightningtune.cli.main import main
from lightningtune.files import dump_yaml
from lightningtune.study.finding import find_study
from lightningtune.study.opening import open_study
from lightningtune.study.portable import export_study
from lightningtune.study.storage import open_storage


@pytest.fixture(params=[None, "sqlite:///study.db"], ids=["journal", "sqlite"])
def found(tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "lightningtune_runs" / "digits"
    root.mkdir(parents=True)
    storage = open_storage(request.param, root / "journal.log")
    study = open_study("digits", storage, ["maximize"], ["val_acc"], True, None, None, seed=3)
    for number in range(3):
        trial = study.ask()
        trial.suggest_float("lr", 0.0, 1.0)
        trial.report(number / 10, 0)
        study.tell(trial, number / 10 if number else None, state=None if number else optuna.trial.TrialState.FAIL)
        folder = root / "trials" / f"{number:04d}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(dump_yaml({"model": trial.params}))
        (folder / "best.ckpt").write_bytes(bytes([number]) * 100)
    (root / "best").mkdir()
    (root / "best" / "model.ckpt").write_bytes(bytes([2]) * 100)
    (root / "study.yaml").write_text("n_trials: 3")
    return find_study("digits", request.param)


def test_a_zip_is_opened_elsewhere_as_the_study_that_it_was(found, tmp_path, monkeypatch):
    export_study(found, tmp_path / "out" / "digits.zip")
    monkeypatch.chdir(tmp_path / "out")
    with zipfile.ZipFile("digits.zip") as archive:
        archive.extractall("lightningtune_runs")
    opened = find_study("digits")
    before, after = found.study.trials, opened.study.trials
    for one, other in zip(before, after, strict=True):
        assert (one.number, one.state, one.values, one.params) == (
            other.number,
            other.state,
            other.values,
            other.params,
        )
        assert (one.intermediate_values, one.user_attrs) == (other.intermediate_values, other.user_attrs)
    assert opened.study.user_attrs == found.study.user_attrs
    assert opened.study.metric_names == ["val_acc"]
    assert opened.directory.read_config(2) == found.directory.read_config(2)
    assert [*opened.directory.root.rglob("*.ckpt")] == []


def test_a_file_that_a_running_study_removes_meanwhile_is_left_out(found, tmp_path, monkeypatch):
    removed, write = found.directory.config(1), zipfile.ZipFile.write

    def write_after_removal(archive, path, name):
        if path == removed:
            path.unlink()
        write(archive, path, name)

    monkeypatch.setattr(zipfile.ZipFile, "write", write_after_removal)
    export_study(found, tmp_path / "digits.zip")
    assert not removed.exists()
    with zipfile.ZipFile(tmp_path / "digits.zip") as archive:
        assert archive.testzip() is None
        assert {"digits/trials/0000/config.yaml", "digits/trials/0002/config.yaml"} <= {*archive.namelist()}
        assert "digits/trials/0001/config.yaml" not in archive.namelist()


def test_with_weights_the_zip_has_the_best_under_both_its_names(found, tmp_path):
    export_study(found, tmp_path / "digits.zip", with_weights=True)
    with zipfile.ZipFile(tmp_path / "digits.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".ckpt")]
        assert names == ["digits/best/model.ckpt", "digits/trials/0002/best.ckpt"]


@pytest.mark.parametrize("found", [None], indirect=True)
def test_a_line_that_is_being_written_is_left_out(found, tmp_path, monkeypatch):
    with found.directory.journal.open("a") as file:
        file.write('{"op_code": 4, "half')
    export_study(found, tmp_path / "out" / "digits.zip")
    monkeypatch.chdir(tmp_path / "out")
    with zipfile.ZipFile("digits.zip") as archive:
        archive.extractall("lightningtune_runs")
    assert len(find_study("digits").study.trials) == 3


def test_a_table_has_a_row_for_each_trial(found, tmp_path):
    export_study(found, tmp_path / "trials.csv")
    rows = [*csv.DictReader((tmp_path / "trials.csv").read_text().splitlines())]
    assert [(row["number"], row["state"], row["val_acc"]) for row in rows] == [
        ("0", "fail", ""),
        ("1", "complete", "0.1"),
        ("2", "complete", "0.2"),
    ]
    assert float(rows[1]["params.lr"]) == found.study.trials[1].params["lr"]


def test_json_has_the_definition_and_the_configs_too(found, tmp_path):
    export_study(found, tmp_path / "digits.json")
    whole = json.loads((tmp_path / "digits.json").read_text())
    assert (whole["study_name"], whole["best"], whole["definition"]) == ("digits", [2], {"n_trials": 3})
    assert [trial["val_acc"] for trial in whole["trials"]] == [None, 0.1, 0.2]
    assert whole["trials"][2]["config"] == {"model": found.study.trials[2].params}
    assert whole["trials"][2]["validations"] == {"0": 0.2}


def test_what_cannot_be_exported_is_said(found, tmp_path):
    with pytest.raises(ConfigurationError, match=r"must end in one of \.zip, \.csv, \.json"):
        export_study(found, tmp_path / "digits.tar")
    with pytest.raises(ConfigurationError, match=r"Weights are exported into a \.zip"):
        export_study(found, tmp_path / "digits.csv", with_weights=True)
    found.directory.best_checkpoint.unlink()
    with pytest.raises(ConfigurationError, match="no weights to export"):
        export_study(found, tmp_path / "digits.zip", with_weights=True)
    assert not [*tmp_path.glob("digits.*")], "nothing is left of what failed"


def test_what_a_link_leads_to_outside_of_the_folder_is_not_exported(found, tmp_path):
    secret, root = tmp_path / "secret.yaml", found.directory.root
    secret.write_text("token: hunter2")
    for name in ("study.yaml", "trials/0001/config.yaml", "trials/0001/notes.txt", "best/model.ckpt"):
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(secret)
    (root / "trials" / "0009").symlink_to(tmp_path)
    (root / "inside.yaml").symlink_to(root / "trials/0002/config.yaml")
    for name in ("digits.zip", "digits.json"):
        export_study(found, tmp_path / name)
    with zipfile.ZipFile(tmp_path / "digits.zip") as archive:
        names, contents = archive.namelist(), [archive.read(name) for name in archive.namelist()]
    assert not any(b"hunter2" in content for content in contents)
    assert "hunter2" not in (tmp_path / "digits.json").read_text()
    assert "digits/inside.yaml" in names
    assert len({*names}) == len(names)
    with pytest.raises(ConfigurationError, match="There are no weights to export"):
        export_study(found, tmp_path / "weights.zip", with_weights=True)


def test_a_name_that_is_read_from_a_journal_leads_nowhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "given"
    optuna.create_study(study_name="../../../evil", storage=open_storage(None, root / "journal.log"))
    for arguments in ([], [str(tmp_path / "given.zip")]):
        assert main(["export", str(root), *arguments]) == 1
        assert "study_name='../../../evil' must be usable as a folder's name." in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == [root]
