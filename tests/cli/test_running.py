"""``tune``, from one file; ``resume`` and ``worker``, without it and from elsewhere; and ``pause``."""

import csv
import dataclasses
import json
import logging
import os
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightningtune.cli.main import main
from lightningtune.cli.start import get_exit_code, read_start
from lightningtune.cli.study_file import StudyFile, descriptions, is_tuned
from lightningtune.files import dump_yaml, load_yaml
from lightningtune.study import storage as storages
from lightningtune.study.changes import SUBJECT
from lightningtune.study.finding import find_study
from lightningtune.study.liveness import PAUSE
from lightningtune.study.reporter import STUDY_FILE

COMMAND = str(Path(sysconfig.get_path("scripts"), "lightningtune"))
PAGE = (Path(__file__).parents[2] / "docs" / "command_line.md").read_text()
STUDY = {
    "model_class": "nets.Line",
    "datamodule_class": "nets.Points",
    "base_config": {"trainer": {"max_epochs": 1, "accelerator": "cpu"}},
    "search_space": {"lr": {"type": "loguniform", "low": 1e-4, "high": 1e-1}},
    "n_trials": 2,
    "verbose": False,
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("study.yaml").write_text(dump_yaml(STUDY))
    return tmp_path


def here(*line):
    """Run in this process, trials too."""
    return main(["tune", *line, "--check=false", "--isolate=false"])


def trials(name="study"):
    return find_study(name, None).study.trials


def test_a_study_runs_goes_on_and_is_extended():
    assert here("study.yaml") == 0
    assert here("study.yaml") == 0
    assert len(trials()) == 2
    assert here("study.yaml", "--n_trials", "3") == 0
    assert [trial.number for trial in trials()] == [0, 1, 2]
    assert main(["resume", "study", "--n_trials", "4"]) == 0
    assert len(trials()) == 4


def test_what_a_study_has_written_down_is_no_study_file(capsys):
    assert here("study.yaml", "--n_trials", "1") == 0
    assert main(["tune", "lightningtune_runs/study/study.yaml"]) == 1
    assert capsys.readouterr().err == (
        "lightningtune: 'lightningtune_runs/study/study.yaml' is what study 'study' has written down: "
        "'lightningtune resume study' goes on with it.\n"
    )


def test_values_of_the_command_line_reach_the_trials():
    line = ["--study_name", "other", "--trainer.max_epochs", "2", "--model.width=2", "--data.batch_size", "4"]
    line += ["--search_space.lr.low", "0.05", "--sampler.seed", "1", "--baseline", "false"]
    assert here("study.yaml", *line) == 0
    found = trials("other")
    assert [len(trial.intermediate_values) for trial in found] == [2, 2]
    assert all(trial.params["lr"] >= 0.05 for trial in found)
    config = load_yaml(Path("lightningtune_runs/other/best/config.yaml").read_text())
    assert (config["model"]["width"], config["data"]["batch_size"]) == (2, 4)


def test_all_can_stand_on_the_command_line():
    Path("config.yaml").write_text(dump_yaml(STUDY["base_config"]))
    Path("space.yaml").write_text(dump_yaml(STUDY["search_space"]))
    line = ["--config", "config.yaml", "--space", "space.yaml", "--model_class", "nets.Line", "--verbose", "false"]
    assert here(*line, "--datamodule_class", "nets:Points", "--n_trials", "1") == 0
    assert len(trials("optuna_study")) == 1


def test_the_whole_study_is_printed_and_runs_as_it_is(capsys):
    line = ["study.yaml", "--trainer.max_epochs", "2", "--sampler", "RandomSampler"]
    assert main(["tune", *line, "--print_config"]) == 0
    printed = capsys.readouterr().out
    assert load_yaml(printed)["base_config"]["trainer"]["max_epochs"] == 2
    assert load_yaml(printed)["non_finite"] == "prune"
    assert not Path("lightningtune_runs").exists()
    Path("whole.yaml").write_text(printed)
    assert main(["tune", "whole.yaml", "--print_config"]) == 0
    assert capsys.readouterr().out == printed
    assert here("whole.yaml") == 0


def test_a_study_without_a_result_is_a_failure():
    assert here("study.yaml", "--model.explode_at", "-1", "--max_failures", "9") == 1
    assert {trial.state.name for trial in trials()} == {"FAIL"}


def test_a_value_that_is_tuned_too_is_told_of(capsys):
    assert main(["tune", "study.yaml", "--print_config", "--model.lr", "0.1", "--model.width", "3"]) == 0
    said = capsys.readouterr().err
    assert said == "lightningtune tune: 'model.lr' is tuned: 0.1 is that of the untuned defaults only.\n"
    space = {"width": {"type": "int", "low": 1, "high": 2, "paths": ["model.init_args.a.width"]}}
    assert is_tuned(StudyFile(search_space=space), "model.a.init_args.width")
    assert not is_tuned(StudyFile(search_space=space), "model.width")
    assert not is_tuned(StudyFile(search_space="own.space"), "model.width")


def test_a_value_that_does_not_fit_is_refused_where_it_is_tuned_too(capsys):
    assert here("study.yaml", "--model.lr", "high") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        "lightningtune: 'lr'='high' in the config does not fit. The config is not valid. model.lr: expected float, but "
        "got high."
    )
    assert not Path("lightningtune_runs").exists()


def test_an_argument_of_a_cli_at_its_top_is_none_of_the_model():
    space = {"depth": ["int", 1, 2]}
    assert is_tuned(StudyFile(search_space=space), "model.depth")
    assert not is_tuned(StudyFile(search_space=space, cli="train.py"), "model.depth")
    assert is_tuned(StudyFile(search_space=space, cli="train.py"), "depth")


def test_a_study_that_has_its_trials_stays_as_it_was_asked_for(capsys):
    assert here("study.yaml", "--n_trials", "1") == 0
    before = read_start(find_study("study").study), Path("lightningtune_runs/study/study.yaml").read_bytes()
    assert here("study.yaml", "--n_trials", "1", "--model.explode_at", "-1") == 0
    assert (read_start(find_study("study").study), Path("lightningtune_runs/study/study.yaml").read_bytes()) == before


def test_the_check_comes_before_and_keeps_a_study_from_being_made(capsys):
    assert main(["tune", "study.yaml", "--metric", "val_los", "--isolate=false"]) == 1
    captured = capsys.readouterr()
    assert "Did you mean 'val_loss'?" in captured.out
    assert captured.err == (
        "lightningtune: The study was not begun, since the check found errors. Skip it with --check false.\n"
    )
    assert not Path("lightningtune_runs").exists()


def test_neither_help_nor_printing_imports_torch_or_optuna():
    code = (
        "import sys; from lightningtune.cli.main import main\n"
        "for line in (['--help'], ['tune', '--help'], ['init', '--help'], ['tune', 'study.yaml', '--print_config']):\n"
        "    main(line)\n"
        "print(sorted({'torch', 'lightning', 'optuna', 'jsonargparse'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_the_command_as_it_is_used(folder):
    """Checks, isolates, and ends softly at Ctrl-C; what is found lies in the study file's folder too."""
    parts = folder / "parts"
    parts.mkdir()
    (parts / "train.py").write_text(
        "import os\nfrom nets import Line, Points\n"
        "class Net(Line):\n"
        "    def on_validation_epoch_end(self):\n"
        "        self.log('pid', float(os.getpid()))\n"
        "if __name__ == '__main__':\n    raise RuntimeError\n"
    )
    changes = {"model_class": "train.py:Net", "datamodule_class": "train:Points", "n_trials": 1000, "verbose": True}
    (parts / "own.yaml").write_text(dump_yaml({**STUDY, **changes}))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONUNBUFFERED": "1"}
    line = [COMMAND, "tune", "parts/own.yaml", "--seed", "1"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as running:
        said = ""
        while not re.search(r"^ +2 .*complete", said, re.MULTILINE):
            read = running.stdout.readline()
            assert read, (said, running.stderr.read())
            said += read
        running.send_signal(signal.SIGINT)
        said += running.stdout.read()
    assert running.returncode == 130
    assert "Interrupted." in said
    finished = [trial for trial in trials("own") if trial.state.name == "COMPLETE"]
    assert len(finished) >= 3
    pids = [
        [float(row["pid"]) for row in csv.DictReader(path.read_text().splitlines()) if row["pid"]][-1]
        for path in Path("lightningtune_runs/own/trials").glob("000[012]/metrics.csv")
    ]
    assert len({*pids, float(running.pid)}) == 4


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_says_of_each_value_what_the_docstring_says():
    rows = re.findall(r"^\| `--(\w+)` \| (.*) \| (.*) \|$", PAGE, re.MULTILINE)
    assert {name: text for name, text, _ in rows} == dict(descriptions())
    defaults = {field.name: field.default for field in dataclasses.fields(StudyFile)}
    for name, _, shown in rows:
        assert shown.strip("`") == ("" if defaults[name] is None else dump_yaml(defaults[name]).split("\n")[0]), name


@pytest.mark.slow
def test_the_page_runs(monkeypatch, capsys):
    Path("study.yaml").unlink()
    monkeypatch.delitem(sys.modules, "train", raising=False)
    Path("train.py").write_text(blocks("python")[0])
    lines = [line.removeprefix("lightningtune ").split() for line in "".join(blocks("console")[:2]).splitlines()]
    assert [line[0] for line in lines] == ["init", "tune", "tune"]
    assert main(lines[0]) == 0
    space, whole = blocks("yaml")[:2]
    assert space in Path("study.yaml").read_text()
    fewer = ["--n_trials=2", "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--verbose=false"]
    for line in lines[1:]:
        assert here(*line[1:], *fewer) == 0
    assert all(trial.params["model.lr"] <= 0.1 for trial in trials())
    Path("page.yaml").write_text(whole)
    assert here("page.yaml", *fewer) == 0
    assert trials("page")[0].params == {"model.lr": 1e-3, "model.hidden": 64}
    sys.modules.pop("train", None)


BEGAN = {
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
    (home / "digits.yaml").write_text(dump_yaml({**BEGAN, **request.param}))
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
    study = {**BEGAN, "search_space": {"lr": ["categorical", [0.1, 0.2]]}, "study_name": "digits"}
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


def test_a_study_is_asked_to_pause(studies, capsys):
    assert main(["pause", "digits"]) == 0
    assert capsys.readouterr().out == "Study 'digits' is asked to pause: none of its trials runs now.\n"
    study = find_study("digits").study
    assert study.user_attrs[PAUSE]
    study.ask()
    assert main(["pause", "digits"]) == 0
    said = capsys.readouterr().out
    assert said == "Study 'digits' is asked to pause: 1 running end at their next validation.\n"
    assert main(["pause", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"study_name": "digits", "running": 1}
