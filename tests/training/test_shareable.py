import functools
import io
import itertools
import logging
import mmap
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

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from lightningtune import ConfigurationError
from lightningtune.training.shared_data import refuse_unshareable


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
