import os

import pytest
import torch

from lightningtune import ConfigurationError
from lightningtune.workers.devices import Machine, Slot, count_devices, cut_slots, plan_slots, this_machine

FOUR = Machine(tuple(range(16)), 16, ("0", "1", "2", "3"))


@pytest.mark.parametrize(
    ("machine", "asked", "devices", "threads"),
    [
        (FOUR, {"n_jobs": 2}, [("0",), ("1",)], 8),
        (FOUR, {"n_jobs": -1}, [("0",), ("1",), ("2",), ("3",)], 4),
        (FOUR, {"n_jobs": -1, "devices_per_trial": 2}, [("0", "1"), ("2", "3")], 8),
        (FOUR, {"n_jobs": -1, "devices_per_trial": 3}, [("0", "1", "2")], 16),
        (FOUR, {"n_jobs": 6, "trials_per_device": 2}, [("0",), ("1",), ("2",), ("3",), ("0",), ("1",)], 2),
        (Machine(tuple(range(8)), 8), {"n_jobs": 3}, [(), (), ()], 2),
        (Machine((0, 1), 2), {"n_jobs": 5}, [()] * 5, 1),
        (Machine(tuple(range(4)), 4), {"n_jobs": -1}, [()] * 4, 1),
        (Machine(tuple(range(8)), 3), {"n_jobs": 1}, [()], 3),
        (Machine(tuple(range(8)), 3), {"n_jobs": 4}, [()] * 4, 2),
    ],
)
def test_a_machine_is_cut_into_slots(machine, asked, devices, threads):
    slots = cut_slots(machine, **asked)
    assert [slot.devices for slot in slots] == devices
    assert {slot.threads for slot in slots} == {threads}


@pytest.mark.parametrize(
    ("n_jobs", "cores"),
    [(1, [(3, 4, 5, 6, 7)]), (2, [(3, 4), (5, 6, 7)]), (5, [(3,), (4,), (5,), (6,), (7,)])],
)
def test_cores_are_divided_without_a_rest(n_jobs, cores):
    assert [slot.cores for slot in cut_slots(Machine((3, 4, 5, 6, 7), 5), n_jobs)] == cores


def test_more_trials_than_cores_share_them():
    assert [slot.cores for slot in cut_slots(Machine((0, 1), 2), 5)] == [(0,), (1,), (0,), (1,), (0,)]


@pytest.mark.parametrize(
    ("machine", "asked", "message"),
    [
        (FOUR, {"n_jobs": 5}, "4 accelerators give 4 slots.*larger trials_per_device"),
        (FOUR, {"n_jobs": 1, "devices_per_trial": 5}, "give 0 slots"),
        (FOUR, {"n_jobs": 10**9}, "n_jobs must be at most 1000, which is what one machine runs, but got 1000000000"),
        (FOUR, {"n_jobs": 1, "trials_per_device": 10**9}, "trials_per_device must be at most 1000"),
        (Machine(tuple(range(8)), 8), {"n_jobs": 2, "trials_per_device": 2}, "trials run on the CPU here"),
        (Machine(tuple(range(8)), 8), {"n_jobs": 2, "devices_per_trial": 2}, "trials run on the CPU here"),
    ],
)
def test_more_than_there_is_is_refused(machine, asked, message):
    with pytest.raises(ConfigurationError, match=message):
        cut_slots(machine, **asked)


@pytest.mark.parametrize(
    ("given", "asked", "n_jobs", "isolate", "count"),
    [
        (None, None, 1, False, 1),
        (None, 2, -1, True, 2),
        (2, None, -1, True, 2),
        ("2", 2, 1, False, 2),
        ("auto", None, 1, False, 4),
        (-1, None, 1, True, 4),
        ("auto", None, -1, True, 1),
        (-1, 2, 2, True, 2),
        ([3], None, 1, False, 1),
    ],
)
def test_a_trial_has_the_devices_that_its_trainer_uses(given, asked, n_jobs, isolate, count):
    assert count_devices(FOUR, given, asked, n_jobs, isolate) == count
    assert count_devices(Machine((0, 1), 2), given, None, n_jobs, isolate) == 1, "on the CPU they are processes"


@pytest.mark.parametrize(
    ("given", "asked", "message"),
    [
        (2, 1, "devices_per_trial=1 contradicts the trainer's devices=2"),
        ([0, 1], None, "names devices, but each trial is given its own"),
        ("0,1", None, "names devices"),
        ([1], None, "names devices"),
    ],
)
def test_devices_that_contradict_slots_are_refused(given, asked, message):
    with pytest.raises(ConfigurationError, match=message):
        count_devices(FOUR, given, asked, n_jobs=2, isolate=True)


def test_a_slot_says_what_its_process_may_see():
    assert Slot(("2", "3")).environment["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert Slot(threads=4).environment["OMP_NUM_THREADS"] == "4"
    assert "CUDA_VISIBLE_DEVICES" not in Slot(threads=4).environment


def test_a_trainer_on_the_cpu_leaves_accelerators_alone():
    machine = this_machine("cpu")
    assert machine.devices == ()
    assert {*machine.cores} == os.sched_getaffinity(0)


def test_a_machine_has_the_threads_that_the_user_has_chosen():
    before = torch.get_num_threads()
    try:
        for chosen in (1, 3):
            torch.set_num_threads(chosen)
            assert this_machine("cpu").threads == chosen
    finally:
        torch.set_num_threads(before)


def test_on_the_cpu_the_trainers_section_stays_as_it_is():
    trainer = {"accelerator": "cpu", "devices": 2}
    slots, placed = plan_slots(trainer, 2, isolate=True, devices_per_trial=None, trials_per_device=1)
    assert ([slot.devices for slot in slots], placed) == ([(), ()], trainer)
