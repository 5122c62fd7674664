"""What a host says of the trials that it gives out again."""

import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from lightningtune.contract import StopReason, TrialOutcome
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.liveness import claim
from lightningtune.study.opening import open_study
from lightningtune.study.recovery import Recovery
from lightningtune.study.reporter import record_outcome
from lightningtune.study.storage import open_storage
from lightningtune.study.succession import requeue

BESIDE = """
import sys, time
from pathlib import Path
import optuna
from lightningtune.study.liveness import ProcessMonitor, claim
from lightningtune.study.storage import open_storage

study = optuna.load_study(study_name="s", storage=open_storage(None, Path(sys.argv[1])))
ProcessMonitor(study).rescue()
claim(study.ask())
print("claimed", flush=True)
time.sleep(600)
"""


@pytest.fixture
def study():
    sampler = optuna.samplers.RandomSampler()
    return open_study("s", optuna.storages.InMemoryStorage(), ["minimize"], ["val_loss"], True, sampler, None, 1)


def cut_short(study, reason=StopReason.KILLED):
    trial = study.ask()
    claim(trial)
    record_outcome(trial, TrialOutcome(reason, "why"))
    return study.tell(trial, state=TrialState.FAIL)


def recover(study, directory, n_trials=5):
    told = []
    return Recovery(study, StudyDirectory(directory), n_trials, told.append), told


@pytest.mark.parametrize("reason", [StopReason.KILLED, StopReason.INTERRUPTED])
def test_a_trial_that_an_earlier_run_left_is_told_of(study, tmp_path, reason):
    cut_short(study, reason)
    recovery, told = recover(study, tmp_path)
    recovery.begin()
    assert told == ["Trial 0 was cut short; trial 1 starts afresh with its parameters."]


def test_a_trial_with_a_checkpoint_goes_on_from_it(study, tmp_path):
    checkpoint = tmp_path / "trials/0000/last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    again, told = recover(study, tmp_path)
    tell = again.requeue(cut_short(study))
    assert told == []
    tell()
    assert told == ["Trial 0 was cut short; trial 1 goes on from its checkpoint."]
    assert again.find_checkpoint(1) == checkpoint


def test_a_trial_of_a_study_that_is_full_waits(study, tmp_path):
    cut_short(study)
    study.add_trial(optuna.create_trial(value=1.0))
    recovery, told = recover(study, tmp_path, n_trials=1)
    recovery.begin()
    assert told == ["Trial 0 was cut short; trial 2 waits, for the study has its 1 trials."]


@pytest.mark.skipif(sys.platform != "linux", reason="a killed process is noticed by /proc")
def test_a_host_that_dies_beside_this_one_is_noticed_by_the_next_look(tmp_path):
    journal = tmp_path / "journal.log"
    sampler = optuna.samplers.RandomSampler()
    study = open_study("s", open_storage(None, journal), ["minimize"], ["val_loss"], True, sampler, None, 1)
    recovery, told = recover(study, tmp_path)
    recovery.begin()
    command = [sys.executable, "-c", BESIDE, str(journal)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as other:
        assert other.stdout.readline() == "claimed\n"
        recovery.look()
        assert told == []
        other.kill()
    recovery.look()
    recovery.look()
    assert told == ["Trial 0 was cut short; trial 1 starts afresh with its parameters."]


def test_what_is_interrupted_now_waits_for_the_next_run(study, tmp_path):
    recovery, told = recover(study, tmp_path)
    recovery.begin()
    recovery.requeue(cut_short(study, StopReason.INTERRUPTED))()
    recovery.look()
    assert (told, len(study.trials)) == ([], 1)


def test_one_that_failed_by_itself_is_not_given_out_again(study, tmp_path):
    recovery, told = recover(study, tmp_path)
    recovery.requeue(cut_short(study, StopReason.FAILED))()
    assert told == []
    assert len(study.trials) == 1


def test_a_trial_that_is_given_up_is_told_of_once(study, tmp_path):
    recovery, told = recover(study, tmp_path)
    for number in range(3):
        trial = cut_short(study)
        recovery.write_error(number, "killed by SIGKILL")  # as the host does
        recovery.requeue(trial)()
    text = "Trial 2 was cut short too often without getting further, and is given up."
    assert told[-1] == text
    recovery.look()
    recovery.begin()
    assert told.count(text) == 1
    assert recovery.read_config(2) is None


def test_a_trial_that_its_host_gave_up_on_is_told_of_by_the_next_once_whatever_its_folder_takes(study, tmp_path):
    for _ in range(3):
        requeue(study, cut_short(study).number)
    (tmp_path / "trials").touch()  # nothing can be written there
    recovery, told = recover(study, tmp_path)
    recovery.begin()
    recovery.look()
    assert [line for line in told if "given up" in line] == [
        "Trial 2 was cut short too often without getting further, and is given up."
    ]


def test_a_storage_that_is_away_is_looked_at_again(study, tmp_path, monkeypatch, caplog):
    recovery, told = recover(study, tmp_path)
    recovery.begin()

    class Away(type(study)):
        def get_trials(self, *args, **kwargs):
            raise OSError(5, "away")

    monkeypatch.setattr(study, "__class__", Away)
    recovery.look()
    monkeypatch.undo()
    assert "The study's other hosts could not be looked after: [Errno 5] away" in caplog.text
    recovery.look()
    assert told == []
