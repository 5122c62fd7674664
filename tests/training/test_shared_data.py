"""Work on data that is done once for all trials, and data that they cannot share."""

import functools
import io
import itertools
import logging
import mmap
import random
import re
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import weakref
import zipfile
from collections import deque, namedtuple
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from nets import Line, Points
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from lightningtune import ConfigurationError
from lightningtune.training.shared_data import (
    give,
    has_preparation,
    load,
    prepare,
    refuse_other_data,
    refuse_unshareable,
    which_data,
)


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


class Rows(Dataset):
    def __init__(self, held):
        self.held = held

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return index


class Slotted:
    __slots__ = ("__hidden", "unset")

    def __init__(self, held):
        self.__hidden = held


Pair = namedtuple("Pair", "one other")


class Itself(Rows):
    def __init__(self, held):
        super().__init__(held)
        self.me = [self]

    def read(self):
        return self.held


def mapped(path, **options):
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0, **options)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "rows.bin"
    path.write_bytes(bytes(8))
    return path


HOLDERS = {
    "datamodule.rows.held": Rows,
    "datamodule.rows.dataset.held": lambda held: DataLoader(Rows(held)),
    "datamodule.rows.datasets[1].dataset.held": lambda held: ConcatDataset([Rows(0), Subset(Rows(held), [0])]),
    "datamodule.rows['train'][1][1]": lambda held: {"train": deque([0, Pair(0, held)])},
    "datamodule.rows.me[0].held": None,
    "datamodule.rows._Slotted__hidden": Slotted,
    "datamodule.rows.__self__.held": lambda held: Itself(held).read,
    "datamodule.rows.keywords['file']": lambda held: functools.partial(print, file=held),
    "'held' in datamodule.rows": lambda held: lambda: held,
    "a default of datamodule.rows": lambda held: lambda given=held: given,
    "datamodule.rows.flat[1]": lambda held: np.array([None, held], dtype=object),
    "an item of datamodule.rows": lambda held: {0, held},
}


@pytest.mark.parametrize("where", [name for name, make in HOLDERS.items() if make])
def test_an_open_file_is_named_by_where_it_is(path, where):
    with path.open("rb", buffering=0) as file:
        rows = HOLDERS[where](file)
        with pytest.raises(ConfigurationError, match=rf"but {re.escape(where)} is an open file of '.*rows.bin': all"):
            refuse_unshareable({"rows": rows})
    refuse_unshareable({"rows": rows})  # closed


def test_what_holds_itself_has_an_end(path):
    with path.open() as file, pytest.raises(ConfigurationError, match="but datamodule.rows.held is an open file"):
        refuse_unshareable({"rows": Itself(Itself(file)).me[0].held})
    refuse_unshareable({"rows": Itself(0)})


def memory_map(path, mode):
    return np.memmap(path, mode=mode)


UNSHAREABLE = {
    "buffered": (lambda path: path.open("rb"), "open file"),
    "zip": (lambda path: zipfile.ZipFile(path.with_suffix(".zip"), "w"), r"\.fp is an open file"),
    "temporary": (tempfile.NamedTemporaryFile, r"\.file is an open file"),
    "written memmap": (lambda path: memory_map(path, "r+"), r"a memory map with mode='r\+'.*use 'r'"),
    "view of one": (lambda path: np.asarray(memory_map(path, "r+"))[2:], r"\.base is a memory map with mode"),
    "mmap": (mapped, "memory map that can be written to"),
    "buffer of one": (lambda path: np.frombuffer(mapped(path), dtype="u1"), "memory map that can be written to"),
    "database": (lambda path: sqlite3.connect(":memory:"), "a sqlite3.Connection, which cannot be pickled"),
    "cursor": (lambda path: sqlite3.connect(":memory:").cursor(), "an iterator"),
    "socket": (lambda path: socket.socket(), "a socket.socket, which cannot be pickled"),
    "generator": (lambda path: (row for row in [1]), r"an iterator \(generator\)"),
    "iterator": (lambda path: map(int, []), r"an iterator \(map\)"),
    "cycle": (lambda path: itertools.cycle([1]), "an iterator"),
    "lock": (lambda path: threading.Lock(), "a _thread.lock, which cannot be pickled"),
    "event": (lambda path: threading.Event(), r"_lock is a _thread.lock"),
    "thread": (lambda path: threading.Thread(), "."),
    "process": (lambda path: subprocess.Popen([sys.executable, "--version"], stdout=subprocess.PIPE), "."),
}


@pytest.mark.parametrize("kind", UNSHAREABLE)
def test_what_processes_cannot_share_is_refused(path, kind):
    make, message = UNSHAREABLE[kind]
    held = make() if make is tempfile.NamedTemporaryFile else make(path)
    try:
        with pytest.raises(ConfigurationError, match=rf"share_data shares .* but datamodule.rows.held.*{message}"):
            refuse_unshareable({"rows": Rows(held)})
    finally:
        if isinstance(held, subprocess.Popen):
            held.communicate()
        close = getattr(held, "close", None)
        if close is not None and not isinstance(held, np.ndarray):
            close()


def held_safely(path):
    yield from (torch.zeros(2), np.zeros(2), np.array(["a", None], dtype=object), torch.Generator(), torch.float32)
    yield from (
        memory_map(path, "r"),
        memory_map(path, "c"),
        memory_map(path, "r")[2:],
        np.asarray(memory_map(path, "c")),
    )
    yield from (mapped(path, access=mmap.ACCESS_READ), memoryview(b"a"), io.BytesIO(b"a"), io.StringIO(), sys.stderr)
    yield from (logging.getLogger("rows"), re.compile("a"), Path("a"), Slotted(1), namedtuple, torch, print, lambda: 1)
    yield from (torch.nn.Linear(1, 1), DataLoader(Rows([1])), weakref.ref(Rows), threading.local(), {}.keys())
    yield from (
        np.random.default_rng(0),
        torch.device("cpu"),
        functools.partial(print),
        functools.cache(print),
        slice(1),
    )


def test_what_processes_can_share_is_taken(path):
    values = {f"held{i}": held for i, held in enumerate(held_safely(path))}
    refuse_unshareable(values)
    refuse_unshareable({"rows": Rows([values, *range(100_000)])})
