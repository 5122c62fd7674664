import os
import signal
import threading

import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightningtune.contract import SilentReporter, Stop, StopReason
from lightningtune.workers.limits import Interruption, LimitedReporter, limit_time


class Says(SilentReporter):
    def __init__(self, verdict=None):
        self.verdict, self.told = verdict, []

    def report(self, values, step):
        self.told.append((values, step))
        return self.verdict


@pytest.mark.parametrize(
    ("number", "first", "second", "name"),
    [
        (signal.SIGINT, KeyboardInterrupt, KeyboardInterrupt, "Ctrl-C"),
        (signal.SIGTERM, SystemExit, SIGTERMException, "SIGTERM"),
        (signal.SIGHUP, SystemExit, SIGTERMException, "SIGHUP"),
    ],
)
def test_the_first_signal_asks_the_second_insists(number, first, second, name):
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    notices, reporter = [], Says()

    def once():
        with Interruption(notices.append) as interruption:
            limited = LimitedReporter(reporter, lambda: interruption.stop, threading.Lock())
            assert limited.report((1.0,), 0) is None
            os.kill(os.getpid(), number)
            assert limited.report((2.0,), 1) == Stop(StopReason.INTERRUPTED, f"interrupted by {name}")
            assert reporter.told == [((1.0,), 0), ((2.0,), 1)]
            assert notices == [f"{name}: running trials end at their next validation. Once more ends them now."]
            with pytest.raises(second):
                os.kill(os.getpid(), number)

    with pytest.raises(first) as raised:
        once()
    if first is SystemExit:
        assert raised.value.code == 128 + number
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_the_second_signal_ends_what_can_be_ended_and_the_third_raises():
    ended = []

    def thrice():
        with Interruption(lambda text: None, lambda: ended.append(True)):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            assert ended == [True]
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        thrice()
    assert ended == [True]


def test_where_a_trial_trains_the_second_signal_ends_and_raises():
    ended = []

    def twice():
        with Interruption(lambda text: None, lambda: ended.append(True), is_here=True):
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
            assert ended == [True]

    with pytest.raises(KeyboardInterrupt):
        twice()


def test_without_a_signal_nothing_is_raised_and_threads_need_no_handlers():
    done = []

    def work():
        with Interruption(print) as interruption:
            done.append(interruption.stop)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [None]


def test_a_trial_whose_time_is_up_stops_after_its_report():
    reporter = Says()
    assert limit_time(reporter, 60).report((1.0,), 0) is None
    assert limit_time(reporter, None).report((1.0,), 0) is None
    stop = limit_time(reporter, 0).report((1.0,), 1)
    assert stop == Stop(StopReason.TIMED_OUT, "took longer than trial_timeout=0 seconds")
    assert len(reporter.told) == 3
    pruned = Stop(StopReason.PRUNED, "bad")
    assert limit_time(Says(pruned), 0).report((1.0,), 1) == pruned
