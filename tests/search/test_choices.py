import datetime
import enum
from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightningtune.config.values import same
from lightningtune.errors import SearchSpaceError
from lightningtune.search.parameters import NoDefault, parse_parameter
from lightningtune.study.sampling import (
    EnqueuingStudy,
)

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
    return [v for i, v in enumerate(values) if not any(same(v, w) for w in values[:i])]


def categorical(*choices):
    return parse_parameter("x", ("categorical", choices))


@given(st.lists(yaml_values, min_size=1, max_size=6).map(distinct))
def test_every_choice_comes_back_as_it_was_given(choices):
    parameter = parse_parameter("x", ("categorical", choices))
    stored = parameter.distribution.choices
    assert all(value is None or isinstance(value, (bool, int, float, str)) for value in stored)
    assert len(stored) == len(choices)
    for i, (kept, choice) in enumerate(zip(stored, choices, strict=True)):
        assert not any(kept == other for other in stored[:i]), "Optuna can tell them apart"
        value = parameter.value_of(kept)
        assert same(value, choice)
        assert same(parameter.value_of(parameter.stored_as(choice)), choice)


def test_choices_are_copied_for_each_trial():
    parameter = parse_parameter("x", ("categorical", [[1, 2], [3]]))
    parameter.value_of("[1, 2]").append(9)
    assert parameter.value_of("[1, 2]") == [1, 2]


def test_labels_are_readable():
    block = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "inner": {"class_path": "a.B"}}}
    stored = parse_parameter("x", ("categorical", [block, [1, 2], (3,), True, 1, "[1, 2]"])).distribution.choices
    assert stored[0] == "SGD(lr=0.1, inner=B())"
    assert stored[2:] == ("[3]", True, "1", "[1, 2]")
    assert stored[1] != "[1, 2]"


@pytest.mark.parametrize(
    "choices", [[[1], [True]], [{"a": 0}, {"a": False}], [1, 1.0, True], [[[1]], [[1.0]], [[True]]], [0, False, [0]]]
)
def test_choices_differ_by_type_at_every_depth(choices):
    parameter = categorical(*choices)
    for stored, choice in zip(parameter.distribution.choices, choices, strict=True):
        assert same(parameter.value_of(stored), choice)
        assert parameter.stored_as(choice) == stored


def test_parameters_are_equal_when_their_choices_are_of_the_same_types():
    assert categorical(1, 0) == categorical(1, 0)
    assert categorical(1, 0) != categorical(True, False)
    assert categorical([1]) != categorical([True])
    assert categorical(1) != categorical(1.0)
    assert hash(categorical(1, 0)) == hash(categorical(1, 0))


def test_a_number_is_found_whether_integer_or_float():
    parameter = categorical(0.1, 1.0, [1, 2.0])
    assert parameter.stored_as(1) == 1.0
    assert type(parameter.value_of(1)) is float, "as a user may enqueue it"
    assert parameter.value_of(parameter.stored_as([1.0, 2])) == [1, 2.0]
    with pytest.raises(NoDefault, match="not among its choices"):
        parameter.stored_as(True)
    with pytest.raises(SearchSpaceError, match="x=True is not among what is stored"):
        parameter.value_of(True)


def test_numpys_numbers_and_arrays_are_choices():
    for choices in (np.arange(3), [np.int64(0), np.float64(1), np.array(2)], np.array([[1, 2], [3, 4]])):
        values = parse_parameter("x", ("categorical", choices)).choices
        assert all(type(value) in (int, float, list) for value in values)
        assert len(values) == len(choices)
    assert categorical(np.array([1, 2]), {"a": np.array([0.5])}).choices == ([1, 2], {"a": [0.5]})


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


def test_a_member_of_an_enum_is_its_name():
    assert categorical("RED", "BLUE").stored_as(Colour.BLUE) == "BLUE"
    nested = categorical(["RED"], ["RED", "BLUE"])
    assert nested.value_of(nested.stored_as((Colour.RED,))) == ["RED"]
    with pytest.raises(NoDefault, match="not among its choices"):
        categorical("red", 1).stored_as(Colour.RED)


def test_a_choice_stays_what_it_is_and_is_stored_by_what_a_config_holds():
    given = [Colour.RED, (1, 2), Path("data"), datetime.date(2024, 3, 1), None]
    parameter = categorical(*given)
    assert parameter.distribution.choices == ("RED", "[1, 2]", "data", "2024-03-01", None)
    assert [parameter.value_of(stored) for stored in parameter.distribution.choices] == given
    assert parameter.to_spec()["choices"] == ["RED", [1, 2], "data", "2024-03-01", None]
    assert [parameter.stored_as(value) for value in ("RED", [1, 2], "data")] == ["RED", "[1, 2]", "data"]
    assert categorical(*Colour) == parse_parameter("x", ("categorical", Colour)) == categorical("RED", "BLUE")
    with pytest.raises(SearchSpaceError, match="the choice 'RED' is given twice"):
        categorical(Colour.RED, "RED")


@pytest.mark.parametrize("name", ["memory", "journal"])
def test_a_choice_is_queued_as_the_user_writes_it(tmp_path, name):
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    storage = optuna.storages.InMemoryStorage() if name == "memory" else optuna.storages.JournalStorage(backend)
    optuna.create_study(study_name="queue", storage=storage)
    study = EnqueuingStudy("queue", storage)
    parameters = [categorical([8], [16, 8]), parse_parameter("act", ("categorical", Colour))]
    lr = parse_parameter("lr", ("uniform", 0, 1))
    study.enqueue_trial({"x": (16, 8), "act": Colour.BLUE, "lr": np.float32(0.5)})
    study.enqueue_trial({"x": "[8]", "act": "RED"})
    optuna.load_study(study_name="queue", storage=storage).enqueue_trial({"x": [16, 8]})
    asked = [study.ask() for _ in range(3)]
    values = [[parameter.suggest(trial) for parameter in parameters] for trial in asked]
    assert values[:2] == [[[16, 8], Colour.BLUE], [[8], Colour.RED]]
    assert values[2][0] == [16, 8]
    assert lr.suggest(asked[0]) == 0.5
    assert study.trials[0].params == {"x": "[16, 8]", "act": "BLUE", "lr": 0.5}
    for wrong, said in (
        ({"x": [1]}, r"x=\[1\] is not among its choices"),
        ({"lr": "high"}, "lr='high' is not a number"),
    ):
        study.enqueue_trial(wrong)
        trial = study.ask()
        with pytest.raises(SearchSpaceError, match=f"enqueue_trial: {said}"):
            [parameter.suggest(trial) for parameter in (*parameters, lr)]
    with pytest.raises(SearchSpaceError, match="enqueue_trial: x: <object"):
        study.enqueue_trial({"x": object()})
