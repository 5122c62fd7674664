"""A study whose host or whose trial is killed at any moment ends as one that was left alone."""

import dataclasses
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import lightning as L
import optuna
import pytest
from nets import Line, Points

from lightningtune import OptunaDrivenOptimizer
from lightningtune.cli.main import main
from lightningtune.study.finding import find_study
from lightningtune.study.identity import WORKER, Worker
from lightningtune.study.liveness import heartbeat_name, pause
from lightningtune.study.succession import ATTEMPT, ATTEMPTS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs fifos, and /proc")]

EPOCHS = 8
SCRIPT = """
    import contextlib, os, sys
    import lightning as L
    from lightningtune import OptunaDrivenOptimizer
    from nets import Line, Points

    class Tell(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 5 and sys.argv[2:]:
                with contextlib.suppress(OSError):  # the other trial has told it
                    os.write(os.open("told", os.O_WRONLY | os.O_NONBLOCK), b"epoch")
                while sys.argv[2] == "stops":
                    signal.pause()
                open("go_on").close()

    import signal
    OptunaDrivenOptimizer(
        {"trainer": {"max_epochs": 8, "accelerator": "cpu"}}, {"lr": ("loguniform", 1e-3, 1.0)}, Line, Points,
        n_trials=3, n_jobs=int(sys.argv[1]), experiment_dir="runs", seed=0, callbacks=[Tell()],
        verbose=sys.argv[2:] == ["waits"],
    ).optimize()
"""


def start(folder, *arguments, **options):
    (folder / "script.py").write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    return subprocess.Popen([sys.executable, "script.py", *arguments], cwd=folder, env=environment, **options)


def ends(folder):
    """Return what each training of a study has come to, by its parameter: its score and its curve."""
    journal = optuna.storages.journal.JournalFileBackend(str(folder / "runs/optuna_study/journal.log"))
    study = optuna.load_study(study_name="optuna_study", storage=optuna.storages.JournalStorage(journal))
    assert not [trial for trial in study.trials if not trial.state.is_finished()]
    return study, {t.params["lr"]: (t.value, t.intermediate_values) for t in study.trials if t.state.name == "COMPLETE"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert start(folder, "1").wait() == 0
    return ends(folder)[1]


def test_a_study_whose_host_is_killed_goes_on_as_if_it_had_not_been(tmp_path, undisturbed):
    """With several jobs, see `test_chaos` and `test_storages`."""
    os.mkfifo(tmp_path / "told")
    with start(tmp_path, "1", "stops") as process:
        with (tmp_path / "told").open() as told:
            assert told.read(5) == "epoch"
        process.kill()
    assert start(tmp_path, "1").wait() == 0
    study, found = ends(tmp_path)
    assert {lr: len(curve) for lr, (_, curve) in found.items()} == dict.fromkeys(found, EPOCHS)
    assert len(found) == 3
    same = [lr for lr in found if lr in undisturbed]  # a sampler that goes on has another seed
    assert same
    assert [found[lr] for lr in same] == [undisturbed[lr] for lr in same]
    assert len(study.trials) == 4
    assert study.trials[0].user_attrs["lightningtune:reason"] == "killed"


def test_a_study_that_is_paused_goes_on_elsewhere_from_its_folder(tmp_path, undisturbed):
    os.mkfifo(tmp_path / "told")
    os.mkfifo(tmp_path / "go_on")
    with start(tmp_path, "2", "waits", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        with (tmp_path / "told").open() as told:
            assert told.read(5) == "epoch"
            assert main(["pause", str(tmp_path / "runs" / "optuna_study")]) == 0
            assert any(line.startswith("Paused: running trials end") for line in process.stderr)
        with (tmp_path / "go_on").open("w"):
            printed = process.stdout.read()
    assert process.returncode == 0
    assert "0 of 3 trials are done; run again to go on." in printed
    study = ends(tmp_path)[0]
    assert {trial.user_attrs["lightningtune:reason"] for trial in study.trials} == {"interrupted"}
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs").rename(tmp_path / "elsewhere" / "runs")
    assert start(tmp_path / "elsewhere", "2").wait() == 0
    study, found = ends(tmp_path / "elsewhere")
    assert {lr: [*curve] for lr, (_, curve) in found.items()} == {lr: [*range(EPOCHS)] for lr in found}
    assert len(found) == 3
    assert len(study.trials) == 5
    same = [lr for lr in found if lr in undisturbed]  # with two at a time, the sampler knows less
    assert same
    assert [found[lr] for lr in same] == [undisturbed[lr] for lr in same]


class Pauses(L.Callback):
    """Asks for a pause in the first trial's second epoch; its training never ends otherwise."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            pause(find_study(str(self.folder)).study)


@pytest.mark.parametrize("isolate", [False, True])
def test_a_pause_ends_nothing_but_the_trial_whatever_is_caught(tmp_path, isolate):
    optimizer = OptunaDrivenOptimizer(
        {"trainer": {"max_epochs": -1, "accelerator": "cpu"}},
        {"lr": ("loguniform", 1e-3, 1.0)},
        Line,
        Points,
        n_trials=2,
        isolate=isolate,
        catch=(),
        callbacks=[Pauses(tmp_path / "optuna_study")],
        experiment_dir=tmp_path,
        verbose=False,
    )
    study = optimizer.optimize()
    assert [trial.user_attrs["lightningtune:reason"] for trial in study.trials] == ["interrupted"]
    assert study.trials[0].user_attrs["lightningtune:detail"].endswith("the study was paused")


def short(folder, **changed):
    given = {"model_class": Line, "datamodule_class": Points, "experiment_dir": folder, "seed": 0, "verbose": False}
    given["search_space"] = {"lr": ("loguniform", 1e-3, 1.0)}
    return OptunaDrivenOptimizer({"trainer": {"max_epochs": 1, "accelerator": "cpu"}}, **{**given, **changed})


@pytest.mark.parametrize("sampler", [None, optuna.samplers.RandomSampler])
def test_a_second_host_does_not_repeat_the_points_of_the_first(tmp_path, sampler):
    def points(name, worker):
        own = None if sampler is None else sampler(seed=1)
        optimizer = short(tmp_path, study_name=name, n_trials=3, sampler=own)
        study = optimizer.study
        study.set_user_attr(heartbeat_name(worker), {**dataclasses.asdict(worker), "word": "here"})
        return [trial.params["lr"] for trial in optimizer.optimize().trials]

    here = points("here", Worker.this())
    assert points("alone", Worker.this()) == here
    assert not {*points("beside", Worker.of(os.getppid()))[1:]} & {*here[1:]}


def test_a_trial_whose_host_dies_each_time_is_given_up_and_that_is_said(tmp_path, capsys):
    optimizer = short(tmp_path, n_trials=2, verbose=True)
    study = optimizer.study
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        worker = Worker.of(process.pid)
    study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING, user_attrs={ATTEMPT: ATTEMPTS}))
    study.ask().set_user_attr(WORKER, dataclasses.asdict(worker))
    assert [trial.state.name for trial in optimizer.optimize().trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    said = "Trial 0 was cut short too often without getting further, and is given up."
    assert said in " ".join(capsys.readouterr().out.split())
    assert (optimizer.directory / "trials/0000/error.txt").read_text() == said
    short(tmp_path, n_trials=2, verbose=True).optimize()
    assert said not in " ".join(capsys.readouterr().out.split())


def test_a_trial_is_recorded_where_its_error_cannot_be_written(tmp_path):
    optimizer = short(tmp_path, n_trials=2, search_space={"lr": ("uniform", 10.0, 20.0)}, isolate=True, baseline=False)
    (optimizer.directory / "trials" / "0000" / "error.txt" / "in the way").mkdir(parents=True)
    assert [trial.state.name for trial in optimizer.optimize().trials] == ["FAIL", "FAIL"]
    assert (optimizer.directory / "trials/0001/error.txt").is_file()
