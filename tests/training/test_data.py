import functools
import random
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from nets import Line, Points

from lightningtune import ConfigurationError
from lightningtune.training.shared_data import give, has_preparation, load, prepare, refuse_other_data, which_data


class Prepares(Points):
    def prepare_data(self):
        """Do something."""


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
        (Prepares, None, True),
        (functools.partial(Prepares, 4), {}, True),
        (Points, None, False),
        (lambda: Prepares(), None, False),
        (None, {"class_path": "nets.Points"}, False),
        (None, None, False),
    ],
)
def test_a_class_tells_whether_it_prepares(target, section, found):
    assert has_preparation(target, section) is found


def trainer(folder, **settings):
    quiet = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
    return L.Trainer(default_root_dir=folder, **quiet, **settings)


class Shelf:
    def __init__(self):
        self.books = {"old": []}


class Holds(Points):
    """Keeps something somewhere."""

    def __init__(self, where="nowhere", batch_size=8):
        super().__init__(batch_size)
        self.save_hyperparameters()
        self.where, self.parts, self.shelf, self.generator = where, {"deep": [set()]}, Shelf(), random.Random(0)
        self.transform = lambda rows: rows

    def prepare_data(self):
        assert self.trainer.datamodule is self
        assert self.trainer.is_global_zero
        getattr(self, f"in_{self.where}", lambda: None)()

    def in_attribute(self):
        self.raw = 1

    def in_dictionary(self):
        self.parts["train"] = 1

    def in_nested(self):
        self.parts["deep"][0].add(1)

    def in_object(self):
        self.shelf.books["old"].append("new")

    def in_hparams(self):
        self.hparams.classes = 3

    def in_generator(self):
        self.generator.random()

    def in_folder(self):
        Path(self.trainer.default_root_dir, "rows").touch()

    def in_closure(self):
        rows = []
        self.transform = lambda: rows


@pytest.mark.parametrize(
    "where", ["nowhere", *(name.removeprefix("in_") for name in vars(Holds) if name.startswith("in_"))]
)
def test_what_a_preparation_leaves_is_seen_wherever_it_is(tmp_path, where):
    assert prepare(trainer(tmp_path), Line(), Holds(where), tmp_path) is (where == "nowhere")


class Holder(Points):
    def __init__(self, held):
        super().__init__()
        self.held = held

    def prepare_data(self):
        """Leave nothing."""


@pytest.mark.parametrize("held", [(row for row in [1]), torch.zeros(17 * 1024**2)], ids=["generator", "large"])
def test_what_cannot_be_told_counts_as_left(tmp_path, held):
    assert not prepare(trainer(tmp_path), Line(), Holder(held), tmp_path)


class Loads(Holds):
    prepared = 0

    def in_nowhere(self):
        type(self).prepared += 1

    def setup(self, stage):
        self.rows, self.world = [stage], self.trainer.world_size
        self.in_nested()
        self.in_hparams()
        self.in_dictionary()
        self.draws = [np.random.default_rng(0), random.Random(0), torch.Generator(), np.random.RandomState(0)]


def test_what_one_has_loaded_another_takes(tmp_path):
    loaded = load(trainer(tmp_path), None, Loads())
    assert ({*loaded.values}, {*loaded.added}) == ({"rows", "world", "draws"}, {"parts", "_hparams"})
    before = Loads.prepared
    for _ in range(2):
        data = Loads(batch_size=2)
        give(data, loaded)
        data.prepare_data()
        data.setup(stage="fit")
        assert data.rows is loaded.values["rows"]
        assert (data.rows, data.world, data.parts) == (["fit"], 1, {"deep": [{1}], "train": 1})
        assert data.hparams == {"where": "nowhere", "batch_size": 2, "classes": 3}
        assert Loads.prepared == before
        drawn = [float(each.random()) for each in data.draws[:2]], float(data.draws[3].rand())
        assert drawn == ([0.6369616873214543, 0.8444218515250481], 0.5488135039273248), "as if it had loaded them"


class Ranked(Points):
    def setup(self, stage):
        self.rank = self.trainer.global_rank


def test_data_of_one_rank_is_not_shared_by_all(tmp_path):
    assert load(trainer(tmp_path), None, Ranked()).values == {"rank": 0}
    with pytest.raises(ConfigurationError, match=r"once for all ranks, but setup asks the Trainer for its rank"):
        load(trainer(tmp_path, devices=2, strategy="ddp"), None, Ranked())


def test_other_data_than_the_shared_is_refused():
    refuse_other_data(which_data({"root": "a"}), {"root": "a", "batch_size": 2})
    with pytest.raises(ConfigurationError, match=r"a trial asks for data=\{'root': 'b'\}.*batch_size, may vary"):
        refuse_other_data(which_data({"root": "a"}), {"root": "b"})
