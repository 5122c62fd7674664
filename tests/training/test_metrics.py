"""The score of a trial, and metrics that are missing."""

import math

import pytest
from fits import BATCHES, Scripted, TrainMetricWithValidation, TrainOnly, data, trainer
from hypothesis import given
from hypothesis import strategies as st

from lightningtune.contract import Objective, SilentReporter
from lightningtune.errors import MetricError
from lightningtune.training.callback import TrialCallback
from lightningtune.training.metrics import best_index, describe_non_finite, reduce_to_score

values = st.floats(allow_nan=True, allow_infinity=True)
finite = st.floats(-1e6, 1e6)
modes = st.sampled_from(["min", "max"])


def history_of(element, **sizes):
    return st.lists(st.tuples(element), **sizes)


# --- the best value, and the score -------------------------------------------------------------------------------


@given(history_of(values), modes)
def test_the_best_is_the_earliest_of_the_finite_extremes(history, mode):
    found = [value for (value,) in history if math.isfinite(value)]
    index = best_index(history, mode)
    if not found:
        assert index is None
    else:
        best = min(found) if mode == "min" else max(found)
        assert index == next(i for i, (value,) in enumerate(history) if value == best)


@given(history_of(finite, min_size=1), modes)
def test_the_score_is_the_best_or_the_last_value(history, mode):
    assert reduce_to_score(history, Objective(("m",), (mode,))) == ((min if mode == "min" else max)(history))
    assert reduce_to_score(history, Objective(("m",), (mode,), score="last")) == history[-1]


@given(history_of(finite, min_size=1))
def test_a_function_gets_the_plain_values_of_one_metric(history):
    def spread(found):
        assert all(isinstance(value, float) for value in found)
        return max(found) - min(found)

    expected = max(history)[0] - min(history)[0]
    assert reduce_to_score(history, Objective(("m",), ("min",), score=spread)) == (expected,)


@given(st.lists(st.tuples(finite, finite), min_size=1), modes, modes)
def test_the_score_of_several_metrics_belongs_to_one_validation(history, first, second):
    score = reduce_to_score(history, Objective(("a", "b"), (first, second)))
    assert score in history
    assert score[0] == (min if first == "min" else max)(history)[0]


@given(st.lists(st.tuples(finite, finite), min_size=1))
def test_a_function_gets_the_tuples_of_several_metrics(history):
    objective = Objective(("a", "b"), ("min", "max"), score=lambda found: found[0])
    assert reduce_to_score(history, objective) == history[0]


@given(history_of(values, min_size=1), modes)
def test_the_score_is_finite_where_any_value_is(history, mode):
    score = reduce_to_score(history, Objective(("m",), (mode,)))
    assert math.isfinite(score[0]) == any(math.isfinite(value) for (value,) in history)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_value_that_is_no_number_is_named(bad):
    assert describe_non_finite(("a", "b"), (1.0, bad)) == f"b is {bad}"
    assert describe_non_finite(("a", "b"), (bad, bad)) == f"a is {bad}"
    assert describe_non_finite(("a", "b"), (1.0, 2.0)) is None


# --- the last validation -----------------------------------------------------------------------------------------


def fit(model, monitor, *loaders, **given):
    watcher = TrialCallback(Objective((monitor,), ("min",)), SilentReporter())
    trainer(watcher, **given).fit(model, *loaders)
    return watcher


@pytest.mark.parametrize(
    ("model", "given", "why"),
    [
        (TrainMetricWithValidation, {"limit_val_batches": 0}, "limit_val_batches is 0"),
        (TrainMetricWithValidation, {"limit_val_batches": 0.0}, "limit_val_batches is 0"),
        (
            TrainMetricWithValidation,
            {"check_val_every_n_epoch": 9, "max_epochs": 3},
            "check_val_every_n_epoch=9 is more than max_epochs=3",
        ),
        (TrainOnly, {}, "TrainOnly has no validation_step"),
    ],
)
@pytest.mark.parametrize("monitor", ["val_loss", "train_los", "value"])
@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no `validation_step`")
def test_where_no_validation_runs_the_reason_is_given(model, given, why, monitor):
    built, epochs = model(), given.get("max_epochs", 2)
    given = {"max_epochs": epochs, **given}
    if monitor == "val_loss":  # no epoch of training will log that
        with pytest.raises(MetricError) as caught:
            fit(built, monitor, data(), data(), **given)
        error = caught.value
    else:
        error = fit(built, monitor, data(), data(), **given).fit_error
    hint = "" if monitor == "value" else " Did you mean 'train_loss'?"
    assert str(error) == f"No validation ran ({why}), so '{monitor}' has no value. Training logged: train_loss.{hint}"
    assert built.global_step == (1 if monitor == "val_loss" else epochs) * BATCHES


def test_where_nothing_is_given_to_validate_with_that_is_the_reason():
    with pytest.raises(MetricError, match=r"No validation ran \(there is no dataloader for it\), so 'val_loss' has"):
        fit(Scripted(), "val_loss", data())
