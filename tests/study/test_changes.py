import functools

import pytest

from lightningtune.study.changes import describe_changes, name_of


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({}, {}, None),
        ({"n_trials": 5, "seed": 1}, {"n_trials": 9, "seed": 2}, None),
        ({"base_config": {"data": None}}, {"base_config": {"data": {}}}, None),
        ({"sampler": "TPESampler"}, {"sampler": "GPSampler"}, "sampler TPESampler → GPSampler"),
        ({"search_space": {"lr": [0, 1], "b": [1]}}, {"search_space": {"lr": [0, 2]}},
         "search_space.b removed, which was [1]; search_space.lr [0, 1] → [0, 2]"),
        ({"search_space": "AdvancedSearchSpace(f)"}, {"search_space": {"lr": [0, 2]}},
         "search_space removed, which was AdvancedSearchSpace(f); search_space.lr added: [0, 2]"),
        ({}, {"base_config": {f"p{i}": i for i in range(10)}},
         "; ".join(f"base_config.p{i} added: {i}" for i in range(8)) + "; and 2 more"),
    ],
)  # fmt: skip
def test_what_differs_is_named_by_its_path(before, now, told):
    expected = told and f"Changed since the last run, for the trials that follow: {told}."
    assert describe_changes(before, now) == expected


def test_a_name_is_the_same_in_every_run():
    assert name_of(None) is None
    assert name_of(test_a_name_is_the_same_in_every_run).endswith("test_changes.test_a_name_is_the_same_in_every_run")
    assert name_of(functools.partial(int, base=2)) == "functools.partial(<class 'int'>, base=2)"
    assert name_of(object()) == "<object object>"
