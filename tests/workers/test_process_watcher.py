"""Whatever comes from the processes of a trial, and in whatever order, one outcome is made of it."""

import os
import signal
from multiprocessing import Pipe

import pytest

from lightningtune.contract import SilentReporter, StopReason, TrialOutcome
from lightningtune.workers.fork_server import NUMBER
from lightningtune.workers.processes import TrialProcessWatcher
from lightningtune.workers.starters import KILL, Child, count_memory_kills

DONE = TrialOutcome(StopReason.COMPLETED, score=(1.0,))


class Scripted(Child):
    """A process at the seam that is ours: it says what it is told to, and has ended when it is told so."""

    def __init__(self):
        ours, self.theirs = Pipe()
        status, self.status = Pipe(duplex=False)
        super().__init__(ours, 0, status)
        self.signals = []
        self.before_asked = lambda: None

    def exit_code(self):
        self.before_asked()
        return super().exit_code()

    def signal(self, number):
        self.signals.append(number)
        self.end(-number)

    def end(self, code):
        self.status.send_bytes(NUMBER.pack(code))


@pytest.fixture
def child():
    return Scripted()


@pytest.fixture
def attend(tmp_path):
    def attend(*children, reporter=None, **options):
        output = [tmp_path / f"{rank}.log" for rank, _ in enumerate(children)]
        return TrialProcessWatcher(children, reporter or SilentReporter(), output, **options).result()

    return attend


def test_the_last_word_counts_however_late_it_is_heard(child, attend):
    """It may come after the host has looked for it, and be followed by the end before the host looks for that."""

    def speak_and_end():
        child.before_asked = lambda: None
        child.theirs.send(DONE)
        child.end(0)

    child.before_asked = speak_and_end
    child.theirs.send(((0.5,), 0))
    assert attend(child) == DONE


def test_the_last_word_is_enough(child, attend):
    child.theirs.send(DONE)
    assert attend(child, until_gone=False) == DONE
    assert child.exit_code() is None


@pytest.mark.parametrize(
    ("kills", "reason", "detail"),
    [
        ([3, 4], StopReason.OUT_OF_MEMORY, "the system ran out of memory and killed the trial's process"),
        ([3, 3], StopReason.KILLED, "the trial's process was killed by SIGKILL"),
    ],
)
def test_the_systems_count_tells_a_lack_of_memory_from_other_kills(child, attend, kills, reason, detail):
    child.end(-KILL)
    outcome = attend(child, count_kills=iter(kills).__next__)
    assert (outcome.reason, outcome.detail) == (reason, detail)
    assert outcome.duration > 0.0


def test_a_signal_without_a_name_is_one(child, attend):
    child.end(-40)
    assert attend(child).detail == "the trial's process was killed by signal 40"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_rank_that_died_is_why_the_others_failed(attend, order):
    ranks = Scripted(), Scripted()
    ranks[0].theirs.send(TrialOutcome.failed(RuntimeError("Connection closed by peer")))
    for rank in order:
        ranks[rank].end((0, -signal.SIGSEGV)[rank])
    assert attend(*ranks).detail == "the trial's process was killed by SIGSEGV"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_rank_that_pruned_the_trial_is_why_the_others_failed(attend, order):
    ranks = Scripted(), Scripted()
    said = TrialOutcome.failed(RuntimeError("Connection closed by peer")), TrialOutcome.pruned(KeyError("too large"))
    for rank in order:
        ranks[rank].theirs.send(said[rank])
        ranks[rank].end(0)
    outcome = attend(*ranks)
    assert (outcome.reason, outcome.detail, outcome.error) == (StopReason.PRUNED, "'too large'", None)


def test_a_rank_that_was_ended_is_not(attend):
    ranks = Scripted(), Scripted()
    ranks[1].theirs.send(TrialOutcome.failed(ValueError("a mistake")))
    ranks[1].end(0)
    assert attend(*ranks, after_failure=0.01).detail == "ValueError: a mistake"
    assert ranks[0].signals == [KILL]


def test_a_time_that_is_up_is_told_first_and_then_what_it_met(child, attend):
    outcome = attend(child, trial_timeout=0.01, grace=0.01)
    assert child.signals == [signal.SIGTERM]
    assert outcome.detail == "took longer than trial_timeout=0.01 seconds"
    assert outcome.traceback.splitlines() == [
        "It took longer than trial_timeout=0.01 seconds.",
        "the trial's process was killed by SIGTERM",
    ]


def test_what_linux_counts_is_read(tmp_path):
    (tmp_path / "events").write_text("low 0\noom 5\noom_kill 7\n")
    missing, events = str(tmp_path / "none"), str(tmp_path / "events")
    assert count_memory_kills([missing, events]) == 7
    assert count_memory_kills([missing, os.devnull]) == 0
