"""The folder of a study is as its trials say: what a killed host has left goes, and nothing that is still needed."""

import optuna
import pytest
from optuna.trial import TrialState

from lightningtune.contract import StopReason, TrialOutcome
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.liveness import claim
from lightningtune.study.reporter import record_outcome
from lightningtune.study.succession import requeue
from lightningtune.study.tally import TrialTally
from lightningtune.study.upkeep import FolderUpkeep

FILES = ("best.ckpt", "last.ckpt", ".config.yaml.7.tmp", "config.yaml")


@pytest.fixture
def study():
    return optuna.create_study()


@pytest.fixture
def directory(tmp_path):
    return StudyDirectory(tmp_path)


def drop_leftovers(study, directory):
    FolderUpkeep(study, directory, TrialTally(study), top_k=1).drop_leftovers()


def begun(study, directory):
    trial = study.ask()
    claim(trial)
    directory.trial(trial.number).mkdir(parents=True)
    for name in FILES:
        (directory.trial(trial.number) / name).write_text(name)
    return trial


def left(directory, number):
    return {path.name for path in directory.trial(number).iterdir()}


def test_of_what_has_ended_only_the_weights_of_the_best_stay(study, directory):
    for value in (2.0, 1.0):
        study.tell(begun(study, directory), value)
    study.tell(begun(study, directory), state=TrialState.PRUNED)
    drop_leftovers(study, directory)
    assert left(directory, 0) == {"config.yaml"}
    assert left(directory, 1) == {"best.ckpt", "config.yaml", ".config.yaml.7.tmp"}
    assert left(directory, 2) == {"config.yaml"}


def test_what_runs_or_waits_to_go_on_keeps_all_it_has(study, directory):
    cut = begun(study, directory)
    record_outcome(cut, TrialOutcome(StopReason.KILLED, "killed"))
    study.tell(cut, state=TrialState.FAIL)
    requeue(study, cut.number)
    assert study.ask().number == 1
    running = begun(study, directory)
    drop_leftovers(study, directory)
    assert left(directory, cut.number) == left(directory, running.number) == {*FILES}


def test_folders_that_are_no_trials_of_the_study_are_left_alone(study, directory):
    for name in ("mine", "0099"):
        (directory.root / "trials" / name).mkdir(parents=True)
        (directory.root / "trials" / name / "best.ckpt").touch()
    drop_leftovers(study, directory)
    assert len([*directory.root.rglob("best.ckpt")]) == 2


def test_what_a_killed_host_has_left_of_the_report_goes(study, directory):
    names = {"report.html", ".report.html.7.tmp", "journal.log"}
    for name in names:
        (directory.root / name).write_text(name)
    drop_leftovers(study, directory)
    assert {path.name for path in directory.root.iterdir()} == names - {".report.html.7.tmp"}
