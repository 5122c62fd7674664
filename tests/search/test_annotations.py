import copy
import enum
import pathlib
import typing

import pytest
from torch import nn

from lightningtune.search.annotations import Misfit, fit
from lightningtune.values import same


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
