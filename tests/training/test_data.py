import functools

import pytest
from nets import Points

from lightningtune import ConfigurationError
from lightningtune.training.data import give, has_preparation, load, prepare, refuse_other_data, which_data


class Loads(Points):
    prepared = 0

    def prepare_data(self):
        type(self).prepared += 1

    def setup(self, stage):
        self.rows = [stage]


class Keeps(Loads):
    def prepare_data(self):
        self.raw = []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (None, {}, True),
        ({"root": "a", "batch_size": 8}, {"batch_size": 16, "root": "a", "num_workers": 2}, True),
        ({"root": "a"}, {"root": "b"}, False),
        ({"class_path": "x.A", "init_args": {"batch_size": 8}}, {"class_path": "x.A"}, True),
        ({"class_path": "x.A"}, {"class_path": "x.B"}, False),
        ({"n": 1}, {"n": "1"}, False),
    ],
)
def test_how_data_is_loaded_does_not_make_it_other_data(one, other, same):
    assert (which_data(one) == which_data(other)) is same


@pytest.mark.parametrize(
    ("target", "section", "found"),
    [
        (Loads, None, True),
        (functools.partial(Loads, 4), {}, True),
        (Points, None, False),
        (lambda: Loads(), None, False),
        (None, {"class_path": "nets.Points"}, False),
        (None, None, False),
    ],
)
def test_a_class_tells_whether_it_prepares(target, section, found):
    assert has_preparation(target, section) is found


class Fills(Points):
    def __init__(self):
        super().__init__()
        self.parts, self.names = {}, ["train"]

    def prepare_data(self):
        self.parts["train"] = [1]


def test_a_container_that_is_filled_counts_as_set():
    assert not prepare(Fills())
    assert load(Fills()) == {"parts": {"train": [1]}}


def test_a_preparation_that_keeps_something_is_not_done_for_all():
    assert prepare(Loads())
    assert not prepare(Keeps())


def test_what_one_has_loaded_another_takes():
    loaded = load(Loads())
    assert loaded == {"rows": ["fit"]}
    before, data = Loads.prepared, Loads(batch_size=2)
    give(data, loaded)
    data.prepare_data()
    data.setup(stage="fit")
    assert data.rows is loaded["rows"]
    assert (data.batch_size, Loads.prepared) == (2, before)


def test_other_data_than_the_shared_is_refused():
    refuse_other_data(which_data({"root": "a"}), {"root": "a", "batch_size": 2})
    with pytest.raises(ConfigurationError, match=r"a trial asks for data=\{'root': 'b'\}.*batch_size, may vary"):
        refuse_other_data(which_data({"root": "a"}), {"root": "b"})
