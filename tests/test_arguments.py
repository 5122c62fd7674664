import functools

import lightning as L
import optuna
import pytest
from lightning.pytorch.callbacks import EarlyStopping
from nets import Line, Points
from optuna.trial import FixedTrial

from lightningtune import ConfigurationError, tunable
from lightningtune.arguments import (
    check_injected,
    check_integers,
    check_optuna_kwargs,
    check_target,
    sort_callbacks,
    space_of,
)
from lightningtune.config.overrides import Schema


def test_callbacks_are_told_apart_by_what_they_are():
    stop = EarlyStopping("val_loss")
    lightning, study = sort_callbacks([print, stop])
    assert (lightning, study) == ([stop], [print])


@pytest.mark.parametrize("callbacks", [EarlyStopping("a"), [3], [EarlyStopping]])
def test_what_is_no_callback_is_refused(callbacks):
    with pytest.raises(ConfigurationError, match="callbacks"):
        sort_callbacks(callbacks)


@pytest.mark.parametrize("target", [Line, lambda: Line(), functools.partial(Line, 0.1), None])
def test_a_class_or_a_callable_builds_a_model(target):
    check_target("model_class", target)


@pytest.mark.parametrize("target", [Points, Line(), 3, dict])
def test_what_builds_no_model_is_refused(target):
    with pytest.raises(ConfigurationError, match="model_class"):
        check_target("model_class", target)


def test_objects_of_optuna_are_taken_and_nothing_else():
    check_injected(optuna.samplers.RandomSampler(), optuna.pruners.NopPruner())
    check_injected(None, None)
    with pytest.raises(ConfigurationError, match=r"Did you mean MedianPruner\(\)"):
        check_injected(None, optuna.pruners.MedianPruner)


def test_counts_are_integers_from_their_least_value():
    check_integers({"seed": (0, 0), "n_trials": (1, 1)})
    for value in (0, True, 1.0, "3", None):
        with pytest.raises(ConfigurationError, match="n_trials must be an integer from 1"):
            check_integers({"n_trials": (value, 1)})


def test_a_keyword_of_nobodys_is_refused_with_the_nearest():
    check_optuna_kwargs({"storage": "a.log", "timeout": 3, "catch": (ValueError,)}, own=["n_trials"])
    with pytest.raises(ConfigurationError, match="Did you mean 'n_trials'"):
        check_optuna_kwargs({"ntrials": 3}, own=["n_trials"])


def test_the_space_is_the_given_one_or_the_declared_ones():
    @tunable(search_space={"lr": ("uniform", 0, 1)})
    class Net(Line):
        pass

    @tunable(search_space={"batch_size": ("int", 1, 4)})
    class Data(Points):
        pass

    schema = Schema(Net, Data, L.Trainer)
    assert {p.name for p in space_of(None, schema, {}).parameters} == {"lr", "batch_size"}
    assert {p.name for p in space_of({"lr": ("uniform", 0, 2)}, schema, {}).parameters} == {"lr"}
    assert space_of(None, schema, {}).suggest(FixedTrial({"lr": 0.5, "batch_size": 2})) == {
        "model.lr": 0.5,
        "data.batch_size": 2,
    }
    with pytest.raises(ConfigurationError, match="nothing to tune"):
        space_of(None, Schema(Line, Points, L.Trainer), {})
