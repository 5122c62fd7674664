import copy
import dataclasses
import functools
from pathlib import Path
from typing import TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nets import Line, Points

from lightningtune.config.schema import Schema, get_at
from lightningtune.errors import InvalidConfigError


class Trainer:
    """Stands for Lightning's: only the names of its parameters matter here."""

    def __init__(self, max_epochs=None, callbacks=None, gradient_clip_val=None): ...


class Model:
    def __init__(
        self, lr: float = 0.1, learning_rate: float = 0.2, encoder=None, options=None, required: int = ...
    ): ...


class Data:
    def __init__(self, batch_size: int = 4, lr: float = 0.1): ...


class Part:
    def __init__(self, width: int = 3, inner=None): ...


def required(width): ...


PART = f"{__name__}.Part"
SCHEMA = Schema(Model, Data, Trainer)
PLAIN = {
    "model": {
        "encoder": {"class_path": "nets.Line", "init_args": {"width": 7}},
        "options": {"a": {"b": 1}, "list": [1, {"c": 2}]},
    },
    "trainer": {"callbacks": [{"class_path": "nets.Points"}, {"class_path": "nets.Line", "init_args": {}}]},
}
BLOCK = {"model": {"class_path": "nets.Line", "init_args": {"lr": 0.5}}, "data": {"class_path": "nets.Points"}}


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("batch_size", ("data", "batch_size")),
        ("model.lr", ("model", "lr")),
        ("model.init_args.lr", ("model", "lr")),
        ("data.init_args.batch_size", ("data", "batch_size")),
        ("trainer.gradient_clip_val", ("trainer", "gradient_clip_val")),
        ("model.encoder.width", ("model", "encoder", "init_args", "width")),
        ("model.encoder.init_args.width", ("model", "encoder", "init_args", "width")),
        ("model.encoder.class_path", ("model", "encoder", "class_path")),
        ("model.encoder", ("model", "encoder")),
        ("model.options.a.b", ("model", "options", "a", "b")),
        ("model.options.list.1.c", ("model", "options", "list", 1, "c")),
        ("trainer.callbacks.0.batch_size", ("trainer", "callbacks", 0, "init_args", "batch_size")),
        ("trainer.callbacks.1.init_args.width", ("trainer", "callbacks", 1, "init_args", "width")),
    ],
)
def test_a_path_leads_to_its_place_in_plain_form(path, place):
    assert SCHEMA.locate(PLAIN, path) == place


@pytest.mark.parametrize("path", ["lr", "model.lr", "model.init_args.lr"])
def test_and_in_block_form(path):
    assert Schema(None, None, Trainer).locate(BLOCK, path) == ("model", "init_args", "lr")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("lr", "a parameter of both the model and the data; write 'model.lr' or 'data.lr'"),
        ("batch", "a parameter of neither .* Did you mean 'batch_size'. They take: lr, learning_rate"),
        ("model.lrr", "leads nowhere in the config. Did you mean 'model.lr'"),
        ("model.init_args", "leads nowhere"),
        ("model.encoder.lrr", "Did you mean 'model.encoder.init_args.lr'"),
        ("model.options.a.c", "leads nowhere"),
        ("model.options.list.2", "leads nowhere"),
        ("model.options.list.x", "leads nowhere"),
        ("model.lr.x", "leads nowhere"),
        ("trainer.max_epoch", "Did you mean 'trainer.max_epochs'"),
        ("optimizer.lr", "leads nowhere"),
        ("trainr.max_epochs", "Did you mean 'trainer.max_epochs'"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_with_the_nearest(path, message):
    with pytest.raises(InvalidConfigError, match=message):
        SCHEMA.locate(PLAIN, path)


def test_the_name_that_a_block_has_is_suggested():
    config = {"model": {"class_path": "nets.Line"}}
    with pytest.raises(InvalidConfigError, match="Did you mean 'model.init_args.lr'"):
        Schema(None, None, Trainer).locate(config, "model.learning_rate")


def test_kwargs_take_a_bare_name_that_nobody_declares():
    def build(**kwargs): ...

    assert Schema(build, Data).locate({}, "anything") == ("model", "anything")
    assert Schema(build, Data).locate({}, "batch_size") == ("data", "batch_size")
    with pytest.raises(InvalidConfigError, match="both"):
        Schema(build, functools.partial(build)).locate({}, "anything")


@given(st.dictionaries(st.sampled_from(SCHEMA.paths(PLAIN)), st.integers() | st.lists(st.integers()), max_size=4))
def test_merging_leaves_its_input_alone_and_what_was_set_is_found(overrides):
    given_config, given_overrides = copy.deepcopy(PLAIN), copy.deepcopy(overrides)
    merged = SCHEMA.merge(PLAIN, overrides)
    assert given_config == PLAIN
    assert given_overrides == overrides
    for path, value in overrides.items():
        assert SCHEMA.lookup(merged, path) == value
        assert get_at(merged, SCHEMA.locate(PLAIN, path)) == value
    for value in overrides.values():
        if isinstance(value, list):
            value.append("changed afterwards")
    assert "changed afterwards" not in repr(merged)


@given(st.lists(st.text("abcdef_", min_size=1, max_size=6), min_size=1, max_size=4).map(".".join))
def test_an_unknown_path_never_creates_anything(path):
    known = {*SCHEMA.paths(PLAIN), "model.encoder", "lr", "required"}
    if path in known:
        return
    with pytest.raises(InvalidConfigError):
        SCHEMA.merge(PLAIN, {path: 1})


def test_every_listed_path_leads_somewhere():
    for path in SCHEMA.paths(PLAIN):
        assert SCHEMA.locate(PLAIN, path)
    assert "trainer.callbacks.0.init_args.batch_size" in SCHEMA.paths(PLAIN)


def test_a_block_may_be_replaced_and_a_parameter_point_into_it():
    overrides = {"model.encoder.init_args.batch_size": 2, "model.encoder": {"class_path": "nets.Points"}}
    merged = SCHEMA.merge(PLAIN, overrides)
    assert merged["model"]["encoder"] == {"class_path": "nets.Points", "init_args": {"batch_size": 2}}
    with pytest.raises(InvalidConfigError, match=r"model.encoder.init_args.width"):
        SCHEMA.merge(PLAIN, {**overrides, "model.encoder.init_args.width": 3})


def test_two_ways_to_one_place_are_refused():
    with pytest.raises(InvalidConfigError, match="same place"):
        SCHEMA.merge(PLAIN, {"model.lr": 1, "model.init_args.lr": 2})


def test_a_default_is_looked_up_where_the_config_is_silent():
    assert SCHEMA.lookup(PLAIN, "model.lr") == 0.1
    assert SCHEMA.lookup(PLAIN, "model.encoder.width") == 7
    assert SCHEMA.lookup(PLAIN, "model.encoder.lr") == 0.1
    with pytest.raises(InvalidConfigError, match="'model.width' has no default, and the config gives no value"):
        Schema(required).lookup({}, "model.width")


def test_real_classes_have_real_parameters():
    assert Schema(Line, Points).locate({}, "act") == ("model", "act")


@dataclasses.dataclass
class Inner:
    depth: int = 1


@dataclasses.dataclass
class Options:
    batch: int = 8
    inner: Inner = dataclasses.field(default_factory=Inner)


class Backbone:
    def __init__(self, hidden: int = 128, act: str = "relu"):
        self.hidden = hidden


class Wide(Backbone):
    def __init__(self, hidden: int = 256, extra: int = 3):
        super().__init__(hidden)


class Limits(TypedDict, total=False):
    low: int


class Nested:
    def __init__(
        self,
        opts: Options = Options(batch=16),  # noqa: B008
        chosen: Options | None = None,
        bare=Options(4),  # noqa: B008
        backbone: Backbone | None = None,
        made: Backbone = Backbone(5),  # noqa: B008
        limits: Limits | None = None,
        root: Path = Path(),
        lr: float = 0.1,
    ): ...


NESTED = Schema(model=Nested)
BACKBONE = {"class_path": f"{__name__}.Backbone" if "." in __name__ else "Backbone"}


@pytest.mark.parametrize(
    ("config", "overrides", "model"),
    [
        ({}, {"model.opts.batch": 2}, {"opts": {"batch": 2}}),
        ({}, {"model.opts.inner.depth": 2}, {"opts": {"inner": {"depth": 2}}}),
        ({}, {"model.chosen.inner.depth": 2}, {"chosen": {"inner": {"depth": 2}}}),
        ({}, {"model.bare.batch": 2}, {"bare": {"batch": 2}}),
        ({}, {"model.limits.low": 2}, {"limits": {"low": 2}}),
        ({}, {"model.backbone.hidden": 2}, {"backbone": {**BACKBONE, "init_args": {"hidden": 2}}}),
        (
            {"backbone": None},
            {"model.backbone.init_args.act": "x"},
            {"backbone": {**BACKBONE, "init_args": {"act": "x"}}},
        ),
        (
            {"backbone": "Wide"},
            {"model.backbone.extra": 2},
            {"backbone": {"class_path": "Wide", "init_args": {"extra": 2}}},
        ),
        ({"backbone": {"hidden": 2}}, {"model.backbone.act": "x"}, {"backbone": {"hidden": 2, "act": "x"}}),
        (
            {},
            {"model.backbone.extra": 2, "model.backbone.class_path": "Wide"},
            {"backbone": {"class_path": "Wide", "init_args": {"extra": 2}}},
        ),
        ({}, {"model.made.hidden": 2}, {"made": {**BACKBONE, "init_args": {"hidden": 2}}}),
    ],
)
def test_a_path_leads_into_what_an_annotation_names(config, overrides, model):
    assert NESTED.merge({"model": config}, overrides) == {"model": model}


@pytest.mark.parametrize(
    ("config", "path", "default"),
    [
        ({}, "model.opts.batch", 16),
        ({"opts": {"inner": {"depth": 2}}}, "model.opts.batch", 16),
        ({"chosen": {}}, "model.chosen.batch", 8),
        ({}, "model.opts.inner.depth", 1),
        ({}, "model.bare.batch", 4),
        ({"backbone": BACKBONE}, "model.backbone.hidden", 128),
        ({"backbone": "Wide"}, "model.backbone.hidden", 256),
    ],
)
def test_a_default_within_an_annotation_is_found(config, path, default):
    assert NESTED.lookup({"model": config}, path) == default


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("model.chosen.batch", "does not give 'model.chosen', so that 'model.chosen.batch' has no default"),
        ("model.chosen.inner.depth", "does not give 'model.chosen.inner', so that"),
        ("model.made.hidden", "does not give 'model.made', so that 'model.made.hidden' has no default"),
        ("model.opts.bach", "Did you mean 'model.opts.batch'"),
        ("model.backbone.hiden", "Did you mean 'model.backbone.hidden'"),
        ("model.root.name", "leads nowhere"),
        ("model.lr.real", "leads nowhere"),
    ],
)
def test_what_an_annotation_does_not_tell_is_an_error(path, said):
    with pytest.raises(InvalidConfigError, match=said):
        NESTED.lookup({}, path)
