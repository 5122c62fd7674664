import lightning as L
import optuna
import pytest
from nets import Line, Points

from lightningtune.config.schema import Schema
from lightningtune.contract import Objective
from lightningtune.errors import InvalidConfigError, SearchSpaceError
from lightningtune.preflight import baseline_point, check_space, notices, stored_point
from lightningtune.search.parameters import NoDefault
from lightningtune.search.spaces import as_search_space
from lightningtune.training.build import Blueprint


def given(space, config=None, model=Line):
    config = config or {}
    schema = Schema(model, Points, L.Trainer)
    return as_search_space(space), Blueprint(schema, config)


def needs_width(width: int, lr: float = 0.1):
    return Line(lr, width)


def test_a_space_whose_every_point_can_be_built_passes():
    check_space(
        *given({"lr": ("loguniform", 1e-3, 1.0), "data.batch_size": ("int", 1, 8), "trainer.max_epochs": ("int", 1, 3)})
    )


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"lrr": ("uniform", 0, 1)}, "Did you mean 'lr'"),
        ({"width": ("categorical", [1, 2, "x"])}, "'width'='x' does not fit. .*model.width"),
        ({"width": ("uniform", 1, 2)}, "'width'=1.0 does not fit"),
        (lambda trial: {"model.width": "x"}, "model.width"),
        (lambda trial: trial.suggest_float("data.lr", 0, 1) and None, "'data.lr' leads nowhere"),
        ({"trainer.accelerator": ("int", 1, 2)}, "trainer.accelerator"),
    ],
)
def test_a_point_that_cannot_be_built_is_found_before_the_first_epoch(space, message):
    with pytest.raises((InvalidConfigError, SearchSpaceError), match=message):
        check_space(*given(space))


def test_a_value_of_the_config_that_does_not_fit_is_found_where_it_varies_too():
    space = {"width": ("categorical", [1, 2]), "lr": ("uniform", 0.1, 1.0)}
    with pytest.raises(InvalidConfigError, match="'width'='x' in the config does not fit. .*model.width"):
        check_space(*given(space, {"model": {"width": "x"}}))
    check_space(*given(space, {"model": {"width": 3}}))
    check_space(*given({"width": ("categorical", [1, 2])}, {"model": {"width": None}}, needs_width))  # to be filled in


class Built(Line):
    def __init__(self, line: L.LightningModule):
        super().__init__()
        self.line = line


def test_what_stands_in_the_place_of_a_block_that_varies_need_not_take_what_the_space_gives_that():
    other = {"class_path": "nets.DiesOnce", "init_args": {}}
    blocks = [{"class_path": "nets.Line", "init_args": {}}]
    space = {"model.line": ("categorical", blocks), "model.line.width": ("int", 1, 3)}
    check_space(*given(space, {"model": {"line": other}}, Built))
    check_space(*given(space, {}, Built))


def test_a_function_that_raises_is_named():
    def space(trial):
        raise KeyError("oops")

    with pytest.raises(SearchSpaceError, match="space.* raised KeyError: 'oops'"):
        check_space(*given(space))


def test_a_function_may_prune_points_it_does_not_want():
    def space(trial):
        if trial.suggest_float("lr", 0, 1) < 0.9:
            raise optuna.TrialPruned

    check_space(*given(space))


def test_the_baseline_is_the_config_as_it_is():
    space = {"lr": ("uniform", 0, 1), "batch_size": ("int", 1, 9)}
    assert baseline_point(*given(space)) == {"lr": 0.1, "batch_size": 8}
    assert baseline_point(*given(space, {"model": {"lr": 0.5}})) == {"lr": 0.5, "batch_size": 8}


def stacked(widths: tuple[int, ...] = (4, 4)):
    return Line(width=widths[0])


def test_a_default_that_is_a_tuple_is_a_list_in_a_config():
    choices = {"widths": ("categorical", [[2, 2], [4, 4]])}
    assert baseline_point(*given(choices, model=stacked)) == {"widths": "[4, 4]"}
    assert baseline_point(*given(lambda trial: {"model.widths": [4, 4]}, model=stacked)) == {}


@pytest.mark.parametrize(
    ("space", "model", "reason"),
    [
        ({"width": ("int", 1, 9)}, needs_width, "width"),
        ({"act": ("categorical", ["gelu"])}, Line, "act='relu' is not among its choices"),
        (lambda trial: {"model.lr": trial.suggest_float("x", 0, 1)}, Line, "the search space is a function"),
    ],
)
def test_a_default_that_is_no_point_says_why(space, model, reason):
    with pytest.raises(NoDefault, match=reason):
        baseline_point(*given(space, model=model))


def test_a_given_baseline_must_be_a_whole_point():
    space = as_search_space({"lr": ("uniform", 0, 1), "width": ("int", 1, 9)})
    stored_point(space, {"lr": 0.5, "width": 3})
    for point, message in (({"lr": 0.5}, "width"), ({"lr": 0.5, "width": 3, "wdith": 3}, "wdith")):
        with pytest.raises(SearchSpaceError, match=message):
            stored_point(space, point)


def test_what_is_probably_not_meant_is_told():
    objective = Objective(("val_acc",), ("min",))
    endless, reverse = notices(objective, {})
    assert endless.subject == "config"
    assert "max_epochs is not set" in endless.detail
    assert reverse.subject == "metric"
    assert "'val_acc' is minimized" in reverse.detail
    assert [*notices(Objective(("val_loss",), ("min",)), {"trainer": {"max_steps": 9}})] == []


def changing_choices(trial):
    layers = trial.suggest_int("layers", 1, 2)
    return {"model.width": trial.suggest_categorical("width", [4, 8] if layers == 1 else [2])}


def changing_kind(trial):
    if trial.number % 2:
        return {"model.width": trial.suggest_int("width", 1, 2)}
    return {"model.lr": trial.suggest_float("width", 0.1, 0.2)}


def changing_scale(trial):
    return {"model.lr": trial.suggest_float("lr", 0.1, 0.2, log=bool(trial.number % 2))}


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (changing_choices, "'width' is categorical .* in one trial, and categorical .* in another"),
        (changing_kind, r"'width' is uniform 0.1 … 0.2 in one trial, and int 1 … 2 in another"),
        (changing_scale, "'lr' is uniform 0.1 … 0.2 in one trial, and loguniform 0.1 … 0.2 in another"),
    ],
)
def test_a_parameter_that_changes_from_trial_to_trial_is_named_before_the_first(function, said):
    with pytest.raises(SearchSpaceError, match=f"{said}.* a name of its own, such as '.*_[12]', and have the function"):
        check_space(*given(function))
