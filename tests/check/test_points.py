import optuna
import pytest

from lightningtune import SimpleSearchSpace
from lightningtune.check.points import SAMPLES, corners
from lightningtune.errors import SearchSpaceError
from lightningtune.search.spaces import as_search_space

DEFAULTS = {"lr": 0.1, "width": 4, "act": "relu"}
SPACE = {
    "lr": ("loguniform", 1e-3, 1.0),
    "width": ("int", 2, 64),
    "act": ("categorical", ["relu", "gelu", "elu", "silu"]),
}


def of(space, defaults=DEFAULTS, **options):
    default_of = None if defaults is None else lambda parameter: defaults[parameter.name]
    return corners(as_search_space(space), default_of, **options)


def test_the_defaults_come_first_and_every_end_and_choice_comes_once():
    found = of(SPACE)
    assert [corner.name for corner in found] == [
        "untuned defaults", "all low", "all high", "act=gelu", "act=elu", "lr=1", "width=64"
    ]  # fmt: skip
    assert found[1].overrides == {"lr": 1e-3, "width": 2, "act": "relu"}
    assert found[2].overrides == {"lr": 1.0, "width": 64, "act": "silu"}
    assert [corner.parameter for corner in found[3:]] == ["act", "act", "lr", "width"]
    assert {corner.base for corner in found[3:]} == {"untuned defaults"}


def test_a_default_at_its_upper_end_is_compared_with_the_lower():
    space = {"lr": ("uniform", 0, 1), "width": ("int", 1, 9)}
    assert [corner.name for corner in of(space, {"lr": 1, "width": 9})[3:]] == ["lr=0", "width=1"]


def test_a_choice_that_the_ends_have_is_tried_alone_all_the_same():
    found = of({"act": ("categorical", ["relu", "gelu"]), "width": ("int", 2, 8)})
    assert [(corner.name, corner.parameter) for corner in found[3:]] == [("act=gelu", "act"), ("width=8", "width")]


def test_an_end_at_which_one_parameter_differs_alone_is_not_tried_twice():
    found = of({"act": ("categorical", ["relu", "gelu"])})
    assert [(corner.name, corner.parameter, corner.base) for corner in found] == [
        ("untuned defaults", None, None),
        ("all low", None, None),
        ("all high", "act", "untuned defaults"),
    ]


def test_without_defaults_points_differ_from_all_low():
    found = of(SPACE, None)
    assert found[0].name == "all low"
    assert found[-1].overrides == {"lr": 1e-3, "width": 64, "act": "relu"}
    assert {corner.base for corner in found[2:]} == {"all low"}


def test_few_points_are_tried_of_many_choices_and_numbers():
    space = {f"x{i}": ("uniform", 0, 1) for i in range(40)} | {"c": ("categorical", list(range(40)))}
    found = of(space, dict.fromkeys(space, 0))
    assert len(found) == 3 + 8 + 16
    assert len({corner.name for corner in found}) == len(found)


def test_a_value_that_feeds_several_paths_feeds_all():
    space = {"size": {"type": "int", "low": 1, "high": 9, "paths": ["model.width", "data.width"]}}
    assert of(space, {"size": 1})[-1].overrides == {"model.width": 9, "data.width": 9}


def test_the_branches_of_a_function_are_found_by_its_ends_and_by_drawing():
    def space(trial):
        kind = trial.suggest_categorical("kind", ["sgd", "adam"])
        if kind == "adam":
            trial.suggest_float("beta", 0.8, 0.99)
        trial.suggest_float("lr", 0.1, 1.0)

    found = of(space)
    names = [corner.name for corner in found]
    assert names[:3] == ["untuned defaults", "all low", "all high"]
    assert names[3 : 3 + SAMPLES] == [f"drawn point {i}" for i in range(1, SAMPLES + 1)]
    assert found[1].values == {"kind": "sgd", "lr": 0.1}
    assert found[2].values == {"kind": "adam", "beta": 0.99, "lr": 1.0}
    assert [corner.name for corner in found[3 + SAMPLES :]] == ["kind=adam", "lr=1"]
    assert {corner.base for corner in found[3 + SAMPLES :]} == {"all low"}


def test_points_that_a_function_prunes_are_left_out():
    def space(trial):
        if trial.suggest_float("lr", 0, 1) > 0.5:
            raise optuna.TrialPruned

    names = [corner.name for corner in of(space, None)]
    assert names[0] == "all low"
    assert "all high" not in names
    assert [corner.name for corner in of(lambda trial: prune(), None)] == []


def prune():
    raise optuna.TrialPruned


def test_a_function_that_raises_at_an_end_is_named_with_the_point():
    def space(trial):
        return {"width": 8 // (trial.suggest_int("n", 0, 4))}

    with pytest.raises(SearchSpaceError, match=r"raised at all low \(\{'n': 0\}\): ZeroDivisionError"):
        of(space)


def test_values_are_copies():
    space = SimpleSearchSpace({"widths": ("categorical", [[1], [2]])})
    found = corners(space, lambda parameter: [1])
    found[1].overrides["widths"].append(9)
    assert corners(space, lambda parameter: [1])[1].overrides == {"widths": [1]}


def test_a_point_is_tried_once():
    assert [corner.name for corner in of({"act": ("categorical", ["relu"])})] == ["untuned defaults", "all low"]
    names = [corner.name for corner in of(lambda trial: trial.suggest_categorical("act", ["relu", "gelu"]) and None)]
    assert names == ["untuned defaults", "all low", "all high"]
