"""Who holds a trial, and the rescue of trials whose process has died: real processes, real storages."""

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from lightningtune.contract import StopReason, TrialOutcome
from lightningtune.study.identity import Worker, is_dead
from lightningtune.study.liveness import (
    HEARTBEAT_SECONDS,
    LEASE_SECONDS,
    HostedStudy,
    ProcessMonitor,
    claim,
    heartbeat_name,
)
from lightningtune.study.opening import open_study, queue_baseline
from lightningtune.study.reporter import BASELINE, DETAIL, REASON, record_outcome, record_placement
from lightningtune.study.storage import open_storage
from lightningtune.study.succession import ATTEMPT, CONTINUES, ORIGIN, WORKER, find_successors
from lightningtune.study.tally import count_finished, is_new, start_over

STORAGES = ["memory", "journal", "sqlite"]
on_each = pytest.mark.parametrize("where", STORAGES, indirect=True)
shared_by_processes = pytest.mark.parametrize("where", ["journal", "sqlite"], indirect=True)
HOST = """
import os, sys, time
from pathlib import Path
import optuna
from lightningtune.study.liveness import ProcessMonitor, claim
from lightningtune.study.storage import open_storage

optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.load_study(study_name="s", storage=open_storage(sys.argv[1], Path("unused")))
ProcessMonitor(study).rescue()
trial = study.ask()
if sys.argv[2] == "claims":
    claim(trial)
    trial.suggest_float("x", 0, 1)
    trial.report(0.5, 0)
print(trial.number, flush=True)
time.sleep(600)
"""


def opened(where):
    return open_study("s", where, ["minimize"], ["val_loss"], True, optuna.samplers.RandomSampler(), None, 1)


@pytest.fixture(params=["memory", "journal"])
def where(request, tmp_path):
    """What `open_storage` takes: one storage, or a place that each process opens for itself."""
    return {
        "memory": optuna.storages.InMemoryStorage(),
        "journal": tmp_path / "journal.log",
        "sqlite": f"sqlite:///{tmp_path}/study.db",
    }[request.param]


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """A database with its tables, which take longer to make than a test."""
    path = tmp_path_factory.mktemp("empty") / "study.db"
    opened(open_storage(f"sqlite:///{path}", path))
    return path


@pytest.fixture
def study(where, tmp_path, empty_database):
    if isinstance(where, str):
        shutil.copyfile(empty_database, tmp_path / "study.db")
    return opened(open_storage(where, tmp_path / "unused"))


@contextlib.contextmanager
def process(*arguments):
    """Another process of this machine, which has said that it is ready."""
    child = subprocess.Popen([sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        child.said = child.stdout.readline().strip()
        yield child
    finally:
        child.kill()
        child.communicate()


@pytest.fixture(scope="module")
def dead():
    """A process that has been killed."""
    with process("-Sc", "print(flush=True); input()") as child:
        found = [Worker.of(child.pid)]
    return found[0]


def held(study, worker, **params):
    """A running trial that a process holds."""
    trial = study.ask()
    claim(trial)
    for name, value in params.items():
        trial.suggest_float(name, value, value)
    trial.set_user_attr(WORKER, dataclasses.asdict(worker))
    return trial


def shared(where, tmp_path):
    return HostedStudy("s", open_storage(where, tmp_path / "unused"), optuna.samplers.RandomSampler())


def at_the_same_moment(function, arguments):
    """Call a function in as many threads as there are arguments."""
    start = threading.Barrier(len(arguments))

    def call(argument):
        start.wait()
        return function(argument)

    with ThreadPoolExecutor(len(arguments)) as threads:
        return [*threads.map(call, arguments)]


def states(study):
    return [trial.state.name for trial in study.trials]


def elsewhere(worker):
    return dataclasses.replace(worker, host="other", machine="another boot")


def test_a_process_is_dead_from_the_moment_it_is_killed():
    with process("-Sc", "print(flush=True); input()") as child:
        worker = Worker.of(child.pid)
        assert is_dead(worker) is False
        os.kill(child.pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while not is_dead(worker):  # nobody has waited for it: it is a zombie
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child.wait()
        assert is_dead(worker) is True
    assert is_dead(Worker.this()) is False


def test_a_number_that_was_given_to_another_process_deceives_nobody():
    me = Worker.this()
    assert is_dead(dataclasses.replace(me, started=me.started - 1)) is True


def test_a_machine_that_was_started_again_is_another_and_nothing_is_known_of_it():
    assert is_dead(elsewhere(Worker.this())) is None


def test_a_process_whose_start_is_not_known_is_known_by_its_number(dead):
    assert is_dead(dataclasses.replace(Worker.this(), started=0)) is False
    assert is_dead(dataclasses.replace(dead, started=0)) is True
    assert is_dead(dataclasses.replace(dead, process=1, started=0)) is False, "another user's, perhaps"


@on_each
def test_a_trial_goes_on_where_its_process_has_died(study, dead):
    study.enqueue_trial({"x": 0.5}, user_attrs={BASELINE: True, "mine": [1, 2]})
    old = held(study, dead, x=0.5)
    record_placement(old, {"index": 1})
    assert ProcessMonitor(study).rescue() == [1]
    first, second = study.trials
    assert (first.state, first.user_attrs[REASON]) == (TrialState.FAIL, "killed")
    assert first.user_attrs[DETAIL] == f"the process that ran it ended: process {dead.process} on {dead.host}"
    assert second.state is TrialState.WAITING
    assert second.user_attrs == {BASELINE: True, "mine": [1, 2], CONTINUES: 0, ORIGIN: 0, ATTEMPT: 2}
    new = study.ask()
    assert new.number == 1
    assert claim(new)
    assert new.suggest_float("x", 0, 1) == 0.5
    assert ProcessMonitor(study).rescue() == [], "nothing is rescued twice, and this process lives"
    assert states(study) == ["FAIL", "RUNNING"]


def test_a_trial_that_ended_before_it_asked_for_its_parameters_keeps_those_that_were_fixed(study, dead):
    queue_baseline(study, {"x": 0.5, "y": 0.25})
    held(study, dead, x=0.5)
    ProcessMonitor(study).rescue()
    new = study.ask()
    assert [new.suggest_float(name, 0, 1) for name in "xy"] == [0.5, 0.25]


def test_trials_that_run_and_trials_of_others_are_left_alone(dead):
    study = opened(optuna.storages.InMemoryStorage())
    claim(study.ask())
    by_hand = study.ask()
    by_hand.suggest_float("x", 0, 1)
    study.ask().set_user_attr(WORKER, {"of": "a later version"})
    assert ProcessMonitor(study).rescue() == []
    foreign = optuna.create_study()
    foreign.ask()
    assert ProcessMonitor(foreign).rescue() == []
    assert states(foreign) == ["RUNNING"]


@on_each
def test_a_trial_that_kills_its_process_each_time_has_failed_in_the_end(study, dead):
    for attempt in range(1, 4):
        trial = held(study, dead)
        assert trial.user_attrs.get(ATTEMPT, 1) == attempt
        assert count_finished(study) == 0
        ProcessMonitor(study).rescue()
    assert states(study) == ["FAIL"] * 3
    assert [trial.user_attrs.get(ORIGIN) for trial in study.trials] == [None, 0, 0]
    assert count_finished(study) == 1, "the last one counts for all"
    assert ProcessMonitor(study).rescue() == []


def test_a_rescued_baseline_is_not_queued_again(study, dead):
    queue_baseline(study, {"x": 0.5})
    assert not is_new(study), "it waits"
    held(study, dead, x=0.5)
    ProcessMonitor(study).rescue()
    start_over(study)
    assert not is_new(study)
    study.tell(study.ask(), 1.0)
    assert count_finished(study) == 1


def test_a_host_that_died_between_failing_a_trial_and_queueing_it_again_loses_nothing(study, dead):
    trial = held(study, dead)
    record_outcome(trial, TrialOutcome(StopReason.KILLED, "as if"))
    study.tell(trial, state=TrialState.FAIL)
    assert ProcessMonitor(study).rescue() == [1]
    assert ProcessMonitor(study).rescue() == []


def test_which_failures_are_given_out_again_is_chosen(study):
    for reason in (StopReason.INTERRUPTED, StopReason.FAILED, StopReason.KILLED):
        trial = study.ask()
        claim(trial)
        record_outcome(trial, TrialOutcome(reason, "why"))
        study.tell(trial, state=TrialState.FAIL)
    assert ProcessMonitor(study).rescue() == [3]
    assert study.trials[3].user_attrs[CONTINUES] == 2
    assert ProcessMonitor(study).rescue(interrupted=True) == [4]
    assert study.trials[4].user_attrs[CONTINUES] == 0
    assert study.trials[4].user_attrs[ATTEMPT] == 1, "it was no fault of the trial"


def test_a_host_of_another_machine_has_died_when_its_word_has_not_changed_for_a_lease(study):
    other = elsewhere(Worker.this())
    held(study, other)
    now = [0.0]
    watch = ProcessMonitor(study, clock=lambda: now[0])

    def pass_by(seconds, says=None):
        if says is not None:
            study.set_user_attr(heartbeat_name(other), {**dataclasses.asdict(other), "word": says})
        now[0] += seconds
        return watch.rescue()

    for word in range(20):
        assert pass_by(HEARTBEAT_SECONDS, f"{word}") == []
    assert pass_by(10_000) == [], "the storage may have been away as long, for it as for us"
    looks = int(LEASE_SECONDS / HEARTBEAT_SECONDS) - 1
    assert [pass_by(HEARTBEAT_SECONDS) for _ in range(looks)] == [[]] * (looks - 1) + [[1]]


def test_a_sign_of_life_is_given_now_and_then(study):
    now = [0.0]
    watch = ProcessMonitor(study, clock=lambda: now[0])
    word = heartbeat_name(Worker.this())

    def after(seconds):
        now[0] += seconds
        watch.beat()
        return study.user_attrs[word]["word"]

    first = after(0)
    assert after(HEARTBEAT_SECONDS - 1) == first
    second = after(1)
    assert second != first
    assert after(HEARTBEAT_SECONDS) != second


@on_each
def test_another_host_is_known_of_while_it_lives(study, dead):
    watch = ProcessMonitor(study)
    watch.rescue()
    assert not watch.has_others()
    for worker in (dead, Worker.of(os.getppid())):
        study.set_user_attr(heartbeat_name(worker), {**dataclasses.asdict(worker), "word": "here"})
    assert watch.has_others()


def test_a_trial_whose_host_died_before_claiming_it_is_found_where_no_other_host_lives(study, dead):
    queue_baseline(study, {"x": 0.5})
    study.set_user_attr(heartbeat_name(dead), dataclasses.asdict(dead))
    study.ask()
    watch = ProcessMonitor(study)
    assert watch.rescue() == [1]
    assert study.trials[1].user_attrs[BASELINE] is True
    new = study.ask()
    assert watch.rescue() == [], "this host may be about to claim it"
    assert claim(new)


def test_a_trial_that_another_host_may_be_about_to_claim_is_left_alone_for_a_lease(study):
    other = elsewhere(Worker.this())
    study.set_user_attr(heartbeat_name(other), dataclasses.asdict(other))
    study.ask()
    now = [0.0]
    watch = ProcessMonitor(study, clock=lambda: now[0])
    rescued = []
    while not rescued:
        study.set_user_attr(heartbeat_name(other), {**dataclasses.asdict(other), "word": now[0]})
        rescued = watch.rescue()
        now[0] += HEARTBEAT_SECONDS
    assert now[0] > LEASE_SECONDS


@shared_by_processes
@pytest.mark.parametrize("does", ["claims", "nothing"])
def test_a_host_that_is_killed_leaves_its_trial_to_the_next(study, where, does):
    with process("-c", HOST, str(where), does) as host:
        assert host.said == "0"
        assert ProcessMonitor(study).rescue() == [], "it lives"
        os.kill(host.pid, signal.SIGKILL)
        host.wait()
        assert ProcessMonitor(study).rescue() == [1]
    assert states(study) == ["FAIL", "WAITING"]


@shared_by_processes
def test_hosts_that_rescue_at_the_same_moment_give_each_trial_out_once(study, where, dead, tmp_path):
    """Each thread has a storage of its own, as a process has."""
    count = 4
    for number in range(count):
        held(study, dead, x=number / 10)

    def rescue_and_ask(study):
        watch = ProcessMonitor(study)  # kept for as long as trials are asked for: it is this thread's presence
        watch.rescue()
        return [study.ask().number for _ in range(2)]

    studies = [shared(where, tmp_path) for _ in range(3)]
    asked = [number for numbers in at_the_same_moment(rescue_and_ask, studies) for number in numbers]
    assert len({*asked}) == len(asked), "no two were given the same"
    chosen = {successor for number, successor in find_successors(study.trials).items() if number < count}
    assert len(chosen) == count
    assert chosen <= {*asked}
    ended = [trial for trial in study.trials[count:] if trial.state is not TrialState.RUNNING]
    assert {trial.user_attrs[REASON] for trial in ended} <= {"refused"}
    for number in asked:
        study.tell(number, 1.0)
    assert count_finished(study) == len(asked)


@shared_by_processes
def test_a_trial_that_several_are_handed_is_run_by_one(study, where, tmp_path):
    """As on SQLite, where Optuna does not look and take in one step."""
    hosts = [shared(where, tmp_path) for _ in range(3)]
    for _ in range(3):
        queue_baseline(study, {"x": 0.5})
        trial = study.ask()
        handed = [optuna.Trial(host, trial._trial_id) for host in hosts]
        assert sorted(at_the_same_moment(claim, handed)) == [False, False, True]
        assert not claim(trial), "too late"
        study.tell(trial.number, 1.0)


@on_each
def test_a_trial_that_another_goes_on_in_place_of_is_not_handed_out(study, where, tmp_path, dead):
    held(study, dead)
    ProcessMonitor(study).rescue()
    study.add_trial(optuna.trial.create_trial(state=TrialState.WAITING, user_attrs={CONTINUES: 0}))
    ours = shared(where, tmp_path)
    assert [ours.ask().number for _ in range(2)] == [1, 3]
    assert study.trials[2].user_attrs[DETAIL] == "trial 1 goes on in its place already"


def test_what_is_asked_for_with_its_distributions_has_its_parameters(study, where, tmp_path):
    trial = shared(where, tmp_path).ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    assert [*study.trials[0].params] == [*trial.params] == ["x"]


@on_each
@pytest.mark.parametrize("state", [TrialState.FAIL, TrialState.COMPLETE])
def test_a_host_that_comes_back_cannot_write_into_what_was_given_to_another(study, where, tmp_path, state, dead):
    zombie = held(opened(open_storage(where, tmp_path / "unused")), dead, x=0.5)
    zombie.report(0.5, 0)
    ProcessMonitor(study).rescue()
    successor = study.ask()
    claim(successor)
    before = study.trials
    with pytest.raises(UpdateFinishedTrialError):
        zombie.report(0.25, 1)
    with pytest.raises(UpdateFinishedTrialError):
        zombie.suggest_float("y", 0, 1)
    with pytest.raises(UpdateFinishedTrialError):
        record_outcome(zombie, TrialOutcome(StopReason.COMPLETED, score=(0.25,)))
    values = 0.25 if state is TrialState.COMPLETE else None
    with pytest.raises(ValueError, match="Cannot tell a FAIL trial"):
        zombie.study.tell(zombie, values, state=state)
    assert zombie.study.tell(zombie, values, state=state, skip_if_finished=True).state is TrialState.FAIL
    assert not claim_is_accepted(zombie)
    assert study.trials == before
    successor.report(0.125, 0)
    study.tell(successor, 0.125)
    assert study.best_trial.number == successor.number


def claim_is_accepted(trial):
    try:
        return claim(trial)
    except UpdateFinishedTrialError:
        return False
