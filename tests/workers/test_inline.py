import gc
import weakref

import pytest

from lightningtune.workers.inline import frozen_heap


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
