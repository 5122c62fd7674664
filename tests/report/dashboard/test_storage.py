"""What optuna-dashboard reads, by Optuna's own functions."""

import optuna
import pytest
import reported
from optuna.artifacts import get_all_artifact_meta
from optuna.artifacts.exceptions import ArtifactNotFound

from lightningtune.report.dashboard.files import StudyFiles
from lightningtune.report.dashboard.storage import ShownStorage
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.identifiers import id_of, storage_of


def shown(study, folder):
    directory = StudyDirectory(folder)
    files = StudyFiles(directory, ("val_acc",))
    return optuna.load_study(study_name=study.study_name, storage=ShownStorage(study, directory, files)), files


def attrs_of(study):
    (found,) = [each for each in storage_of(study).get_all_studies() if each.study_name == study.study_name]
    assert storage_of(study).get_study_system_attrs(found._study_id) == found.system_attrs
    return found.system_attrs


def test_files_are_read_where_they_lie(tmp_path):
    study = reported.ours(3)
    directory = StudyDirectory(tmp_path)
    directory.trial(1).mkdir(parents=True)
    checkpoint = directory.trial(1) / "best.ckpt"
    checkpoint.write_bytes(b"weights")
    seen, files = shown(study, tmp_path)
    trial = seen.trials[1]
    found = {about.filename: about for about in get_all_artifact_meta(trial, storage=storage_of(seen))}
    assert [*found] == ["curves.svg", "best.ckpt"]
    with files.open_reader(found["best.ckpt"].artifact_id) as file:
        assert file.read() == b"weights"
    assert b"val_acc" in files.open_reader(found["curves.svg"].artifact_id).read()
    assert seen.best_trial.system_attrs == seen.trials[seen.best_trial.number].system_attrs
    checkpoint.unlink()
    with pytest.raises(ArtifactNotFound, match="gone"):
        files.open_reader(found["best.ckpt"].artifact_id)
    assert not (tmp_path / "artifacts").exists()


def test_nobody_can_guess_which_number_a_file_has(tmp_path):
    study = reported.ours(1)
    numbers = [[*shown(study, tmp_path)[0].trials[0].system_attrs] for _ in range(2)]
    assert numbers[0] != numbers[1]


def test_a_study_beside_it_is_shown_as_it_is(tmp_path):
    study = reported.ours(3)
    other = optuna.create_study(study_name="other", storage=storage_of(study))
    other.add_trial(optuna.trial.create_trial(value=1.0))
    seen, _ = shown(study, tmp_path)
    beside = optuna.load_study(study_name="other", storage=storage_of(seen))
    assert attrs_of(beside) == {}
    assert beside.trials == other.trials
    assert storage_of(seen).get_trial(id_of(other.trials[0])) == other.trials[0]
    assert beside.best_trial == other.best_trial
    assert any("note" in name for name in attrs_of(seen))


def test_of_a_large_study_the_latest_trials_have_a_note_and_the_best(tmp_path, monkeypatch):
    monkeypatch.setattr("lightningtune.report.dashboard.storage._NOTES", 5)
    study = reported.ours(30)
    assert study.best_trial.number < 25
    seen, _ = shown(study, tmp_path)
    noted = {int(name.split(":")[1]) for name in attrs_of(seen) if name.endswith(":note_ver")}
    assert noted == {id_of(study.trials[number]) for number in (study.best_trial.number, *range(25, 30))}


def test_a_study_of_somebody_elses_has_no_notes_and_its_curves(tmp_path):
    seen, files = shown(reported.theirs(), tmp_path)
    assert attrs_of(seen) == {}
    (about,) = get_all_artifact_meta(seen.trials[0], storage=storage_of(seen))
    assert files.open_reader(about.artifact_id).read().startswith(b"<svg")
