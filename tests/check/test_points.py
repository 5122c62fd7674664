import optuna
import pytest
from optuna.pruners import (
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
)

from lightningtune import SimpleSearchSpace
from lightningtune.check.points import DRAWN_POINTS, dry_run_points, try_pruner
from lightningtune.errors import SearchSpaceError
from lightningtune.search.spaces import as_search_space

DEFAULTS = {"lr": 0.1, "width": 4, "act": "relu"}
SPACE = {
    "lr": ("loguniform", 1e-3, 1.0),
    "width": ("int", 2, 64),
    "act": ("categorical", ["relu", "gelu", "elu", "silu"]),
}


def find(space, defaults=DEFAULTS):
    space = as_search_space(space)
    names = [parameter.name for parameter in space.parameters or ()]
    return dry_run_points(space, defaults and {name: defaults[name] for name in names})


def test_the_defaults_come_first_and_every_end_and_choice_comes_once():
    found = find(SPACE)
    assert [point.name for point in found] == [
        "untuned defaults", "all low", "all high", "act=gelu", "act=elu", "lr=1", "width=64"
    ]  # fmt: skip
    assert found[1].overrides == {"lr": 1e-3, "width": 2, "act": "relu"}
    assert found[2].overrides == {"lr": 1.0, "width": 64, "act": "silu"}
    assert [point.parameter for point in found[3:]] == ["act", "act", "lr", "width"]
    assert {point.base for point in found[3:]} == {"untuned defaults"}


def test_a_default_at_its_upper_end_is_compared_with_the_lower():
    space = {"lr": ("uniform", 0, 1), "width": ("int", 1, 9)}
    assert [point.name for point in find(space, {"lr": 1, "width": 9})[3:]] == ["lr=0", "width=1"]


def test_a_choice_that_the_ends_have_is_tried_alone_all_the_same():
    found = find({"act": ("categorical", ["relu", "gelu"]), "width": ("int", 2, 8)})
    assert [(point.name, point.parameter) for point in found[3:]] == [("act=gelu", "act"), ("width=8", "width")]


def test_an_end_at_which_one_parameter_differs_alone_is_not_tried_twice():
    found = find({"act": ("categorical", ["relu", "gelu"])})
    assert [(point.name, point.parameter, point.base) for point in found] == [
        ("untuned defaults", None, None),
        ("all low", None, None),
        ("all high", "act", "untuned defaults"),
    ]


def test_without_defaults_points_differ_from_all_low():
    found = find(SPACE, None)
    assert found[0].name == "all low"
    assert found[-1].overrides == {"lr": 1e-3, "width": 64, "act": "relu"}
    assert {point.base for point in found[2:]} == {"all low"}


def test_few_points_are_tried_of_many_choices_and_numbers():
    space = {f"x{i}": ("uniform", 0, 1) for i in range(40)} | {"c": ("categorical", list(range(40)))}
    found = find(space, dict.fromkeys(space, 0))
    assert len(found) == 3 + 8 + 16
    assert len({point.name for point in found}) == len(found)


def test_a_value_that_feeds_several_paths_feeds_all():
    space = {"size": {"type": "int", "low": 1, "high": 9, "paths": ["model.width", "data.width"]}}
    assert find(space, {"size": 1})[-1].overrides == {"model.width": 9, "data.width": 9}


def test_the_branches_of_a_function_are_found_by_its_ends_and_by_drawing():
    def space(trial):
        kind = trial.suggest_categorical("kind", ["sgd", "adam"])
        if kind == "adam":
            trial.suggest_float("beta", 0.8, 0.99)
        trial.suggest_float("lr", 0.1, 1.0)

    found = find(space)
    names = [point.name for point in found]
    assert names[:3] == ["untuned defaults", "all low", "all high"]
    assert names[3 : 3 + DRAWN_POINTS] == [f"drawn point {i}" for i in range(1, DRAWN_POINTS + 1)]
    assert found[1].values == {"kind": "sgd", "lr": 0.1}
    assert found[2].values == {"kind": "adam", "beta": 0.99, "lr": 1.0}
    assert [point.name for point in found[3 + DRAWN_POINTS :]] == ["kind=adam", "lr=1"]
    assert {point.base for point in found[3 + DRAWN_POINTS :]} == {"all low"}


def test_points_that_a_function_prunes_are_left_out():
    def space(trial):
        if trial.suggest_float("lr", 0, 1) > 0.5:
            raise optuna.TrialPruned

    names = [point.name for point in find(space, None)]
    assert names[0] == "all low"
    assert "all high" not in names
    assert [point.name for point in find(lambda trial: prune(), None)] == []


def prune():
    raise optuna.TrialPruned


def test_a_function_that_raises_at_an_end_is_named_with_the_point():
    def space(trial):
        return {"width": 8 // (trial.suggest_int("n", 0, 4))}

    with pytest.raises(SearchSpaceError, match=r"raised at all low \(\{'n': 0\}\): ZeroDivisionError"):
        find(space)


def test_values_are_copies():
    space = SimpleSearchSpace({"widths": ("categorical", [[1], [2]])})
    found = dry_run_points(space, {"widths": [1]})
    found[1].overrides["widths"].append(9)
    assert dry_run_points(space, {"widths": [1]})[1].overrides == {"widths": [1]}


def test_a_point_is_tried_once():
    assert [point.name for point in find({"act": ("categorical", ["relu"])})] == ["untuned defaults", "all low"]
    names = [point.name for point in find(lambda trial: trial.suggest_categorical("act", ["relu", "gelu"]) and None)]
    assert names == ["untuned defaults", "all low", "all high"]


# --- pruners ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pruner", "trials", "validations", "first"),
    [
        (None, 30, 10, (5, 0)),
        (MedianPruner(n_startup_trials=2, n_warmup_steps=3), 30, 10, (2, 3)),
        (MedianPruner(n_warmup_steps=9), 30, 10, None),
        (MedianPruner(n_startup_trials=30), 30, 10, None),
        (PercentilePruner(25.0, n_startup_trials=1), 30, 10, (1, 0)),
        (SuccessiveHalvingPruner(min_resource=1), 30, 10, (1, 1)),
        (SuccessiveHalvingPruner(), 30, 10, (2, 1)),
        (SuccessiveHalvingPruner(min_resource=10), 30, 10, None),
        (None, 30, 1, None),
    ],
)
def test_what_prunes_in_a_study_is_seen_by_trying(pruner, trials, validations, first):
    schedule = try_pruner(pruner, "study", trials, validations)
    assert schedule.is_whole
    assert (schedule.first_trial, schedule.first_step) == (first or (None, None))


def test_some_brackets_of_hyperband_prune():
    schedule = try_pruner(HyperbandPruner(max_resource=27), "study", 60, 27)
    assert schedule.pruner == "HyperbandPruner"
    assert schedule.first_trial is not None


def test_the_pruner_itself_is_left_alone_and_nothing_is_said(capfd):
    pruner = HyperbandPruner()
    before = repr(vars(pruner))
    try_pruner(pruner, "study", 30, 10)
    assert repr(vars(pruner)) == before
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("pruner", [NopPruner(), ThresholdPruner(upper=1.0)])
def test_pruners_that_do_not_compare_trials_are_not_tried(pruner):
    assert try_pruner(pruner, "study", 30, 10).trials == 0
    assert try_pruner(MedianPruner(), "study", 30, None).trials == 0


def test_of_a_very_long_study_only_a_part_is_tried():
    schedule = try_pruner(MedianPruner(n_startup_trials=500), "study", 1000, 5000)
    assert (schedule.is_whole, schedule.trials, schedule.first_trial) == (False, 10, None)


def test_hyperbands_max_resource_is_where_it_is_looked_for():
    assert try_pruner(HyperbandPruner(max_resource=81), "study", 30, None).max_resource == 81
    assert try_pruner(HyperbandPruner(), "study", 30, None).max_resource is None
    default = try_pruner(None, "study", 30, None)
    assert (default.pruner, default.is_given, default.max_resource) == ("MedianPruner", False, None)
