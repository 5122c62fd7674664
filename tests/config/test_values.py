import argparse
import collections
import dataclasses
import datetime
import enum
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch

from lightningtune.config.values import plain, same
from lightningtune.files import dump_yaml, load_yaml


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Act(str, enum.Enum):
    RELU = "relu"


@dataclasses.dataclass
class Options:
    width: int = 4
    root: Path = Path("data")
    inner: tuple = (Act.RELU,)


@pytest.mark.parametrize(
    ("value", "held"),
    [
        ({"a": (1, np.int64(2)), "d": None}, {"a": [1, 2], "d": None}),
        (
            [np.float32(0.5), torch.tensor(True), np.str_("a"), np.datetime64("2024-03-01")],
            [0.5, True, "a", "2024-03-01"],
        ),
        (Colour.BLUE, "BLUE"),
        ({Colour.RED: Act.RELU}, {"RED": "RELU"}),
        (Path("a") / "b", "a/b"),
        (datetime.datetime(2024, 3, 1, 10), "2024-03-01T10:00:00"),
        (datetime.timedelta(days=1), "1 day, 0:00:00"),
        (torch.float16, "torch.float16"),
        (torch.Size([1, 2]), [1, 2]),
        (Options(), {"width": 4, "root": "data", "inner": ["RELU"]}),
        (argparse.Namespace(a=argparse.Namespace(b=(1,))), {"a": {"b": [1]}}),
        (collections.deque([1]), [1]),
        ({4: 2}, {4: 2}),
    ],
)
def test_a_value_is_what_a_file_gives_back(value, held):
    assert plain(value) == held == load_yaml(dump_yaml(plain(value)))
    assert same(value, held)
    kinds = [type(item) for item in plain(value)] if isinstance(held, list) else []
    assert kinds == [type(item) for item in held][: len(kinds)]


endless: list = []
endless.append(endless)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (object(), "m.x: <object object at .* is not a YAML value .*An object is written as {'class_path'"),
        ([print], r"m.x.0: <built-in function print>"),
        ({"a": int}, "m.x.a: <class 'int'> .*A class is written as"),
        (np.zeros(2), "Write it as a list, by its tolist"),
        ({1, 2}, "m.x: {1, 2} .*Write it as a list; the annotation"),
        (b"a", "Write it as text"),
        (uuid.UUID(int=1), "Write it as text"),
        ({True: 1}, "keys of a mapping are text or integers, but True is not"),
        ("\ud800", "half a surrogate pair"),
        ([2**20_000], "m.x.0: An integer of 20001 bits"),
        (endless, "m.x: It is nested too deeply"),
    ],
)
def test_what_no_config_can_hold_is_refused_with_what_to_write(value, said):
    with pytest.raises(TypeError, match=said):
        plain(value, "m.x")


def test_a_config_of_omegaconfs_is_a_mapping_with_what_it_refers_to():
    omegaconf = pytest.importorskip("omegaconf")
    create = omegaconf.OmegaConf.create
    config = create({"a": 2, "b": ["${a}", {"c": None}]})
    assert plain(config) == {"a": 2, "b": [2, {"c": None}]}
    assert plain({"x": config.b}) == {"x": [2, {"c": None}]}
    for spoilt, said in (("???", "Missing mandatory value"), ("${b}", "Interpolation key 'b' not found")):
        with pytest.raises(TypeError, match=f"m.x: DictConfig cannot be read: .*{said}"):
            plain(create({"a": spoilt}), "m.x")
