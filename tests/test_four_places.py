"""Values as people write them, at the four places: a choice, the base config, the queue of a study, the baseline."""

import contextlib
import copy
import dataclasses
import datetime
import enum
import typing
from pathlib import Path

import lightning as L
import numpy as np
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import Line, Points

from lightningtune import OptunaDrivenOptimizer
from lightningtune.config.base import load_base_config
from lightningtune.config.schema import Schema
from lightningtune.config.values import same
from lightningtune.errors import ConfigurationError
from lightningtune.files import dump_yaml, load_yaml
from lightningtune.preflight import check_config, check_space, stored_point
from lightningtune.search.spaces import SimpleSearchSpace, as_search_space
from lightningtune.study.sampling import (
    EnqueuingStudy,
)
from lightningtune.training.build import Blueprint
from lightningtune.training.sections import NAMED


class Act(str, enum.Enum):
    RELU = "relu"
    TANH = "tanh"


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Options:
    width: int = 4
    shape: tuple[int, ...] = (1,)


class Limits(typing.TypedDict, total=False):
    low: int


class Holder(Line):
    """Keeps what it is given."""

    def __init__(
        self,
        act: Act = Act.RELU,
        colour: Colour | None = None,
        root: Path = Path("data"),
        text: str = "",
        shape: tuple[int, ...] = (1,),
        shapes: list[tuple[int, int]] = [],  # noqa: B006
        sizes: list[int] = [],  # noqa: B006
        untyped=(1,),
        anything: typing.Any = None,
        kind: torch.dtype = torch.float32,
        options: Options | None = Options(),  # noqa: B008
        limits: Limits | None = None,
        number: float | None = 0.5,
        **rest,
    ):
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        self.given = given


numbers = st.integers(-9, 9)
pairs = st.tuples(numbers, numbers)
FITTING = {
    "act": st.sampled_from(Act),
    "colour": st.none() | st.sampled_from(Colour),
    "root": st.sampled_from(["a", "b/c"]).map(Path),
    "text": st.text("ab1-:", max_size=5) | st.just("2024-03-01"),
    "shape": st.lists(numbers, max_size=3).map(tuple),
    "shapes": st.lists(pairs, max_size=2),
    "sizes": st.lists(numbers, max_size=3),
    "untyped": st.lists(numbers, max_size=3).map(tuple),
    "anything": st.none()
    | st.booleans()
    | numbers
    | st.dictionaries(st.text("ab", min_size=1), st.lists(numbers), max_size=2),
    "kind": st.sampled_from([torch.float16, torch.int8]),
    "options": st.builds(Options, numbers, st.lists(numbers, max_size=2).map(tuple)),
    "limits": st.none() | st.fixed_dictionaries({"low": numbers}),
    "number": st.none() | st.floats(-9, 9),
}
odd = st.one_of(
    *FITTING.values(),
    st.dates(),
    st.times(),
    st.datetimes(),
    numbers.map(np.int64),
    numbers.map(torch.tensor),
    st.just({1, 2}),
    st.just(object()),
    st.just(int),
    st.just("\ud800"),
    st.just(float("nan")),
    st.just(2**20_000),
    st.just({True: 1}),
    st.lists(numbers).map(np.array),
)
BASE = {"trainer": {"max_epochs": 1, "accelerator": "cpu"}}


SCHEMA = Schema(Holder, Points, L.Trainer, NAMED)
BLUEPRINT = Blueprint(SCHEMA, BASE)


def resolved(config, space):
    """Read a base config; everything that is checked before the first trial is checked."""
    read = load_base_config(config)
    blueprint = copy.copy(BLUEPRINT)  # a new one would make all parsers again, which is slow
    blueprint.config = read
    check_space(space, blueprint)
    check_config(config, blueprint)
    return read


def built(config, name):
    """Return what the model gets by a config that was written down and read back."""
    model = BLUEPRINT.build_model(load_yaml(dump_yaml(config)))
    return {**model.given, **model.given["rest"]}[name]


@st.composite
def fitting(draw):
    name = draw(st.sampled_from(sorted(FITTING)))
    return name, draw(FITTING[name])


def queued(space, point):
    """Return the point that a trial gets which a user has queued."""
    storage = optuna.storages.InMemoryStorage()
    study = EnqueuingStudy(optuna.create_study(storage=storage).study_name, storage)
    study.enqueue_trial(point)
    return space.suggest(study.ask())


def all_four(name, value):
    """Yield what the model gets of a value at each place."""
    read = resolved({**BASE, "model": {name: value}}, SimpleSearchSpace({"trainer.max_epochs": ("int", 1, 2)}))
    yield built(read, name)
    path = f"model.{name}"
    space = SimpleSearchSpace({path: ("categorical", [value])})
    read = resolved(BASE, space)
    drawn = space.suggest(optuna.create_study().ask())
    baseline = space.suggest(optuna.trial.FixedTrial(stored_point(space, {path: value})))
    for point in (drawn, baseline, queued(space, {path: value})):
        yield built(SCHEMA.merge(read, point), name)


@settings(max_examples=30, deadline=None)
@given(fitting())
def test_a_value_that_fits_is_what_the_model_gets(drawn):
    name, value = drawn
    assert list(all_four(name, value)) == [value] * 4


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([*sorted(FITTING), "swallowed"]), odd)
def test_any_other_value_is_the_same_to_the_model_or_refused_in_a_sentence(name, value):
    with contextlib.suppress(ConfigurationError):
        for got in all_four(name, value):
            # text may stand for what an annotation asks for, a dataclass has more fields, and NaN equals nothing
            is_read = isinstance(value, str) or (name == "options" and isinstance(value, dict)) or value != value
            assert is_read or same(got, value, as_numbers=True)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("anything", (1, 2), r"'model.anything'=\(1, 2\) would be \[1, 2\] .* as 'anything: tuple', or write \[1, 2\]"),
        ("anything", [(1, 2)], "Annotate what is in it, too, or write"),
        ("swallowed", Path("a"), "Annotate it, as 'swallowed: Path', or write 'a'"),
        ("text", Act.TANH, "is annotated str. Annotate it, as 'text: Act', or write 'tanh'"),
        ("anything", datetime.date(2024, 3, 1), "as 'anything: str', or write '2024-03-01'"),
    ],
)
def test_what_a_file_cannot_give_back_is_refused_with_the_remedy(name, value, said):
    with pytest.raises(ConfigurationError, match=said):
        next(all_four(name, value))
    for spec in ({name: ("categorical", [value])}, lambda trial: {f"model.{name}": value}):
        with pytest.raises(ConfigurationError, match=said):
            resolved(BASE, as_search_space(spec))


def test_a_study_trains_replays_and_builds_with_what_it_was_given(tmp_path):
    optimizer = OptunaDrivenOptimizer(
        {**BASE, "model": {"options": Options(3, (4, 5)), "root": Path("here"), "kind": torch.int8}},
        {"act": ("categorical", Act), "shape": ("categorical", [(1, 2), (3,)])},
        Holder,
        Points,
        n_trials=1,
        baseline={"act": Act.TANH, "shape": (3,)},
        experiment_dir=tmp_path,
        verbose=False,
    )
    optimizer.study.enqueue_trial({"act": Act.RELU, "shape": (1, 2)})
    study = optimizer.optimize()
    assert study.trials[0].params == {"act": "RELU", "shape": "[1, 2]"}
    got = optimizer.best_model(0).given
    assert (got["act"], got["shape"], got["options"], got["root"], got["kind"]) == (
        Act.RELU,
        (1, 2),
        Options(3, (4, 5)),
        Path("here"),
        torch.int8,
    )
    assert optimizer.replay(0).agreement == "identical"
