import gc
import threading
import weakref

import lightning as L
import pytest
from nets import Line, Points

from lightningtune.config.schema import Schema
from lightningtune.training.build import Blueprint
from lightningtune.workers.inline import Preparation, frozen_heap


class Cycle:
    def __init__(self):
        self.me = self


def test_a_frozen_heap_is_given_back_even_after_an_error():
    def fail():
        with frozen_heap():
            assert gc.get_freeze_count() > 0
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert gc.get_freeze_count() == 0


def test_what_is_made_inside_is_collected():
    with frozen_heap():
        seen = weakref.ref(Cycle())
        gc.collect()
        assert seen() is None


class Prepares(Points):
    def prepare_data(self):
        """What it does is not called here."""


def preparation(data=Prepares):
    return Preparation(Blueprint(Schema(Line, data, L.Trainer), {}))


class Counts:
    def __init__(self, is_done=True):
        self.calls, self.is_done = 0, is_done

    def __call__(self):
        self.calls += 1
        return self.is_done


@pytest.mark.parametrize("is_done", [True, False])
def test_the_same_data_is_prepared_once(is_done):
    once, count = preparation(), Counts(is_done)
    for batch_size in (4, 8, 16):
        assert once.of({"data": {"batch_size": batch_size}}, count) is is_done
    assert count.calls == 1
    once.of({"data": {"root": "elsewhere"}}, count)
    assert count.calls == 2


def test_what_fails_is_tried_again():
    once = preparation()

    def fails():
        raise ConnectionError

    with pytest.raises(ConnectionError):
        once.of({}, fails)
    assert once.of({}, Counts())


@pytest.mark.parametrize("data", [Points, lambda: Prepares(), None])
def test_there_may_be_nothing_to_prepare_or_no_way_to_tell(data):
    count = Counts()
    assert not preparation(data).of({}, count)
    assert count.calls == 0


def test_others_wait_for_the_first():
    once, began, goes_on = preparation(), threading.Event(), threading.Event()
    count, found = Counts(), []

    def slow():
        began.set()
        goes_on.wait(60)
        return count()

    first = threading.Thread(target=lambda: found.append(once.of({}, slow)))
    first.start()
    began.wait(60)
    second = threading.Thread(target=lambda: found.append(once.of({}, count)))
    second.start()
    goes_on.set()
    first.join()
    second.join()
    assert (found, count.calls) == ([True, True], 1)
