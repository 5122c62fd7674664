import dataclasses
import os

import optuna
import pytest

from lightningtune.study.hosts import busy_hosts, give_signs, idle_hosts
from lightningtune.study.identity import WORKER, Worker
from lightningtune.study.liveness import word_of

ELSEWHERE = Worker("elsewhere", "another machine", 7, 3)
DEAD = dataclasses.replace(Worker.this(), started=1)


@pytest.fixture
def study():
    return optuna.create_study()


def says(study, worker, word="1"):
    study.set_user_attr(word_of(worker), {**dataclasses.asdict(worker), "word": word})


def holds(study, worker):
    study.ask().set_user_attr(WORKER, dataclasses.asdict(worker))


def test_who_lives_and_holds_a_trial_is_busy(study):
    parent = Worker.of(os.getppid())
    for worker in (DEAD, ELSEWHERE, parent, parent):
        holds(study, worker)
    assert busy_hosts(study) == [parent]
    for number in (2, 3):
        study.tell(number, 1.0)
    assert busy_hosts(study) == []


def test_who_may_live_and_has_worked_on_it_may_still_do_so(study):
    parent = Worker.of(os.getppid())
    for worker in (DEAD, Worker.this(), parent):
        says(study, worker)
    holds(study, ELSEWHERE)
    assert idle_hosts(study) == [parent, ELSEWHERE]
    study.tell(0, 1.0)
    assert idle_hosts(study) == [parent]


def test_one_of_another_machine_lives_if_its_word_changes(study):
    says(study, ELSEWHERE)
    waited = []

    def wait(seconds):
        waited.append(seconds)
        if len(waited) == 3:
            says(study, ELSEWHERE, "2")

    assert give_signs(study, [ELSEWHERE], seconds=30, wait=wait) == [ELSEWHERE]
    assert len(waited) == 3


def test_one_that_says_nothing_more_has_gone(study):
    says(study, ELSEWHERE)
    waited = []
    assert give_signs(study, [ELSEWHERE], seconds=2.5, wait=waited.append) == []
    assert waited == [1.0, 1.0, 0.5]
    assert give_signs(study, [], wait=waited.append) == []
    assert len(waited) == 3, "of nobody no sign is waited for"
