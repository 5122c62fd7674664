import functools
import math

import lightning as L
import optuna
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from nets import Line, Points
from optuna.trial import FixedTrial

from lightningtune import ConfigurationError, tunable
from lightningtune.arguments import (
    check_injected,
    check_integers,
    check_optuna_kwargs,
    check_seconds,
    check_seeds,
    check_target,
    sort_callbacks,
    space_of,
)
from lightningtune.config.schema import Schema


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


@pytest.mark.parametrize("target", [Points, Line(), torch.compile(Line(), backend="eager"), 3, dict])
def test_what_builds_no_model_is_refused(target):
    with pytest.raises(ConfigurationError, match="model_class"):
        check_target("model_class", target)


@pytest.mark.parametrize(("seeds", "chosen"), [(3, [3]), ([1, 2], [1, 2]), ((0,), [0])])
def test_one_seed_or_several_are_several(seeds, chosen):
    assert [*check_seeds(seeds)] == chosen


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


def test_n_jobs_may_be_minus_one_too():
    check_integers({"n_jobs": (-1, 1)})
    for value in (0, -2, True, "2", -1.5):
        with pytest.raises(ConfigurationError) as caught:
            check_integers({"n_jobs": (value, 1)})
        assert str(caught.value) == (f"n_jobs must be an integer from 1, or -1 for as many as fit, but got {value!r}.")
    with pytest.raises(ConfigurationError, match="n_trials must be an integer from 1, but got -1"):
        check_integers({"n_trials": (-1, 1)})


def test_a_limit_of_time_is_above_zero():
    for value in (None, 0.5, 3):
        check_seconds("trial_timeout", value)
    for value in (0, 0.0, -1, math.nan, math.inf, True, "1h"):
        with pytest.raises(ConfigurationError) as caught:
            check_seconds("trial_timeout", value)
        assert str(caught.value) == (
            f"trial_timeout must be a number of seconds above 0, or None for no limit, but got {value!r}."
        )


def test_the_studys_timeout_may_be_zero_as_optunas_may():
    check_seconds("timeout", 0, may_be_zero=True)
    for value in (-1, math.nan, math.inf, False):
        with pytest.raises(ConfigurationError, match=f"timeout must be a number of seconds from 0, .* got {value}"):
            check_seconds("timeout", value, may_be_zero=True)


def test_a_keyword_of_nobodys_is_refused_with_the_nearest():
    check_optuna_kwargs({"gc_after_trial": True, "catch": (ValueError,)}, own=["n_trials"])
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
