import math

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from lightningtune import SimpleSearchSpace
from lightningtune.errors import SearchSpaceError
from lightningtune.files import load_yaml
from lightningtune.search.parameters import NoDefault, describe, parse_parameter


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
        (("int", np.int64(1), np.int64(4), np.int32(3)), IntDistribution(1, 4, step=3)),
        (("uniform", np.float32(0.5), np.float64(1)), FloatDistribution(0.5, 1)),
        (["int_log", 1e1, 1e3], IntDistribution(10, 1000, log=True)),
        (["int_log", "1e1", "1e3"], IntDistribution(10, 1000, log=True)),
    ],
)
def test_each_form_is_the_optuna_distribution_it_names(form, distribution):
    assert parse_parameter("x", form).distribution == distribution


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (("log_uniform", 1, 2), "'log_uniform' is not a kind of parameter. Did you mean 'loguniform'"),
        (("float", 1e-4, 1e-1), "'float' is not a kind of parameter. Did you mean 'uniform'"),
        (("log", 1e-4, 1e-1), "Did you mean 'loguniform'"),
        (("Uniform", 0, 1), "Did you mean 'uniform'"),
        (("choice", [1, 2]), "Did you mean 'categorical'"),
        (("randint", 1, 4), "Did you mean 'int'"),
        (("integer", 1, 4), "Did you mean 'int'"),
        (("quniform", 0, 1, 0.1), "Did you mean 'discrete_uniform'"),
        ({"type": "logint", "low": 1, "high": 9}, "Did you mean 'int_log'"),
        (("normal", 0, 1), "'normal' is not a kind of parameter. Allowed"),
        ((1e-5, 1e-1), r"1e-05 is not a kind of parameter. Did you mean \('uniform', 1e-05, 0.1\)"),
        ([32, 64], r"Did you mean \('int', 32, 64\) or \('categorical', \[32, 64\]\)"),
        ([64, 32], r"Did you mean \('categorical', \[64, 32\]\)"),
        ([True, False], r"Did you mean \('categorical', \[True, False\]\)"),
        ((16, 32, 64), r"Did you mean \('categorical', \[16, 32, 64\]\)"),
        (("relu", "gelu"), r"Did you mean \('categorical', \['relu', 'gelu'\]\)"),
        (np.array([1, 2, 4]), r"Did you mean \('categorical', \[1, 2, 4\]\)"),
        ({"inner": {"x": ("uniform", 0, 1)}}, "Did you mean 'model.lr.inner.x'"),
        ({"x": {"type": "int", "low": 1, "high": 2}}, "Did you mean 'model.lr.x'"),
        ({"kind": "int"}, "a mapping needs 'type'"),
        (("uniform", 1), r"\('uniform', low, high\) is the form"),
        (("int", 1, 2, 3, 4), r"\('int', low, high, \[step\]\) is the form"),
        (("uniform", 2, 1), "low must not be above high, but got low=2.0, high=1.0"),
        (("loguniform", 0, 1), "a logarithmic range must be above 0, but got low=0.0"),
        (("int_log", 0, 8), "a logarithmic range must be above 0"),
        (("discrete_uniform", 0, 1, 0), "q must be above 0"),
        (("int", 1, 5, -1), "step must be above 0"),
        (("int", 1.5, 5), "low must be an integer, but got 1.5"),
        (("int", True, 5), "low must be an integer, but got True"),
        (("int", np.bool_(True), 5), "low must be an integer, but got"),
        (("int", 1, "many"), "high must be an integer, but got 'many'"),
        (("uniform", 0, math.inf), "high must be a finite number"),
        (("uniform", "a", 1), "low must be a finite number, but got 'a'"),
        (("categorical", []), "choices must not be empty"),
        (("categorical", "relu"), "choices must come as one list, but got 'relu'"),
        (("categorical", "relu", "gelu"), r"\('categorical', choices\) is the form"),
        (("categorical", ["a", "a"]), "the choice 'a' is given twice"),
        (("categorical", [math.nan]), "NaN cannot be a choice"),
        (("categorical", [int]), "must be a YAML value.*class_path"),
        (("categorical", [np.ndarray]), "must be a YAML value.*class_path"),
        (("categorical", [[True], [True]]), r"the choice \[True\] is given twice"),
        (("categorical", [{"a": [{True: "b"}]}]), "mapping are text or integers, but True is not; quote it: 'True'"),
        (("categorical", [{1, 2}]), "must be a YAML value.*Write it as a list"),
        (("categorical", ["\ud800"]), "half a surrogate pair"),
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
        assert parameter.count == len(parameter.grid)


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
    parameter = parse_parameter("x", form)
    assert parameter.grid == grid
    assert parameter.count == (grid and len(grid))


def test_a_large_parameter_is_counted_without_a_list_of_its_values():
    assert parse_parameter("seed", ("int", 0, 2**62)).count == 2**62 + 1
    assert parse_parameter("x", ("discrete_uniform", 0, 2**40, 1)).count == 2**40 + 1


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


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (("int", 0, 2**63), "'x': an integer must fit 64 bits"),
        (("int", 0, 10**5000), "'x': high must be an integer, but got"),
        (("uniform", -1e308, 1e308), "from -1e.308 to 1e.308 is wider than the largest float"),
        (("discrete_uniform", 0, 1, 1e-320), "'x': steps of 1e-320 are too small for the range"),
        (("discrete_uniform", 0, 1, 1e-17), "'x': steps of 1e-17 are too small for the range"),
        (FloatDistribution(-1e308, 1e308), "wider than the largest float"),
    ],
)
def test_a_range_from_which_nothing_can_be_drawn_is_refused(form, said):
    with pytest.raises(SearchSpaceError, match=said):
        parse_parameter("x", form)


@pytest.mark.parametrize("name", ["a\0", "\ud800"])
def test_a_name_that_cannot_be_stored_is_refused(name):
    with pytest.raises(SearchSpaceError, match="text that can be stored"):
        parse_parameter(name, ("uniform", 0, 1))


extreme = st.sampled_from([0, 1, -1, 2**53, 2**63 - 1, 2**63, -(2**63), 10**400, 1e-320, 1e308, -1e308, 0.1])
wild = st.recursive(
    st.none() | st.booleans() | extreme | st.floats() | st.text(max_size=3) | st.just(object()) | st.just(b"a"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
kinds = st.sampled_from(["uniform", "loguniform", "discrete_uniform", "int", "int_log", "categorical", "flot"])
wild_specs = (
    wild | st.tuples(kinds, extreme, extreme) | st.tuples(kinds, extreme, extreme, extreme) | st.tuples(kinds, wild)
)


@pytest.mark.filterwarnings("ignore:The distribution is specified by")
@given(st.text(st.characters(exclude_categories=["Cc"]), max_size=4) | st.just("x"), wild_specs)
def test_any_specification_can_be_sampled_and_read_back_or_is_refused_in_a_sentence(name, spec):
    said = ""
    try:
        space = SimpleSearchSpace({name: spec})
    except SearchSpaceError as error:
        said = str(error)
    assert "\n" not in said
    if not said:
        assert SimpleSearchSpace(load_yaml(space.to_yaml())) == space
        assert str(space)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        for _ in range(3):
            trial = study.ask()
            (value,) = {**space.suggest(trial)}.values()
            assert space.parameters[0].stored_as(value) == trial.params[name]
