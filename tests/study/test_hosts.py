"""Who works on a study, asked from outside, and how they are paused."""

import dataclasses
import os
import threading

import optuna
import pytest
from optuna.storages import InMemoryStorage

from lightningtune.study.identity import WORKER, Worker
from lightningtune.study.liveness import (
    await_heartbeats,
    call_every,
    find_busy_hosts,
    find_idle_hosts,
    get_pause_request,
    heartbeat_name,
    pause,
    watch_for_pause,
)
from lightningtune.study.storage import PatientStorage

ELSEWHERE = Worker("elsewhere", "another machine", 7, 3)
DEAD = dataclasses.replace(Worker.this(), started=1)


@pytest.fixture
def study():
    return optuna.create_study()


def says(study, worker, word="1"):
    study.set_user_attr(heartbeat_name(worker), {**dataclasses.asdict(worker), "word": word})


def holds(study, worker):
    study.ask().set_user_attr(WORKER, dataclasses.asdict(worker))


def test_who_lives_and_holds_a_trial_is_busy(study):
    parent = Worker.of(os.getppid())
    for worker in (DEAD, ELSEWHERE, parent, parent):
        holds(study, worker)
    assert find_busy_hosts(study) == [parent]
    for number in (2, 3):
        study.tell(number, 1.0)
    assert find_busy_hosts(study) == []


def test_who_may_live_and_has_worked_on_it_may_still_do_so(study):
    parent = Worker.of(os.getppid())
    for worker in (DEAD, Worker.this(), parent):
        says(study, worker)
    holds(study, ELSEWHERE)
    assert find_idle_hosts(study) == [parent, ELSEWHERE]
    study.tell(0, 1.0)
    assert find_idle_hosts(study) == [parent]


def test_one_of_another_machine_lives_if_its_word_changes(study):
    says(study, ELSEWHERE)
    waited = []

    def wait(seconds):
        waited.append(seconds)
        if len(waited) == 3:
            says(study, ELSEWHERE, "2")

    assert await_heartbeats(study, [ELSEWHERE], seconds=30, wait=wait) == [ELSEWHERE]
    assert len(waited) == 3


def test_one_that_says_nothing_more_has_gone(study):
    says(study, ELSEWHERE)
    waited = []
    assert await_heartbeats(study, [ELSEWHERE], seconds=2.5, wait=waited.append) == []
    assert waited == [1.0, 1.0, 0.5]
    assert await_heartbeats(study, [], wait=waited.append) == []
    assert len(waited) == 3, "of nobody no sign is waited for"


def test_a_pause_is_noticed_once_and_only_one_that_is_asked_for_from_a_moment_on():
    study = optuna.create_study()
    assert get_pause_request(study) is None
    pause(study)
    noticed = threading.Semaphore(0)
    with watch_for_pause(study, get_pause_request(study), noticed.release, interval=0.01):
        assert not noticed.acquire(timeout=0.1)
        pause(study)
        assert noticed.acquire(timeout=30)
        pause(study)
        assert not noticed.acquire(timeout=0.1)


def test_a_pause_that_was_asked_for_since_a_moment_counts():
    study = optuna.create_study()
    before, noticed = get_pause_request(study), threading.Event()
    pause(study)
    with watch_for_pause(study, before, noticed.set, interval=0.01):
        assert noticed.wait(30)


class Away(InMemoryStorage):
    """A storage that is away when a study is looked at, until it is told to be back."""

    def __init__(self):
        super().__init__()
        self.is_away, self.looked = threading.Event(), threading.Event()

    def get_study_user_attrs(self, study_id):
        if self.is_away.is_set():
            self.looked.set()
            raise OSError(5, "away")
        return super().get_study_user_attrs(study_id)


def test_a_storage_that_is_away_is_looked_at_again_and_does_not_hold_up_the_end():
    storage = Away()
    study = optuna.create_study(storage=PatientStorage(storage))
    noticed = threading.Event()
    with watch_for_pause(study, None, noticed.set, interval=0.01):
        pause(study)
        assert noticed.wait(30)
    before, noticed = get_pause_request(study), threading.Event()
    with watch_for_pause(study, before, noticed.set, interval=0.01):
        storage.is_away.set()
        assert storage.looked.wait(30)
        storage.is_away.clear()
        pause(study)
        assert noticed.wait(30)
    storage.looked.clear()
    storage.is_away.set()
    with watch_for_pause(study, None, noticed.set, interval=0.01):
        assert storage.looked.wait(30)


def test_it_is_done_again_and_again_until_it_has_come_to_its_end():
    calls, third = [], threading.Event()

    def act():
        calls.append(threading.current_thread().name)
        if len(calls) == 3:
            third.set()
        return third.is_set()

    with call_every(0.001, act, "some name"):
        assert third.wait(30)
        (thread,) = [thread for thread in threading.enumerate() if thread.name == "some name"] or [None]
        if thread is not None:
            thread.join(30)
    assert calls == ["some name"] * 3


def test_leaving_ends_it_without_waiting_for_the_interval():
    called = threading.Event()
    with call_every(3600, called.set, "example"):
        pass
    assert not called.is_set()
    assert "example" not in [thread.name for thread in threading.enumerate()]
