import math

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from lightningtune.errors import SearchSpaceError
from lightningtune.search.distributions import NoDefault, describe, label, parse_parameter

plain = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=4)
yaml_values = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        | st.fixed_dictionaries(
            {
                "class_path": st.sampled_from(["a.B", "c.B", "B"]),
                "init_args": st.dictionaries(st.text(max_size=2), inner, max_size=2),
            }
        )
    ),
    max_leaves=5,
)


def distinct(values):
    return [v for i, v in enumerate(values) if not any(v == w and type(v) is type(w) for w in values[:i])]


@pytest.mark.parametrize(
    ("form", "distribution"),
    [
        (("uniform", 0, 1), FloatDistribution(0, 1)),
        (("loguniform", 1e-5, 1e-1), FloatDistribution(1e-5, 1e-1, log=True)),
        (("discrete_uniform", 0, 1, 0.25), FloatDistribution(0, 1, step=0.25)),
        (("int", 1, 5), IntDistribution(1, 5)),
        (("int", 1, 5, 2), IntDistribution(1, 5, step=2)),
        (("int_log", 1, 64), IntDistribution(1, 64, log=True)),
        (("categorical", ["a", None, 3]), CategoricalDistribution(["a", None, 3])),
        (["uniform", 0, 1], FloatDistribution(0, 1)),
        ({"type": "loguniform", "low": "1e-5", "high": 0.1}, FloatDistribution(1e-5, 0.1, log=True)),
        ({"type": "int", "low": 1, "high": 9, "step": 2}, IntDistribution(1, 9, step=2)),
        (FloatDistribution(0, 2, step=0.5), FloatDistribution(0, 2, step=0.5)),
        (CategoricalDistribution([1, 2]), CategoricalDistribution([1, 2])),
    ],
)
def test_each_form_is_the_optuna_distribution_it_names(form, distribution):
    assert parse_parameter("x", form).distribution == distribution


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (("log_uniform", 1, 2), "'log_uniform' is not a kind of parameter. Did you mean 'loguniform'"),
        ((1e-5, 1e-1), "1e-05 is not a kind of parameter"),
        (("uniform", 1), r"\('uniform', low, high\) is the form"),
        (("int", 1, 2, 3, 4), r"\('int', low, high, \[step\]\) is the form"),
        (("uniform", 2, 1), "low must not be above high, but got low=2.0, high=1.0"),
        (("loguniform", 0, 1), "a logarithmic range must be above 0, but got low=0.0"),
        (("int_log", 0, 8), "a logarithmic range must be above 0"),
        (("discrete_uniform", 0, 1, 0), "q must be above 0"),
        (("int", 1, 5, -1), "step must be above 0"),
        (("int", 1.5, 5), "low must be an integer, but got 1.5"),
        (("int", True, 5), "low must be an integer, but got True"),
        (("uniform", 0, math.inf), "high must be a finite number"),
        (("uniform", "a", 1), "low must be a finite number, but got 'a'"),
        (("categorical", []), "choices must not be empty"),
        (("categorical", "relu"), "choices must come as one list, but got 'relu'"),
        (("categorical", "relu", "gelu"), r"\('categorical', choices\) is the form"),
        (("categorical", ["a", "a"]), "the choice 'a' is given twice"),
        (("categorical", [math.nan]), "NaN cannot be a choice"),
        (("categorical", [int]), "must be a YAML value.*class_path"),
        ({"low": 1, "high": 2}, "a mapping needs 'type'"),
        ({"type": "int", "low": 1}, "int needs high"),
        ({"type": "int", "low": 1, "high": 2, "max": 3}, "int has no 'max'"),
        ({"type": "int", "low": 1, "hihg": 2}, "Did you mean 'high'"),
        ({"type": "int", "low": 1, "high": 2, "paths": "a.b"}, "paths must be a list"),
        ({"type": "int", "low": 1, "high": 2, "paths": ["a", "a"]}, "names a path twice"),
        (3, "expected one of"),
        ([], "expected one of"),
    ],
)
def test_a_wrong_form_is_refused_by_name(form, message):
    with pytest.raises(SearchSpaceError, match=message) as caught:
        parse_parameter("model.lr", form)
    assert "'model.lr'" in str(caught.value)


@pytest.mark.parametrize("name", ["", ".", "a..b", "a.", 3, None])
def test_a_name_is_a_dotted_path(name):
    with pytest.raises(SearchSpaceError, match="dotted path"):
        parse_parameter(name, ("uniform", 0, 1))


@given(st.lists(yaml_values, min_size=1, max_size=6).map(distinct))
def test_every_choice_comes_back_as_it_was_given(choices):
    parameter = parse_parameter("x", ("categorical", choices))
    stored = parameter.distribution.choices
    assert all(value is None or isinstance(value, (bool, int, float, str)) for value in stored)
    assert len(stored) == len(choices)
    for i, (kept, choice) in enumerate(zip(stored, choices, strict=True)):
        assert not any(kept == other for other in stored[:i]), "Optuna can tell them apart"
        value = parameter.value_of(kept)
        assert value == choice
        assert type(value) is type(choice)
        assert parameter.value_of(parameter.stored_as(choice)) == choice


def test_choices_are_copied_for_each_trial():
    parameter = parse_parameter("x", ("categorical", [[1, 2], [3]]))
    parameter.value_of("[1, 2]").append(9)
    assert parameter.value_of("[1, 2]") == [1, 2]


def test_labels_are_readable():
    block = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "inner": {"class_path": "a.B"}}}
    assert label(block) == "SGD(lr=0.1, inner=B())"
    stored = parse_parameter("x", ("categorical", [block, [1, 2], (3,), True, 1, "[1, 2]"])).distribution.choices
    assert stored[0] == "SGD(lr=0.1, inner=B())"
    assert stored[2:] == ("[3]", True, "1", "[1, 2]")
    assert stored[1] != "[1, 2]"


@given(
    st.sampled_from(["uniform", "loguniform", "discrete_uniform", "int", "int_log"]),
    st.integers(1, 50),
    st.integers(0, 50),
    st.integers(0, 3),
)
def test_a_suggestion_lies_within_its_bounds(kind, low, width, seed):
    high = low + width
    form = {"discrete_uniform": (kind, low, high, 1), "int": (kind, low, high, 1)}.get(kind, (kind, low, high))
    parameter = parse_parameter("x", form)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    value = parameter.suggest(study.ask())
    assert low <= value <= high
    if kind.startswith("int"):
        assert isinstance(value, int)
    if parameter.grid is not None:
        assert value in parameter.grid


@pytest.mark.parametrize(
    ("form", "grid"),
    [
        (("uniform", 0, 1), None),
        (("uniform", 2, 2), [2.0]),
        (("discrete_uniform", 0, 1, 0.25), [0, 0.25, 0.5, 0.75, 1]),
        (("int", 1, 7, 3), [1, 4, 7]),
        (("int_log", 1, 4), [1, 2, 3, 4]),
        (("categorical", [None, [1]]), [None, "[1]"]),
    ],
)
def test_a_finite_parameter_lists_its_values(form, grid):
    assert parse_parameter("x", form).grid == grid


@pytest.mark.parametrize(
    ("form", "default", "reason"),
    [
        (("categorical", ["a", 1]), "b", "not among its choices"),
        (("categorical", ["a", 1]), True, "not among its choices"),
        (("int", 1, 5), 2.5, "not an integer"),
        (("int", 1, 5), None, "not a number"),
        (("int", 1, 5), True, "not a number"),
        (("loguniform", 1e-3, 1), 0.0, "no logarithm"),
    ],
)
def test_a_default_that_cannot_be_expressed_says_why(form, default, reason):
    with pytest.raises(NoDefault, match=reason):
        parse_parameter("x", form).stored_as(default)


def test_a_number_outside_its_range_can_be_expressed():
    assert parse_parameter("x", ("int", 8, 64)).stored_as(3) == 3
    assert parse_parameter("x", ("uniform", 0.1, 0.5)).stored_as(0) == 0


def test_a_parameter_describes_itself():
    assert describe(parse_parameter("x", ("int", 8, 64, 8))) == "int 8 … 64 step 8"
    assert describe(parse_parameter("x", {"type": "uniform", "low": 0, "high": 1, "paths": ["a", "b"]})).endswith(
        "→ a, b"
    )
