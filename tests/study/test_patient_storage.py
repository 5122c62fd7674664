"""A storage that is away for a while, and what it is asked meanwhile."""

import contextlib
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import lightning as L
import nets
import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import InMemoryStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import TrialState

from lightningtune import OptunaDrivenOptimizer
from lightningtune.study.reporter import OptunaReporter
from lightningtune.study.storage import PatientStorage, open_storage, stop_waiting


class Line(InMemoryStorage):
    """A storage behind a line that is cut: at the next calls it does nothing, or does it and loses the answer."""

    def __init__(self):
        super().__init__()
        self.cuts = []

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        is_call = name.startswith(("set_trial", "set_study", "create_", "delete_", "get_trial", "get_all"))
        if not is_call or not self.cuts:
            return found

        def call(*args, **kwargs):
            cut = self.cuts.pop(0)
            cuts, self.cuts = self.cuts, []
            try:
                if cut == "answer":
                    found(*args, **kwargs)
            finally:
                self.cuts = cuts
            raise ConnectionResetError("the line is cut")

        return call


@pytest.fixture
def line():
    return Line()


def study_on(line, **kwargs):
    return optuna.create_study(storage=PatientStorage(line, **kwargs), study_name="s")


@pytest.mark.parametrize("cut", ["question", "answer"])
def test_nothing_is_written_twice(line, cut):
    storage = PatientStorage(line)
    line.cuts = [cut]
    study = optuna.create_study(storage=storage, study_name="s")
    assert len(optuna.get_all_study_names(storage)) == 1
    study.enqueue_trial({"x": 0.5})
    line.cuts = [cut]
    study.enqueue_trial({"x": 0.7})
    assert len(study.trials) == 2
    trials = []
    for _ in range(3):
        trial = study.ask()
        trials.append(trial)
        line.cuts = [cut]
        trial.suggest_float("x", 0, 1)
        line.cuts = [cut]
        trial.set_user_attr("a", 1)
        line.cuts = [cut]
        trial.report(0.25, 0)
    line.cuts = [cut]
    storage.set_trial_state_values(trials[0]._trial_id, TrialState.COMPLETE, [0.5])
    line.cuts = [cut]
    extra = storage.create_new_trial(study._study_id)
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3]
    assert storage.get_trial(extra).number == 3
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] + ["RUNNING"] * 3
    assert study.trials[0].value == 0.5
    assert {trial.params["x"] for trial in study.trials[:2]} == {0.5, 0.7}
    line.cuts = [cut]
    optuna.delete_study(study_name="s", storage=storage)
    assert not optuna.get_all_study_names(storage)


def test_a_waiting_trial_whose_taking_was_not_answered_is_taken(line):
    study = study_on(line)
    study.enqueue_trial({"x": 0.5})
    trial_id = study.trials[0]._trial_id
    line.cuts = ["answer"]
    assert study._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
    assert not study._storage.set_trial_state_values(trial_id, TrialState.RUNNING)


def test_a_trial_that_another_has_ended_is_not_taken_for_ones_own(line):
    study = study_on(line)
    trial = study.ask()
    line.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    line.cuts = ["question"]
    with pytest.raises(UpdateFinishedTrialError):
        study._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])


def test_a_study_of_that_name_that_is_another_is_told_of(line):
    study_on(line)
    with pytest.raises(optuna.exceptions.DuplicatedStudyError):
        study_on(line)
    line.cuts = ["question"]
    with pytest.raises(optuna.exceptions.DuplicatedStudyError):
        optuna.create_study(storage=PatientStorage(line), study_name="s", direction="maximize")


def test_after_the_patience_the_storages_own_error_is_raised(line):
    study = study_on(line, outage_seconds=0.2)
    line.cuts = ["question"] * 1000
    begun = time.monotonic()
    with pytest.raises(ConnectionResetError, match="the line is cut"):
        study.set_user_attr("a", 1)
    assert 0.2 <= time.monotonic() - begun < 10


def test_the_patience_is_with_an_outage_and_not_with_each_call(line):
    study = study_on(line, outage_seconds=0.5)
    line.cuts = ["question"] * 1000
    with pytest.raises(ConnectionResetError):
        study.set_user_attr("a", 1)
    for _ in range(3):
        left = len(line.cuts)
        with pytest.raises(ConnectionResetError):
            study.set_user_attr("a", 1)
        assert left - len(line.cuts) == 1
    line.cuts = []
    study.set_user_attr("a", 1)
    line.cuts = ["question"] * 3
    study.set_user_attr("a", 2)
    assert study.user_attrs == {"a": 2}


class Forever(list):
    """Cuts that never come to an end; says when the first has been noticed."""

    def __init__(self):
        super().__init__(["question"])
        self.count, self.noticed = 0, threading.Event()

    def pop(self, index=-1):
        self.count += 1
        if self.count > 1:
            self.noticed.set()
        return self[0]


def test_who_waits_for_a_storage_can_be_told_to_give_up(line):
    study = study_on(line)
    line.cuts = cuts = Forever()
    raised = []

    def wait():
        try:
            study.set_user_attr("a", 1)
        except ConnectionResetError as error:
            raised.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert cuts.noticed.wait(30)
    stop_waiting(study)
    waiting.join(30)
    assert raised


def test_who_gave_up_while_the_first_try_goes_on_does_not_wait_and_does_not_try_each_time(line):
    study = study_on(line)
    storage, tries = study._storage, []

    def fail(line):
        tries.append(1)
        storage.stop_waiting()
        raise ConnectionResetError

    for _ in range(5):
        with pytest.raises(ConnectionResetError):
            storage._call(fail)
    assert len(tries) == 1
    storage._not_before = 0.0  # later the storage is tried again
    study.set_user_attr("a", 1)
    assert study.user_attrs == {"a": 1}


class CutAndTerminate(L.Callback):
    """Cuts the line to the storage, and has this process be sent SIGTERM once somebody waits."""

    def __init__(self, line):
        self.line = line

    def __deepcopy__(self, memo):
        return self

    def on_train_start(self, trainer, pl_module):
        self.line.cuts = cuts = Forever()

        def terminate():
            cuts.noticed.wait(30)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=terminate).start()


def test_sigterm_while_the_storage_is_away_ends_the_wait(line, tmp_path, capsys):
    started = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        OptunaDrivenOptimizer(
            {"trainer": {"max_epochs": 1, "accelerator": "cpu"}},
            {"lr": ("loguniform", 1e-3, 1.0)},
            nets.Line,
            nets.Points,
            storage=PatientStorage(line),
            experiment_dir=tmp_path,
            n_trials=2,
            callbacks=[CutAndTerminate(line)],
            baseline=False,
        ).optimize()
    assert ended.value.code == 143
    assert time.monotonic() - started < 60, "the storage is waited for for ten minutes"
    assert "Interrupted. The study's storage is away; run again to go on." in capsys.readouterr().out


def test_a_mistake_is_raised_at_once(line):
    study = study_on(line)
    with pytest.raises(KeyError):
        study._storage.get_trial(7)


def test_values_wait_in_order_and_are_sent_before_anything_else(line, caplog):
    study = study_on(line)
    trial = study.ask()
    reporter = OptunaReporter(trial)
    assert reporter.report((1.0,), 0) is None
    line.cuts = ["question"] * 10_000
    for step in range(1, 200):
        assert reporter.report((float(step),), step) is None
    assert 10_000 - len(line.cuts) < 100, "not each report asks whether the storage is back"
    line.cuts = []
    assert [*line.get_trial(trial._trial_id).intermediate_values] == [0]
    study.tell(trial, state=TrialState.PRUNED)
    assert [*study.trials[0].intermediate_values] == [*range(200)]
    assert study.trials[0].value == 199.0, "Optuna takes the last value"
    told = [record.message for record in caplog.records if "storage is" in record.message]
    assert ["away" in message for message in told] == [True, False]


def test_values_of_a_trial_that_was_given_to_another_are_not_kept(line):
    study = study_on(line)
    trial = study.ask()
    line.cuts = ["question"]
    trial.report(1.0, 0)
    line.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    with pytest.raises(UpdateFinishedTrialError):
        trial.set_user_attr("a", 1)
    assert study._storage.get_trial(trial._trial_id).state is TrialState.FAIL


def test_a_pruner_that_fails_is_not_an_outage(line):
    class Broken(optuna.pruners.NopPruner):
        def prune(self, study, trial):
            raise RuntimeError("broken")

    study = optuna.create_study(storage=PatientStorage(line), pruner=Broken())
    with pytest.raises(RuntimeError, match="broken"):
        OptunaReporter(study.ask()).report((1.0,), 0)


def test_it_travels(tmp_path):
    study = optuna.create_study(storage=open_storage(tmp_path / "a.log", tmp_path), study_name="s")
    trial = pickle.loads(pickle.dumps(study.ask()))
    trial.report(1.0, 0)
    assert study.trials[0].intermediate_values == {0: 1.0}


LOCKS = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_database_that_another_process_has_locked(tmp_path):
    path = tmp_path / "a.db"
    study = optuna.create_study(storage=open_storage(f"sqlite:///{path}", tmp_path), study_name="s")
    trial = study.ask()
    reporter = OptunaReporter(trial)
    command = [sys.executable, "-c", LOCKS, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"locked\n"
        begun = time.monotonic()
        for step in range(100):
            assert reporter.report((1.0,), step) is None
        assert time.monotonic() - begun < 60, "SQLite itself waits for 5 seconds, once, and not for each"
        threading.Timer(3, other.stdin.close).start()
        study.tell(trial, 1.0)
    assert [*study.trials[0].intermediate_values] == [*range(100)]
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("select count(*) from trials").fetchone() == (1,)


@pytest.fixture
def small_disk():
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True).returncode:
            pytest.skip("no disk can be mounted here")
        yield Path(folder)
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_journal_on_a_full_disk(small_disk):
    path = small_disk / "a.log"
    study = optuna.create_study(storage=open_storage(path, path), study_name="s")
    trial = study.ask()
    reporter = OptunaReporter(trial)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1024))
    steps = 0
    while not study._storage._unsent:  # what is left of the journal's last page is still written
        reporter.report((1.0,), steps)
        steps += 1
    for step in range(steps, steps + 50):
        reporter.report((1.0,), step)
    threading.Timer(0.5, ballast.unlink).start()
    study.tell(trial, 1.0)
    again = optuna.load_study(study_name="s", storage=open_storage(path, path))
    assert [*again.trials[0].intermediate_values] == [*range(steps + 50)]
    assert len(again.trials) == 1


class Untold(BaseJournalBackend):
    """A journal of which a record was written, and then the disk did not answer."""

    def __init__(self):
        self.logs, self.fails = [], False

    def read_logs(self, log_number_from):
        return iter(self.logs[log_number_from:])

    def append_logs(self, logs):
        self.logs.extend(logs)
        if self.fails:
            self.fails = False
            raise OSError(5, os.strerror(5))


def test_a_journals_record_that_was_written_and_not_told_of_is_not_doubled():
    backend = Untold()
    study = optuna.create_study(storage=PatientStorage(optuna.storages.JournalStorage(backend)))
    backend.fails = True
    trial = study.ask()
    backend.fails = True
    trial.report(1.0, 0)
    backend.fails = True
    study.tell(trial, 2.0)
    assert [(one.value, one.intermediate_values) for one in study.trials] == [(2.0, {0: 1.0})]
