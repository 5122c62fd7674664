"""Studies that `lightningtune tune` has begun go on without their study file, from wherever that is asked for."""

import json
import logging
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightningtune.cli.main import main
from lightningtune.cli.start import get_exit_code, read_start
from lightningtune.files import dump_yaml
from lightningtune.study import storage as storages
from lightningtune.study.changes import SUBJECT
from lightningtune.study.finding import find_study
from lightningtune.study.reporter import STUDY_FILE

STUDY = {
    "base_config": {"trainer": {"max_epochs": 2, "accelerator": "cpu"}},
    "search_space": {"lr": ["uniform", 0.01, 1.0]},
    "model_class": "net.Net",
    "datamodule_class": "nets.Points",
    "n_trials": 2,
    "seed": 1,
    "isolate": False,
    "verbose": False,
}


@pytest.fixture
def began(tmp_path, monkeypatch, request):
    """The working directory is another than that in which the study was begun."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "net", raising=False)
    (home / "net.py").write_text("from nets import Line\n\n\nclass Net(Line):\n    pass\n")
    (home / "digits.yaml").write_text(dump_yaml({**STUDY, **request.param}))
    assert main(["tune", "digits.yaml", "--check=false"]) == 0
    (home / "digits.yaml").unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return home


@pytest.mark.parametrize("began", [{}], indirect=True)
def test_a_study_goes_on_and_a_trial_is_replayed(began, capsys):
    folder = str(began / "lightningtune_runs" / "digits")
    assert main(["resume", folder, "--n_trials", "3"]) == 0
    out = capsys.readouterr().out
    assert "Checked with 3 runs of two batches" in out, "the untuned defaults, and both ends of the space"
    assert len(find_study(folder).study.trials) == 3
    kept = read_start(find_study(folder).study)
    assert (kept.study.n_trials, kept.folder, kept.started_in) == (3, began, began)
    assert main(["resume", folder]) == 0
    assert len(find_study(folder).study.trials) == 3
    assert capsys.readouterr().out == "", "it has its trials: there is nothing to check"
    assert main(["replay", folder, "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["agreement"] == "identical"


@pytest.mark.parametrize("began", [{}], indirect=True)
def test_the_best_trial_is_trained_again_and_the_report_compares(began, capsys):
    folder = began / "lightningtune_runs" / "digits"
    capsys.readouterr()
    assert main(["refit", str(folder), "--seeds", "1", "2"]) == 0
    best = find_study(str(folder)).study.best_trial.number
    lines = capsys.readouterr().out.splitlines()
    for seed, line in zip((1, 2), lines, strict=True):
        assert re.fullmatch(rf"seed {seed}: val_loss [\d.e-]+  {folder}/refit/{best:04d}_seed_{seed}", line)
    assert main(["report", str(folder)]) == 0
    assert "Trained again with 2 seeds" in (folder / "report.html").read_text()
    capsys.readouterr()
    assert main(["refit", str(folder), "--number", "1", "--max_epochs", "3", "--json"]) == 0
    (trained,) = json.loads(capsys.readouterr().out)
    assert Path(trained["checkpoint"]).is_file()
    assert (Path(trained["directory"]) / "metrics.csv").read_text().splitlines()[-1].startswith("2,")
    assert main(["refit", str(folder), "--seeds", "1", "--max_epochs", "1"]) == 0
    assert main(["report", str(folder)]) == 0
    assert "Trained again with 2 seeds" in (folder / "report.html").read_text(), "a shorter training replaces none"


@pytest.mark.parametrize("began", [{}], indirect=True)
@pytest.mark.parametrize("command", ["resume", "worker"])
def test_what_would_fail_is_found_before_a_study_goes_on(began, command, capsys, monkeypatch):
    folder = str(began / "lightningtune_runs" / "digits")
    study = find_study(folder).study
    kept = study.user_attrs[STUDY_FILE]
    study.set_user_attr(STUDY_FILE, {**kept, "study": {**kept["study"], "n_trials": 3}})
    broken = "    def training_step(self, batch, batch_idx):\n        raise ArithmeticError('no way')\n"
    (began / "net.py").write_text(f"from nets import Line\n\n\nclass Net(Line):\n{broken}")
    monkeypatch.delitem(sys.modules, "net")
    capsys.readouterr()
    assert main([command, folder]) == 1
    said = capsys.readouterr()
    assert "ArithmeticError: no way" in said.out
    assert said.err.endswith("since the check found errors. Skip it with --check false.\n")
    assert len(study.trials) == 2
    assert main([command, folder, "--check=false"]) == 0, "two have completed"
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "FAIL"]


def test_the_exit_code_is_that_of_what_has_ended():
    def code(**counts):
        return get_exit_code(SimpleNamespace(best_trials=["one"] * ("complete" in counts), counts=counts))

    assert code(complete=1, fail=2) == code() == code(interrupted=2) == 0, "paused, it may complete another day"
    assert code(fail=3) == code(pruned=1, interrupted=1) == 1


@pytest.mark.parametrize("began", [{}], indirect=True)
def test_a_study_file_of_another_version_is_told_of(began, capsys):
    folder = str(began / "lightningtune_runs" / "digits")
    study = find_study(folder).study
    kept = study.user_attrs[STUDY_FILE]
    study.set_user_attr(STUDY_FILE, {**kept, "study": {**kept["study"], "n_wishes": 3}})
    assert main(["resume", folder]) == 1
    assert "of another version, whose study file this one cannot read: " in (said := capsys.readouterr().err)
    assert "'n_wishes'" in said


@pytest.mark.parametrize("began", [{}], indirect=True)
def test_after_a_refusal_a_study_goes_on_as_before(began, capsys, monkeypatch):
    monkeypatch.chdir(began)
    study = {**STUDY, "search_space": {"lr": ["categorical", [0.1, 0.2]]}, "study_name": "digits"}
    (began / "other.yaml").write_text(dump_yaml(study))
    assert main(["tune", "other.yaml", "--check=false"]) == 1
    refused = capsys.readouterr().err
    assert "cannot go on with" in refused
    assert "or remove the stored study with 'lightningtune rm digits'." in refused
    assert main(["resume", "digits", "--n_trials", "3"]) == 0
    assert len(find_study("digits").study.trials) == 3


@pytest.mark.parametrize("began", [{"storage": "sqlite:///study.db", "n_trials": 1}], indirect=True)
def test_a_worker_finds_the_study_in_its_storage(began, monkeypatch):
    monkeypatch.chdir(began)  # a relative address leads from here
    study = find_study("digits", "sqlite:///study.db").study
    study.enqueue_trial({"lr": 0.5})
    assert main(["worker", "digits", "--storage", "sqlite:///study.db", "--n_jobs", "1"]) == 0
    assert storages.log.isEnabledFor(logging.WARNING), "that the storage is away is told while the study runs"
    assert main(["resume", "digits", "--storage", "sqlite:///study.db", "--n_trials", "2"]) == 0
    assert [trial.params for trial in study.trials][1] == {"lr": 0.5}
    assert study.trials[1].state.name == "COMPLETE"


@pytest.mark.parametrize("began", [{}], indirect=True)
def test_a_study_whose_folder_was_renamed_or_whose_classes_are_gone_is_not_run(began, capsys, monkeypatch):
    folder = began / "lightningtune_runs" / "digits"
    renamed = folder.rename(folder.with_name("old"))
    assert main(["resume", str(renamed)]) == 1
    assert "was renamed to 'old'. Rename it back, to run it." in capsys.readouterr().err
    renamed.rename(folder)
    (began / "net.py").unlink()
    monkeypatch.delitem(sys.modules, "net")
    assert main(["resume", str(folder)]) == 1
    assert "model_class: there is no module 'net'" in capsys.readouterr().err


def test_of_a_study_of_a_script_it_is_said_which_to_run(studies, capsys):
    path = studies / "lightningtune_runs" / "digits" / "study.yaml"
    text = path.read_text().replace("script: null", "script: /home/me/train.py")
    path.write_text(text.replace("model_class: nets.Line", "model_class: __main__.Net"))
    for command in ("resume", "worker"):
        assert main([command, "digits"]) == 1
        assert capsys.readouterr().err == (
            "lightningtune: Study 'digits' was not started by 'lightningtune tune'. "
            "Run '/home/me/train.py' again, and it goes on.\n"
        )
    assert main(["replay", "digits", "0"]) == 1
    assert "'Net' of a script. Say which with '--script /home/me/train.py'" in capsys.readouterr().err


def test_the_classes_of_a_script_are_found_in_it(studies, capsys, monkeypatch):
    path = studies / "lightningtune_runs" / "digits" / "study.yaml"
    path.write_text(path.read_text().replace("model_class: nets.Line", "model_class: __main__.Net"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "training", raising=False)
    (studies / "training.py").write_text(
        "from nets import Line as Net\n\nif __name__ == '__main__':\n    raise SystemExit('it was run')\n"
    )
    assert main(["replay", "digits", "0", "--script", "training.py"]) == 0
    assert capsys.readouterr().out.startswith("Trial 0, trained again, is identical")


@pytest.mark.parametrize("command", ["resume", "worker"])
def test_as_many_trials_at_a_time_as_fit_can_be_asked_for(command, studies, capsys):
    assert main([command, "digits", "--n_jobs", "-1"]) == 1
    assert "was not started by 'lightningtune tune'" in capsys.readouterr().err
    assert main([command, "digits", "--n_jobs", "-2"]) == 2
    assert "must be an integer above 0, but got '-2'" in capsys.readouterr().err


@pytest.mark.parametrize("began", [{}], indirect=True)
@pytest.mark.parametrize("command", ["resume", "worker"])
def test_a_study_that_has_become_another_model_s_is_refused(began, command, capsys):
    study = find_study(str(began / "lightningtune_runs" / "digits")).study
    subject = study.user_attrs[SUBJECT]
    study.set_user_attr(SUBJECT, {**subject, "classes": {**subject["classes"], "model_class": "other.Net"}})
    assert main([command, str(began / "lightningtune_runs" / "digits")]) == 1
    assert "exists with model_class=other.Net, but model_class=net.Net is asked for" in capsys.readouterr().err
