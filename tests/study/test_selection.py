import pytest

from lightningtune import ConfigurationError
from lightningtune.study.selection import Condition, find_column, list_columns, parse_condition, select

ROWS = [
    {"number": 0, "state": "complete", "val_acc": 0.5, "params.model.lr": 0.1, "params.opt": "sgd", "params.depth": 1},
    {"number": 1, "state": "pruned", "val_acc": 0.7, "params.model.lr": 0.01, "params.opt": "adam", "params.depth": 2},
    {"number": 2, "state": "fail", "val_acc": None, "params.model.lr": 1.0, "params.opt": "1", "params.depth": None},
]


def numbers(**asked):
    conditions = [parse_condition(text) for text in asked.pop("where", ())]
    return [row["number"] for row in select(ROWS, conditions=conditions, **asked)]


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("lr<1e-3", Condition("lr", "<", 0.001)),
        ("lr <= 1", Condition("lr", "<=", 1)),
        ("opt==sgd", Condition("opt", "==", "sgd")),
        ("opt != 'a b'", Condition("opt", "!=", "a b")),
        ("detail=a=b", Condition("detail", "=", "a=b")),
        ("use_bias=true", Condition("use_bias", "=", True)),
    ],
)
def test_a_condition_is_a_column_a_sign_and_a_value(text, condition):
    assert parse_condition(text) == condition


@pytest.mark.parametrize("text", ["", "lr", "<3", "lr<", "=", "lr<[1"])
def test_what_is_no_condition_is_refused(text):
    with pytest.raises(ConfigurationError, match=r"no condition|not valid YAML"):
        parse_condition(text)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, [0, 1, 2]),
        ({"states": ["fail", "pruned"]}, [1, 2]),
        ({"where": ["val_acc>0.4"]}, [0, 1]),
        ({"where": ["val_acc>0.4", "lr<0.05"]}, [1]),
        ({"where": ["opt=1"]}, [2]),  # a number in YAML, but the column holds text
        ({"where": ["opt!=sgd"]}, [1, 2]),
        ({"where": ["depth!=1"]}, [1]),  # what is not there is not unequal
        ({"sort": "val_acc"}, [0, 1, 2]),
        ({"sort": "val_acc", "descending": True}, [1, 0, 2]),
        ({"sort": "opt"}, [2, 1, 0]),
        ({"sort": "lr", "limit": 1}, [1]),
    ],
)
def test_rows_are_chosen_sorted_and_limited(asked, expected):
    assert numbers(**asked) == expected


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"where": ["val_ac>1"]}, r"no column 'val_ac'\. Did you mean 'val_acc'\? There: number, state, val_acc, "),
        ({"sort": "dept"}, "Did you mean 'depth'"),
        ({"where": ["opt<3"]}, r"'opt' is not compared with 3 by '<': it is 'sgd', say\."),
        ({"where": ["lr<x"]}, "'model.lr' is not compared with 'x'"),
    ],
)
def test_a_column_that_is_not_there_or_cannot_be_compared_is_named(asked, says):
    with pytest.raises(ConfigurationError, match=says):
        numbers(**asked)


def test_a_last_part_that_two_have_is_ambiguous():
    columns = ["number", "params.model.lr", "params.data.lr", "params.epochs", "epochs"]
    with pytest.raises(ConfigurationError, match=r"'lr' may be model\.lr or data\.lr"):
        find_column("lr", columns)
    assert find_column("model.lr", columns) == "params.model.lr"
    assert (find_column("epochs", columns), find_column("params.epochs", columns)) == ("epochs", "params.epochs")


def test_of_no_trials_every_question_has_an_answer():
    assert select([], conditions=[parse_condition("anything<3")], sort="whatever") == []
    assert list_columns([]) == []
