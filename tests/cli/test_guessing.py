"""What is guessed of a search space."""

import enum
import inspect
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightningtune.cli.guessing import guess_space
from lightningtune.search.parameters import parse_parameter


class Solver(enum.Enum):
    ADAM = 1
    SGD = 2


def one(name, default=..., hint=None):
    """Return the guess for one argument."""

    def target(**kwargs): ...

    empty = inspect.Parameter.empty
    parameter = inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=empty if default is ... else default,
        annotation=empty if hint is None else hint,
    )
    target.__signature__ = inspect.Signature([parameter])
    target.__annotations__ = {} if hint is None else {name: hint}
    (guess,) = guess_space(target)
    return guess


TUNED = [
    ("lr", 1e-3, None, ["loguniform", 1e-5, 0.1]),
    ("learning_rate", 0.1, float, ["loguniform", 1e-3, 1.0]),
    ("lr_backbone", 3e-4, float, ["loguniform", 3e-6, 0.03]),
    ("head_lr", ..., float, ["loguniform", 1e-5, 0.1]),
    ("weight_decay", 0.01, float, ["loguniform", 1e-4, 1.0]),
    ("weight_decay", 0.0, float, ["categorical", [0.0, 1e-5, 1e-4, 1e-3, 1e-2]]),
    ("dropout", 0.1, float, ["uniform", 0.0, 0.5]),
    ("attn_drop", 0.0, float, ["uniform", 0.0, 0.5]),
    ("drop_path_rate", 0.6, float, ["uniform", 0.0, 0.6]),
    ("momentum", 0.9, float, ["uniform", 0.8, 0.99]),
    ("beta2", 0.999, float, ["uniform", 0.8, 0.9999]),
    ("label_smoothing", 0.0, float, ["uniform", 0.0, 0.3]),
    ("mixup", 0.2, float | None, ["uniform", 0.0, 0.4]),
    ("hidden", 64, None, ["categorical", [16, 32, 64, 128, 256]]),
    ("hidden_size", ..., int, ["categorical", [16, 32, 64, 128, 256]]),
    ("width", 100, int, ["int_log", 25, 400]),
    ("batch_size", 32, int, ["categorical", [8, 16, 32, 64, 128]]),
    ("num_layers", 2, int, ["int", 1, 4]),
    ("depth", 0, int, ["int", 0, 2]),
    ("ema_decay", 0.999, float, ["uniform", 0.8, 0.9999]),
    ("l1_ratio", 0.5, float, ["uniform", 0.0, 0.75]),
    ("l1_weight", 1e-4, float, ["loguniform", 1e-6, 1e-2]),
    ("hidden_channels", 16, int, ["categorical", [4, 8, 16, 32, 64]]),
    ("act", "relu", Literal["relu", "gelu"], ["categorical", ["relu", "gelu"]]),
    ("norm", None, Literal["batch", "layer"] | None, ["categorical", ["batch", "layer", None]]),
    ("solver", Solver.ADAM, Solver, ["categorical", ["ADAM", "SGD"]]),
]


@pytest.mark.parametrize(("name", "default", "hint", "expected"), TUNED)
def test_what_is_tuned(name, default, hint, expected):
    guess = one(name, default, hint)
    assert guess.is_sure
    assert parse_parameter(name, guess.spec) == parse_parameter(name, expected)
    assert guess.is_required is (default is ...)


@pytest.mark.parametrize(
    ("name", "default", "hint", "note"),
    [
        ("num_heads", 8, int, "must divide another size; default 8"),
        ("kernel_size", 3, int, "changes the shapes; default 3"),
        ("warmup_steps", 100, int, "depends on how long a trial trains; default 100"),
        ("temperature", 0.07, float, "perhaps; default 0.07"),
        ("k", 5, int, "perhaps; default 5"),
        ("eps", 1e-8, float, "seldom worth it; default 1e-08"),
        ("lr_decay", 0.95, float, "depends on how long a trial trains; default 0.95"),
        ("lr_factor", 0.1, float, "depends on how long a trial trains; default 0.1"),
        ("step_size", 30, int, "depends on how long a trial trains; default 30"),
        ("lr_min", 1e-6, float, "perhaps; default 1e-06"),
        ("mlp_ratio", 4.0, float, "perhaps; default 4.0"),
        ("channels_last", 4, int, "the data may decide it; default 4"),
        ("mel_channels", 80, int, "the data may decide it; default 80"),
        ("bias", True, None, "perhaps; default true"),
        ("pretrained", False, bool, "perhaps; default false"),
        ("backbone", "a", Literal["a", "b"], "perhaps; default 'a'"),
    ],
)
def test_what_is_proposed_and_not_tuned(name, default, hint, note):
    guess = one(name, default, hint)
    assert (guess.is_sure, guess.note) == (False, note)
    assert parse_parameter(name, guess.spec).stored_as(default) == default


@pytest.mark.parametrize(
    ("name", "default", "hint", "note"),
    [
        ("num_classes", 10, int, "the task or the data decides it; default 10"),
        ("in_features", ..., int, "the task or the data decides it; no default"),
        ("img_channels", 3, int, "the task or the data decides it; default 3"),
        ("task", "a", Literal["a", "b"], "the task or the data decides it; default 'a'"),
        ("seed", 1, None, "the task or the data decides it; default 1"),
        ("data_dir", "data", str, "the task or the data decides it; default 'data'"),
        ("shuffle", True, bool, "the task or the data decides it; default true"),
        ("activation", "relu", str, "say the choices, as {type: categorical, choices: […, …]}; default 'relu'"),
        ("clip", None, float | None, "say a range, as {type: uniform, low: …, high: …}; default null"),
        ("backbone", None, Any, "Any: not guessed; default null"),
        ("sizes", [64, 64], list[int], "list[int]: not guessed; default [64, 64]"),
        ("lr", -1.0, float, "say a range, as {type: uniform, low: …, high: …}; default -1.0"),
        ("lr", float("inf"), float, "say a range, as {type: uniform, low: …, high: …}; default inf"),
        (
            "head",
            None,
            inspect.Signature | None,
            "a class, as {class_path: package.Signature, init_args: {…}}; default null",
        ),
        ("only", "a", Literal["a"], "Literal['a']: not guessed; default 'a'"),
    ],
)
def test_what_cannot_be_guessed_is_said(name, default, hint, note):
    guess = one(name, default, hint)
    assert (guess.spec, guess.is_sure) == (None, False)
    assert guess.note.replace("typing.", "") == note


@pytest.mark.parametrize(
    ("name", "default", "bounds"),
    [("lr_decay", 0.95, (0.475, 0.975)), ("lr_factor", 0.1, (0.01, 0.55)), ("alpha", 0.9, (0.09, 0.95))],
)
def test_a_factor_stays_below_one(name, default, bounds):
    spec = one(name, default, float).spec
    assert (spec["low"], spec["high"]) == bounds


def test_an_argument_without_a_default_is_given_one_that_a_config_can_hold():
    assert one("lr", ..., float).value == 1e-3
    assert one("hidden", ..., int).value == 64
    assert one("num_layers", ..., int).value == 2
    assert one("act", ..., Literal["relu", "gelu"]).value == "relu"
    assert one("solver", Solver.SGD, Solver).value == "SGD"
    assert one("lr", 0.1, float).value is None


NAMES = st.sampled_from(
    [
        *{name for name, *_ in TUNED},
        "temperature",
        "k",
        "num_heads",
        "kernel",
        "eps",
        "gamma",
        "p",
        "stages",
        "x",
        "noise",
        "lr_decay",
        "factor",
    ]
)
RATES = {"lr", "learning_rate", "lr_backbone", "head_lr", "weight_decay", "l1_weight"}
NUMBERS = st.floats(0, 1e6, allow_nan=False) | st.integers(0, 10**6)


@given(NAMES, st.floats(0.001, 0.999))
def test_what_has_a_default_below_one_may_be_a_probability_and_stays_below_one(name, default):
    guess = one(name, default, float)
    if guess.spec is not None and name not in RATES:
        assert parse_parameter(name, guess.spec).ends[-1] < 1


@given(NAMES, NUMBERS)
def test_the_default_is_always_a_point_of_what_is_guessed(name, default):
    guess = one(name, default, type(default))
    if guess.spec is not None:
        parameter = parse_parameter(name, guess.spec)
        stored = parameter.stored_as(default)
        assert parameter.choices or parameter.ends[0] <= stored <= parameter.ends[1]
