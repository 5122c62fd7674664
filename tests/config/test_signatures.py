import copy
import dataclasses
import enum
import functools
import pathlib
import typing
import weakref

import lightning as L
import pytest
import torch
from torch import nn

from lightningtune.config.base import has_block
from lightningtune.config.importing import find_class
from lightningtune.config.signatures import (
    REQUIRED,
    Misfit,
    fit,
    given_hyperparameters,
    signature_of,
    type_hints,
)
from lightningtune.config.values import same


class Base:
    def __init__(self, width: int, lr: float = 0.1): ...


class Passing(Base):
    def __init__(self, extra=None, **kwargs):
        super().__init__(**kwargs)


class Keeping:
    def __init__(self, a=1, **kwargs):
        self.kwargs = kwargs


def function(data, x: "int" = 3, *rest, y=4, **more): ...


def closed(data, x=3, *, y): ...


@pytest.mark.parametrize(
    ("target", "defaults", "is_open"),
    [
        (Base, {"width": REQUIRED, "lr": 0.1}, False),
        (Passing, {"extra": None, "width": REQUIRED, "lr": 0.1}, False),
        (Keeping, {"a": 1}, True),
        (closed, {"data": REQUIRED, "x": 3, "y": REQUIRED}, False),
        (functools.partial(closed, 1), {"x": 3, "y": REQUIRED}, False),
        (functools.partial(closed, 1, y=2), {"x": 3, "y": 2}, False),
        (function, {"data": REQUIRED, "x": 3, "y": 4}, True),
    ],
)
def test_a_signature_says_what_is_accepted(target, defaults, is_open):
    signature = signature_of(target)
    assert dict(signature.defaults) == defaults
    assert signature.open is is_open
    assert signature.accepts("anything") is is_open


def test_hints_are_resolved_where_they_can_be():
    assert type_hints(functools.partial(function, 1)) == {"x": int}
    assert type_hints(Passing) == {"width": int, "lr": float}

    class Odd(Base):
        def __init__(self, x: "NoSuchType"): ...  # noqa: F821

    assert type_hints(Odd) == {"width": int, "lr": float}


def test_one_annotation_that_cannot_be_resolved_leaves_the_others():
    class Partly(Base):
        def __init__(self, width: "int", lr, x: "NoSuchType" = None, y: "list[" = 1, z: int = 0) -> None: ...  # noqa: F722, F821

    assert type_hints(Partly) == {"width": int, "z": int}
    assert type_hints(Factory()) == {"lr": float}


def test_a_class_is_imported_by_its_path():
    assert find_class("collections.Counter") is typing.get_origin(typing.Counter[int])
    for path in ("collections.Conter", "no_such_module.X", "Counter", ""):
        assert find_class(path) is None


def test_what_a_callable_holds_is_not_kept():
    data = torch.zeros(3)
    gone = weakref.ref(data)
    assert signature_of(functools.partial(function, data)).defaults
    del data
    assert gone() is None


@dataclasses.dataclass
class Factory:
    width: int = 3

    def __call__(self, lr: float = 0.1): ...


def test_a_callable_need_not_be_hashable():
    assert signature_of(Factory()).defaults == {"lr": 0.1}


# values for annotations


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


T = typing.TypeVar("T")
RELU = {"class_path": "torch.nn.ReLU"}


@pytest.mark.parametrize(
    ("hint", "value", "made"),
    [
        (int, 3, 3),
        (float, 3, 3.0),
        (tuple[int, int], [1, 2], (1, 2)),
        (tuple[float, ...] | None, [1, 2], (1.0, 2.0)),
        (dict[str, tuple[int, int]], {"a": [1, 2]}, {"a": (1, 2)}),
        (set[int], [1, 2], {1, 2}),
        (Colour, "RED", Colour.RED),
        (Level, "LOW", Level.LOW),
        (list[Colour], ["RED"], [Colour.RED]),
        (pathlib.Path, "a", pathlib.Path("a")),
        (typing.Literal["4", 5], "4", "4"),
        (str, "4", "4"),
        (str | None, "null", "null"),
        (float | str, "1e-3", "1e-3"),
        (int | str, 4, 4),
        (list[int | str], [4, "4", "a"], [4, "4", "a"]),
        (dict[str, int | str], {"a": "4"}, {"a": "4"}),
        (typing.Any, "4", "4"),
        (typing.Any, ["4", None], ["4", None]),
        (int | None, None, None),
        (typing.Any, None, None),
        (list[int | None], [None], [None]),
        (T, [1], [1]),
        (T, None, None),
    ],
)
def test_a_value_becomes_what_the_annotation_asks_for(hint, value, made):
    before = copy.deepcopy(value)
    found = fit(hint, value)
    assert found == made
    assert type(found) is type(made)
    assert same(found, made)
    assert same(value, before)


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, "4"),
        (int, 2.5),
        (int, True),
        (int, None),
        (str, None),
        (nn.Module, None),
        (list[int], None),
        (list[int], [None]),
        (int | None, "4"),
        (int | None, "null"),
        (bool, "true"),
        (float, "1e-3"),
        (list[int], "[1, 2]"),
        (list[int], ["4"]),
        (dict[str, int], {"a": "4"}),
        (str, 4),
        (tuple[int, int], [1, 2, 3]),
        (Colour, "BLUE"),
        (typing.Literal["a"], "b"),
        (nn.Module, {"class_path": "torch.nn.Relu"}),
    ],
)
def test_a_value_that_does_not_fit_is_found(hint, value):
    with pytest.raises(Misfit):
        fit(hint, value, build=False)


@pytest.mark.filterwarnings("ignore")  # jsonargparse 5 will leave a block for Any to whoever receives it
@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (nn.Module, RELU),
        (list[nn.Module], [RELU]),
        (list[list[nn.Module]] | None, [[RELU]]),
        (dict[str, nn.Module], {"a": RELU}),
        (tuple[nn.Module, int], [RELU, 3]),
        (typing.Any, [RELU]),
    ],
)
def test_blocks_are_built_and_left_as_they_are(hint, value):
    before = copy.deepcopy(value)
    assert "ReLU()" in repr(fit(hint, value))
    assert value == before
    fit(hint, value, build=False)
    assert value == before


def test_what_a_block_raises_is_not_taken_for_a_misfit():
    def fail(value: int):
        raise TypeError("of the user's own")

    class Failing(nn.Module):
        def __init__(self, width: int = 1):
            fail(width)

    globals()["Failing"] = Failing
    Failing.__qualname__ = "Failing"
    with pytest.raises(TypeError, match="of the user's own"):
        fit(nn.Module, {"class_path": f"{__name__}.Failing"})


# the one private function of Lightning's that is used: these fail when it changes


class Module(L.LightningModule):
    def __init__(self, act, width: int = 3):
        super().__init__()
        self.save_hyperparameters()


def test_what_is_given_is_saved_and_told_to_be_built_again():
    with given_hyperparameters(Module, {"act": {"class_path": "torch.nn.ReLU"}, "width": 3}):
        module = Module(torch.nn.ReLU())
    assert module.hparams == {
        "act": {"class_path": "torch.nn.ReLU"},
        "width": 3,
        "_instantiator": "lightning.pytorch.cli.instantiate_module",
    }
    from lightning.pytorch.cli import instantiate_module

    assert callable(instantiate_module)


def test_afterwards_all_is_as_before():
    with given_hyperparameters(Module, {"act": 1}):
        pass
    assert Module("relu").hparams == {"act": "relu", "width": 3}


def test_blocks_are_found_at_any_depth():
    assert has_block({"layers": [{"init_args": {"act": {"class_path": "torch.nn.ReLU"}}}]})
    assert not has_block({"layers": [1, "class_path"], "lr": 0.1})
