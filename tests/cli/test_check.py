"""The command ``lightningtune check``, run as one and in this process."""

import json
import shutil
from pathlib import Path

import optuna
import pytest
from nets import Line, Points

from lightningtune import ConfigurationError, OptunaDrivenOptimizer
from lightningtune.cli.check import check_first
from lightningtune.cli.main import main
from lightningtune.cli.study_file import StudyFile
from lightningtune.files import dump_yaml

STUDY = {
    "model_class": "faults:Faulty",
    "datamodule_class": "nets:Points",
    "base_config": {"trainer": {"max_epochs": 5, "accelerator": "cpu"}},
    "search_space": {"width": ["categorical", [4]]},
    "metric": "val_loss",
    "study_name": "checked",
    "n_trials": 20,
}


@pytest.fixture
def check(tmp_path, monkeypatch, capfd):
    """Check a study file in this process; return the exit code, what was printed, and what was printed to stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, **changed):
        Path("study.yaml").write_text(dump_yaml({**STUDY, **changed}))
        capfd.readouterr()
        code = main(["check", "study.yaml", *arguments])
        return code, *capfd.readouterr()

    yield run
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]


def test_a_sound_study_is_told_of_and_leaves_nothing(check):
    code, out, err = check("--n_trials", "1")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "Study 'checked': minimize val_loss, 1 trial."
    assert lines[1].startswith("  Tried   2 runs of two batches in ")
    assert lines[-1] == "1 note."
    assert max(map(len, lines)) <= 80


def test_an_error_makes_the_exit_code_one_and_a_warning_does_not(check):
    code, out, _ = check("--metric", "val/loss")
    assert code == 1
    assert "  error    untuned defaults: The metric 'val/loss' was not logged. Logged:" in out
    code, out, _ = check("--metric", "val_acc")
    assert code == 0
    assert "  warning  'val_acc' is minimized: is that meant? See direction=." in out


def test_json_is_for_programs_even_where_nothing_could_be_tried(check):
    code, out, err = check("--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert {*report} == {"ok", "headline", "findings", "runs", "facts", "forecast", "seconds"}
    assert report["facts"]["Tried"].startswith("2 runs of two batches in ")
    assert [run["name"] for run in report["runs"]] == ["untuned defaults", "all low"]
    code, out, err = check("--json", search_space={"widht": ["categorical", [4]]})
    assert (code, err) == (1, "")
    report = json.loads(out)
    assert (report["ok"], report["runs"]) == (False, [])
    assert "Did you mean 'width'?" in report["findings"][0]["text"]
    code, out, err = check("--json", metrics="val_loss")
    assert (code, err) == (1, "")
    assert "Did you mean 'metric'?" in json.loads(out)["findings"][0]["text"]


def test_what_is_refused_before_a_run_is_one_line_on_stderr(check):
    code, out, err = check(search_space={"widht": ["categorical", [4]]})
    assert (code, out) == (1, "")
    assert err.startswith("lightningtune: ")
    assert err.count("\n") == 1


@pytest.mark.slow
def test_a_study_that_is_about_to_run_is_told_of_in_a_line_unless_something_is_found(tmp_path, capfd):
    def of(**changed):
        config = {"trainer": {"max_epochs": 2, "accelerator": "cpu"}}
        space = {"width": ("categorical", [4])}
        given = {"n_trials": 1, "experiment_dir": tmp_path, "verbose": False, "pruner": optuna.pruners.NopPruner()}
        return OptunaDrivenOptimizer(config, space, Line, Points, **given, **changed)

    asked_for = StudyFile(n_trials=1)
    check_first(of(), asked_for)
    assert capfd.readouterr().out == "Checked with 2 runs of two batches: no errors, no warnings.\n"
    check_first(of(metric="val_acc"), asked_for)
    assert "warning  'val_acc' is minimized" in capfd.readouterr().out
    with pytest.raises(ConfigurationError, match="since the check found errors. Skip it with --check false."):
        check_first(of(metric="val/loss"), asked_for, "--check false")
    assert "Did you mean 'val_loss'?" in capfd.readouterr().out
    assert [*tmp_path.iterdir()] == []

    of().optimize()
    check_first(of(), asked_for)
    assert capfd.readouterr().out == "", "a study that has its trials is not checked"
    check_first(of(), StudyFile(n_trials=2))
    assert "Checked with" in capfd.readouterr().out


@pytest.mark.slow
def test_what_is_good_to_know_is_told_of_before_a_study_too(check, capfd):
    check()
    capfd.readouterr()
    assert main(["tune", "study.yaml", "--n_trials", "2", "--isolate", "false", "--verbose", "false"]) == 0
    line, *notes = capfd.readouterr().out.splitlines()
    assert line == "Checked with 2 runs of two batches: no errors, no warnings."
    assert notes[0] == "  note     The space has 1 point, fewer than the 2 trials."
    assert " ".join(notes[1].split()[:5]) == "note MedianPruner prunes nothing in"
    assert main(["tune", "study.yaml", "--n_trials", "3", "--isolate", "false", "--direction", "maximize",
                 "--study_name", "other"]) == 0  # fmt: skip
    assert capfd.readouterr().out.count("is maximized: is that meant?") == 1, "the check has said it"
    shutil.rmtree("lightningtune_runs")
