import copy
import enum
import pickle

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FixedTrial
from reported import needs_optuna_5

from lightningtune import AdvancedSearchSpace, SimpleSearchSpace
from lightningtune.errors import InvalidConfigError, SearchSpaceError
from lightningtune.search.parameters import NoDefault
from lightningtune.search.spaces import as_search_space, combine, in_section, override

names = st.text("abcxyz_", min_size=1, max_size=5)
numbers = st.integers(1, 1000)
forms = st.one_of(
    st.tuples(st.sampled_from(["uniform", "loguniform"]), numbers, numbers).map(lambda f: (f[0], *sorted(f[1:]))),
    st.tuples(st.just("int"), numbers, numbers, st.integers(1, 9)).map(
        lambda f: ("int", f[1], f[1] + f[2] // f[3] * f[3], f[3])
    ),
    st.lists(
        st.none() | st.booleans() | st.text(max_size=5) | st.lists(st.integers(), max_size=3),
        min_size=1,
        max_size=4,
        unique_by=repr,
    ).map(lambda c: ("categorical", c)),
)
spaces = st.dictionaries(names, forms, min_size=1, max_size=5)


def module_level(trial):
    trial.suggest_float("lr", 0, 1)


def ask():
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()


@given(spaces)
def test_a_space_survives_yaml_and_pickle(space):
    space = SimpleSearchSpace(space)
    assert SimpleSearchSpace.from_yaml(space.to_yaml()) == space
    assert pickle.loads(pickle.dumps(space)) == space
    assert eval(repr(space)) == space
    assert len(str(space).splitlines()) == 1 + len(space.parameters)


@given(spaces)
def test_a_space_suggests_each_of_its_names(space):
    trial = ask()
    values = SimpleSearchSpace(space).suggest(trial)
    assert set(values) == set(space) == set(trial.params)


def test_spaces_compare_by_what_they_hold():
    one, other = (
        SimpleSearchSpace({"a": ("int", 1, 2), "b": ("int", 1, 2)}),
        {"b": ("int", 1, 2), "a": ["int", 1, 2, 1]},
    )
    assert one == SimpleSearchSpace(other)
    assert one != SimpleSearchSpace({"a": ("int", 1, 2)})
    assert AdvancedSearchSpace(module_level) == pickle.loads(pickle.dumps(AdvancedSearchSpace(module_level)))


def test_spaces_with_choices_of_other_types_differ():
    numbers, flags = (SimpleSearchSpace({"a": ("categorical", choices)}) for choices in ([1, 0], [True, False]))
    assert numbers != flags
    assert in_section("model", numbers) != in_section("model", flags)


def test_one_value_feeds_several_paths():
    space = SimpleSearchSpace({"width": {"type": "int", "low": 1, "high": 99, "paths": ["enc.out", "dec.in"]}})
    trial = ask()
    values = space.suggest(trial)
    assert values["enc.out"] == values["dec.in"] == trial.params["width"]
    with pytest.raises(SearchSpaceError, match="'enc.out' is fed by both 'width' and 'enc.out'"):
        SimpleSearchSpace({**space.to_dict(), "enc.out": ("int", 1, 2)})


def test_a_finite_space_knows_its_size_and_makes_a_grid_samplers_grid():
    space = SimpleSearchSpace({"a": ("int", 1, 3), "b": ("categorical", [[1], None])})
    assert space.size == 6
    study = optuna.create_study(sampler=optuna.samplers.GridSampler(space.grid(), seed=0))
    seen = []
    study.optimize(lambda trial: seen.append(space.suggest(trial)) or 0.0)
    assert len(seen) == 6
    assert len({repr(values) for values in seen}) == 6
    assert SimpleSearchSpace({"a": ("uniform", 0, 1)}).size is None
    assert AdvancedSearchSpace(module_level).grid() is None
    assert AdvancedSearchSpace(module_level).size is None


def test_a_large_space_is_counted_without_its_grid():
    space = SimpleSearchSpace({"seed": ("int", 0, 2**31 - 1), "b": ("categorical", [1, 2])})
    assert space.size == 2**32
    assert str(space).startswith("2 parameters, 4,294,967,296 points")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "at least one"),
        ([("lr", 1)], "must map names"),
        ({"a": 3}, "expected one of"),
        ({"model": {"init_args": {"lr": ("uniform", 0, 1)}}}, "Did you mean 'model.init_args.lr'"),
    ],
)
def test_a_mapping_that_is_no_space_is_refused(space, message):
    with pytest.raises(SearchSpaceError, match=message):
        SimpleSearchSpace(space)


def test_a_space_is_read_from_a_file_or_a_text(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("lr: {type: loguniform, low: 1e-5, high: 1e-1}\nhidden: [int, 8, 64]\n")
    expected = SimpleSearchSpace({"lr": ("loguniform", 1e-5, 1e-1), "hidden": ("int", 8, 64)})
    assert SimpleSearchSpace.from_yaml(path) == SimpleSearchSpace.from_yaml(path.read_text()) == expected
    assert as_search_space(path) == as_search_space(str(path)) == expected
    with pytest.raises(InvalidConfigError, match="does not exist"):
        as_search_space("missing.yaml")


@pytest.mark.parametrize(
    "text",
    [
        '{"lr":["loguniform",1e-5,0.1]}',
        '  {"lr":{"type":"loguniform","low":1e-5,"high":0.1}}',
        "{lr: [loguniform, 1e-5, 0.1]}",
        "lr: [loguniform, 1e-5, 0.1]",
        "lr:\n- loguniform\n- 1e-5\n- 0.1",
    ],
)
def test_a_text_is_told_from_a_path(text):
    assert SimpleSearchSpace.from_yaml(text) == SimpleSearchSpace({"lr": ("loguniform", 1e-5, 0.1)})


def test_a_path_is_told_from_a_text(tmp_path):
    path = tmp_path / "run: 1.json"
    path.write_text('{"lr": ["uniform", 0, 1]}')
    assert SimpleSearchSpace.from_yaml(str(path)) == SimpleSearchSpace({"lr": ("uniform", 0, 1)})


# --- functions of the trial --------------------------------------------------------------------------------------


@pytest.mark.parametrize("returns", [lambda trial: None, lambda trial: trial])
def test_a_function_that_returns_nothing_or_the_trial_suggests_paths(returns):
    def space(trial):
        trial.suggest_float("model.lr", 0, 1)
        if trial.suggest_categorical("model.big", [True, False]):
            trial.suggest_int("model.width", 8, 16)
        return returns(trial)

    trial = ask()
    assert as_search_space(space).suggest(trial) == trial.params


def test_a_function_that_returns_a_mapping_names_its_values_itself():
    def space(trial):
        depth = trial.suggest_int("depth", 2, 2)
        return {"model.widths": [trial.suggest_int(f"w{i}", 1, 9) for i in range(depth)], "model.act": "relu"}

    trial = ask()
    values = AdvancedSearchSpace(space).suggest(trial)
    assert values == {"model.widths": [trial.params["w0"], trial.params["w1"]], "model.act": "relu"}


def test_a_function_may_choose_among_any_yaml_values():
    block = {"class_path": "a.B"}
    trial = ask()
    values = AdvancedSearchSpace(lambda t: {"x": t.suggest_categorical("x", [block])}).suggest(trial)
    assert values == {"x": block}
    assert trial.params == {"x": "B()"}


@needs_optuna_5
def test_a_function_sees_the_trial_behind():
    def space(trial):
        trial.set_constraint("c", trial.suggest_float("x", 1, 2))
        trial.set_user_attr("number", trial.number)

    study = optuna.create_study()
    trial = study.ask()
    AdvancedSearchSpace(space).suggest(trial)
    study.tell(trial, 0.0)
    assert study.trials[0].constraints == {"c": trial.params["x"]}
    assert study.trials[0].user_attrs == {"number": 0}


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda trial: 3, "returned 3"),
        (lambda trial: {1: 2}, "returned {1: 2}"),
        (lambda trial: trial.suggest_float("x", 2, 1), "'x'"),
        (lambda trial: trial.suggest_float("x", 0, 1, log=True), "'x'"),
        (lambda trial: trial.suggest_categorical("x", []), "'x': choices must not be empty"),
    ],
)
def test_a_function_that_misbehaves_is_told_so(fn, message):
    with pytest.raises(SearchSpaceError, match=message):
        AdvancedSearchSpace(fn).suggest(ask())


def test_deprecated_suggestions_are_refused():
    with pytest.raises(AttributeError, match="suggest_uniform is not supported"):
        AdvancedSearchSpace(lambda trial: trial.suggest_uniform("x", 0, 1)).suggest(ask())


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_function_may_copy_the_trial(copied):
    space = AdvancedSearchSpace(lambda trial: {"x": copied(trial).suggest_int("x", 1, 9)})
    assert space.suggest(FixedTrial({"x": 3})) == {"x": 3}


@pytest.mark.parametrize("value", [3, None, dict, object()])
def test_what_is_no_space_is_refused(value):
    with pytest.raises(SearchSpaceError):
        as_search_space(value)
    with pytest.raises(SearchSpaceError):
        AdvancedSearchSpace(3)


# --- fixed values and defaults -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "space",
    [
        SimpleSearchSpace({"a": ("int", 1, 9), "b": ("int", 1, 9)}),
        AdvancedSearchSpace(lambda trial: [trial.suggest_int(name, 1, 9) for name in "ab"] and None),
    ],
)
def test_fixed_names_are_not_sampled(space):
    trial = ask()
    assert set(space.suggest(trial, {"a": 100})) == {"b"}
    assert set(trial.params) == {"b"}


def test_a_function_sees_the_fixed_value():
    def space(trial):
        return {"b": trial.suggest_int("a", 1, 9) + 1}

    assert AdvancedSearchSpace(space).suggest(ask(), {"a": 100}) == {"b": 101}


def test_defaults_become_a_point():
    defaults = {"lr": 0.5, "act": ["relu"], "wide": True, "width": 4}
    space = SimpleSearchSpace({"lr": ("uniform", 0, 1), "act": ("categorical", [["relu"], "gelu"])}) | (
        lambda trial: trial.suggest_categorical("wide", [True, False]) and trial.suggest_int("width", 1, 9) and None
    )
    assert space.defaults(defaults.__getitem__) == {"lr": 0.5, "act": '["relu"]', "wide": True, "width": 4}


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


def test_a_default_may_be_a_member_of_an_enum():
    space = SimpleSearchSpace({"colour": ("categorical", ["RED", "BLUE"])})
    assert space.defaults({"colour": Colour.BLUE}.__getitem__) == {"colour": "BLUE"}


def test_defaults_that_differ_in_type_are_no_point():
    space = AdvancedSearchSpace(lambda trial: {"wide": int(trial.suggest_categorical("wide", [True, False]))})
    with pytest.raises(NoDefault, match="wide is True by default, but the search space makes it 1"):
        space.defaults({"wide": True}.__getitem__)


def test_defaults_that_the_space_would_change_are_no_point():
    space = AdvancedSearchSpace(lambda trial: {"lr": trial.suggest_float("lr", 0, 1) * 2})
    with pytest.raises(NoDefault, match="lr is 0.5 by default, but the search space makes it 1.0"):
        space.defaults({"lr": 0.5}.__getitem__)


# --- several spaces ----------------------------------------------------------------------------------------------


def test_simple_spaces_combine_to_a_simple_one():
    joined = SimpleSearchSpace({"a": ("int", 1, 2)}) | {"b": ("int", 1, 2)}
    assert joined == SimpleSearchSpace({"a": ("int", 1, 2), "b": ("int", 1, 2)})
    assert {"c": ("int", 1, 2)} | joined == combine(SimpleSearchSpace({"c": ("int", 1, 2)}), joined)


def test_functions_combine_with_mappings():
    joined = SimpleSearchSpace({"a": ("int", 1, 9)}) | (lambda trial: {"c": trial.suggest_int("b", 1, 9)})
    trial = ask()
    assert joined.suggest(trial) == {"a": trial.params["a"], "c": trial.params["b"]}
    assert joined.parameters is None


def test_a_name_that_is_defined_twice_is_an_error():
    a = SimpleSearchSpace({"a": ("int", 1, 2)})
    with pytest.raises(SearchSpaceError, match="'a' is defined twice"):
        a | {"a": ("int", 1, 3)}
    for second in (
        lambda trial: trial.suggest_int("a", 1, 2) and None,
        lambda trial: {"a": trial.suggest_int("b", 1, 2)},
    ):
        with pytest.raises(SearchSpaceError, match="'a' is defined twice"):
            (a | second).suggest(ask())


def test_a_name_of_model_and_data_is_told_what_to_do():
    lr = {"lr": ("uniform", 0, 1)}
    model, data = (in_section(section, SimpleSearchSpace(lr)) for section in ("model", "data"))
    remedy = r"""{"other_lr": {"type": ..., "paths": \["lr"\]}}.*'model.lr' and 'data.lr'"""
    with pytest.raises(SearchSpaceError, match=f"'lr' is defined twice .*{remedy}"):
        combine(model, data)
    function = in_section("data", AdvancedSearchSpace(lambda trial: trial.suggest_float("lr", 0, 1) and None))
    with pytest.raises(SearchSpaceError, match=f"'lr' is defined twice .*{remedy}"):
        combine(model, function).suggest(ask())
    other = in_section("data", SimpleSearchSpace({"other_lr": {"type": "int", "low": 1, "high": 9, "paths": ["lr"]}}))
    assert set(combine(model, other).suggest(ask())) == {"model.lr", "data.lr"}
    with pytest.raises(SearchSpaceError, match="'model.lr' is defined twice .* Leave one out"):
        combine(SimpleSearchSpace({"model.lr": ("int", 1, 2)}), SimpleSearchSpace({"model.lr": ("int", 1, 2)}))


def test_the_child_overrides_its_parent():
    parent = SimpleSearchSpace({"a": ("int", 1, 2), "b": ("int", 1, 2)})
    child = SimpleSearchSpace({"a": ("int", 8, 9)})
    assert override(child, parent) == SimpleSearchSpace({"a": ("int", 8, 9), "b": ("int", 1, 2)})
    fn = AdvancedSearchSpace(lambda trial: trial.suggest_int("a", 8, 9) and None)
    for space in (
        override(fn, parent),
        override(child, AdvancedSearchSpace(lambda t: [t.suggest_int(n, 1, 2) for n in "ab"] and None)),
    ):
        trial = ask()
        values = space.suggest(trial)
        assert values["a"] >= 8
        assert values["b"] <= 2
        assert trial.params == values


def test_a_space_of_a_class_is_placed_in_its_section():
    simple = in_section("data", SimpleSearchSpace({"batch_size": ("int", 1, 4)}))
    assert simple.suggest(FixedTrial({"batch_size": 2})) == {"data.batch_size": 2}
    assert [parameter.paths for parameter in simple.parameters] == [("data.batch_size",)]
    conditional = in_section("model", AdvancedSearchSpace(lambda trial: trial.suggest_int("depth", 1, 3) and None))
    assert conditional.suggest(FixedTrial({"depth": 2})) == {"model.depth": 2}
    assert conditional.defaults({"model.depth": 3}.__getitem__) == {"depth": 3}
    assert conditional != in_section("data", conditional.space)
