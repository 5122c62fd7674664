"""Each example runs as a user runs it, only smaller, and does what it says."""

import csv
import re
import runpy
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml
from fashion_files import write_fashion_files
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from lightningtune.training.process_state import quiet_lightning

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run an example as a script in this process; return what it printed."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)

    def run(name, *options, n_trials):
        script = EXAMPLES / f"{name}.py"
        arguments = ["--n_trials", str(n_trials), "--experiment_dir", str(tmp_path), *options]
        monkeypatch.setattr(sys, "argv", [str(script), *arguments])
        runpy.run_path(str(script), run_name="__main__")
        return capsys.readouterr().out

    return run


def study_of(journal):
    return optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend(str(journal))))


def config_of(folder):
    return yaml.safe_load((folder / "config.yaml").read_text())


def assert_finished(folder, n_trials):
    """Assert that a facade's study has that many trials, a baseline first, and a winner; return it."""
    study = study_of(folder / "journal.log")
    assert [trial.state for trial in study.trials if not trial.state.is_finished()] == []
    assert len(study.trials) == len(list((folder / "trials").iterdir())) == n_trials
    assert not [trial for trial in study.trials if trial.state is TrialState.FAIL]
    assert study.trials[0].user_attrs["lightningtune:baseline"] is True
    return study


def test_every_example_is_tested():
    scripts = {path.stem for path in EXAMPLES.glob("*.py")} - {"digits"}
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert scripts <= tested


@pytest.mark.slow
def test_quickstart(run, tmp_path):
    out = run("quickstart", n_trials=3)
    study = assert_finished(tmp_path / "quickstart", 3)
    assert study.trials[0].params == {"lr": 1e-3, "hidden": 64, "dropout": 0.0, "optimizer": "adam"}
    assert f"Best: trial {study.best_trial.number}  val_acc = {study.best_value:.6g}" in out
    assert f"Untuned defaults: val_acc = {study.trials[0].value:.6g}" in out
    for line in re.findall(r"^(?:Config|Checkpoint): +(.+)$", out, re.MULTILINE):
        assert Path(line).is_file()

    python, *again = re.search(r"Next, go on from here:  (.+)", out)[1].split()
    assert Path(python).resolve() == Path(sys.executable).resolve()
    assert again[0] == str(EXAMPLES / "quickstart.py")
    assert again[-2:] == ["--n_trials", "33"]
    assert "going on after 3" in run("quickstart", *again[1:-2], n_trials=5)
    assert_finished(tmp_path / "quickstart", 5)


@pytest.mark.slow
def test_decorator(run, tmp_path):
    out = run("decorator", n_trials=3)
    study = assert_finished(tmp_path / "decorator", 3)
    for trial in study.trials:
        assert trial.params.keys() == {"lr", "hidden", "dropout", "batch_size"}
        assert trial.params["hidden"] in (32, 64, 128), "the subclass's own range"
    assert f"batch_size={study.best_params['batch_size']}" in out
    assert "Linear(in_features=64, out_features=512" in out, "a fixed argument wins over the trial"


@pytest.mark.slow
def test_callback(run, tmp_path):
    out = run("callback", n_trials=10)
    study = study_of(tmp_path / "callback.log")
    states = [trial.state for trial in study.trials]
    pruned = states.count(TrialState.PRUNED)
    assert pruned + states.count(TrialState.COMPLETE) == len(states) == 10
    assert 0 < pruned < 10
    assert f"10 trials, {pruned} of them pruned" in out
    assert out.count("pruned by SuccessiveHalvingPruner with") == pruned
    best = study.best_trial
    assert best.value == max(best.intermediate_values.values()), "the score is the best value, not the last"


@pytest.mark.slow
def test_config_driven(run, tmp_path):
    out = run("config_driven", n_trials=4)
    study = assert_finished(tmp_path / "config_driven", 4)
    printed = yaml.safe_load(out[out.index("seed_everything:") :])
    assert printed == config_of(tmp_path / "config_driven" / "best")
    for trial in study.trials:
        config = config_of(tmp_path / "config_driven" / "trials" / f"{trial.number:04d}")
        parts = config["model"]["init_args"]
        width = trial.params["width"]
        assert parts["body"]["init_args"]["width"] == parts["head"]["init_args"]["in_features"] == width
        assert parts["optimizer"]["init_args"]["lr"] == trial.params["model.optimizer.lr"]
        assert parts["optimizer"]["class_path"].endswith(trial.params["model.optimizer"].partition("(")[0])
        assert config["trainer"]["callbacks"][0]["class_path"].endswith("EarlyStopping")


@pytest.mark.slow
def test_config_driven_runs_from_anywhere(tmp_path):
    arguments = ["--n_trials", "2", "--experiment_dir", "here"]
    script = [sys.executable, str(EXAMPLES / "config_driven.py"), *arguments]
    subprocess.run(script, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    assert_finished(tmp_path / "here" / "config_driven", 2)


@pytest.mark.slow
def test_conditional_space(run, tmp_path):
    out = run("conditional_space", n_trials=6)
    study = assert_finished(tmp_path / "conditional_space", 6)
    for trial in study.trials:
        widths = [trial.params[f"width_{i}"] for i in range(trial.params["n_layers"])]
        own = {"SGD": "momentum", "AdamW": "weight_decay"}[trial.params["optimizer"]]
        common = {"n_layers", "optimizer", "lr", *(f"width_{i}" for i in range(len(widths)))}
        assert trial.params.keys() == {own, *common}
        model = config_of(tmp_path / "conditional_space" / "trials" / f"{trial.number:04d}")["model"]
        assert model["widths"] == widths
        assert model["optimizer_args"].keys() == {"lr", own}
    assert out.count("Linear(") == study.best_params["n_layers"] + 1


@pytest.mark.slow
def test_multi_objective(run, tmp_path):
    out = run("multi_objective", n_trials=5)
    study = assert_finished(tmp_path / "multi_objective", 5)
    table = out[out.index("The Pareto front") :].splitlines()[2:]
    rows = [(float(accuracy), int(size.replace(",", ""))) for accuracy, size, *_ in map(str.split, table)]
    assert sorted(rows) == rows, "what costs more is better"
    assert len({size for _, size in rows}) == len(rows) <= len(study.best_trials)
    for trial in study.trials:
        assert trial.values[1] == 64 * trial.params["hidden"] + 11 * trial.params["hidden"] + 10


@pytest.mark.slow
def test_fashion_mnist(run, tmp_path):
    write_fashion_files(tmp_path / "data", n_train=600, n_test=100)
    out = run("fashion_mnist", "--data_dir", str(tmp_path / "data"), "--no_download", n_trials=3)
    assert_finished(tmp_path / "fashion_mnist", 3)
    accuracy = re.search(r"The best model on 100 test images: (\S+) accuracy", out)
    assert 0.15 < float(accuracy[1]) <= 1.0, "better than guessing one of ten"


@pytest.mark.slow
def test_lightning_cli(run, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES / "lightning_cli")
    out = run("lightning_cli/tune_from_script", n_trials=3)
    study = assert_finished(tmp_path / "lightning_cli", 3)
    assert study.trials[0].params["optimizer.class_path"] == "torch.optim.Adam"
    script, *arguments = re.search(r"python (.+)", out)[1].split()
    logger = ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", str(tmp_path / "logs")]
    monkeypatch.setattr(sys, "argv", [script, *arguments, *logger, "--trainer.enable_progress_bar", "false"])
    with quiet_lightning():
        runpy.run_path(script, run_name="__main__")
    (metrics,) = (tmp_path / "logs").rglob("metrics.csv")
    with metrics.open() as file:
        values = [float(row["val_acc"]) for row in csv.DictReader(file) if row["val_acc"]]
    assert max(values) == study.best_value, "the best config gives the same score with the same seed"
    sys.modules.pop("train")


def test_fashion_mnist_says_what_to_do_without_data(run, tmp_path):
    with pytest.raises(SystemExit, match=r"without --no_download.*FashionMNIST/raw"):
        run("fashion_mnist", "--data_dir", str(tmp_path / "nowhere"), "--no_download", n_trials=1)
