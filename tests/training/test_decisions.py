"""The decisions of a trial, without a Trainer; the rule of the last validation beside a loop that plays Lightning's."""

import math

import lightning as L
import pytest
from fits import BATCHES, Scripted, data, trainer
from hypothesis import given
from hypothesis import strategies as st

from lightningtune.contract import Objective
from lightningtune.training.loops import FitProgress
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


def play(max_epochs, max_steps, batches, accumulate, interval, every):
    """Run through a fit as Lightning does; yield what a validation sees and the batches that are done."""
    steps = done = 0
    for epoch in range(max_epochs):
        for batch in range(1, batches + 1):
            done += 1
            steps += batch % accumulate == 0 or batch == batches
            within, of_epoch = (done, True) if every is None else (batch, (epoch + 1) % every == 0)
            if of_epoch and within % interval == 0:
                yield done, epoch, batch, steps
            if steps >= max_steps:
                yield done, None, None, None
                return
    yield done, None, None, None


fits = st.fixed_dictionaries(
    {
        "max_epochs": st.integers(1, 5),
        "max_steps": st.one_of(st.integers(1, 30), st.just(math.inf)),
        "batches": st.integers(1, 7),
        "accumulate": st.integers(1, 8),
        "interval": st.integers(1, 9),
        "every": st.one_of(st.none(), st.integers(1, 3)),
    }
)


@given(fits)
def test_the_last_validation_is_the_one_after_which_none_comes(fit):
    if fit["every"] is not None:
        fit["interval"] = min(fit["interval"], fit["batches"])  # Lightning refuses the others
    *validations, (end, *_) = play(**fit)
    for i, (done, epoch, batch, steps) in enumerate(validations):
        progress = FitProgress(
            epoch=epoch,
            max_epochs=fit["max_epochs"],
            batch=batch,
            batches=fit["batches"],
            steps_left=fit["max_steps"] - steps,
            batches_per_step=fit["accumulate"],
            interval=fit["interval"],
            every_n_epochs=fit["every"],
        )
        assert progress.is_last_validation == (i == len(validations) - 1), (fit, progress)
        assert progress.batches_left == end - done
        if i + 1 < len(validations):
            assert progress.batches_to_next_validation == validations[i + 1][0] - done


@pytest.mark.parametrize(
    "fit",
    [
        {"max_epochs": 3, "max_steps": math.inf, "accumulate": 1, "interval": 4, "every": 1},
        {"max_epochs": 5, "max_steps": math.inf, "accumulate": 3, "interval": 2, "every": 2},
        {"max_epochs": 3, "max_steps": math.inf, "accumulate": 1, "interval": 3, "every": 1},
        {"max_epochs": 3, "max_steps": math.inf, "accumulate": 2, "interval": 3, "every": None},
        {"max_epochs": 4, "max_steps": 5, "accumulate": 3, "interval": 1, "every": 1},
        {"max_epochs": 9, "max_steps": 10, "accumulate": 1, "interval": 5, "every": None},
    ],
)
def test_lightning_plays_by_the_same_rule(fit):
    class Note(L.Callback):
        def on_validation_end(self, trainer, pl_module):
            loop = trainer.fit_loop
            seen.append((loop.total_batch_idx + 1, trainer.current_epoch, loop.batch_idx + 1, trainer.global_step))

    seen = []
    *validations, _ = play(batches=BATCHES, **fit)
    trainer(
        Note(),
        num_sanity_val_steps=0,
        max_epochs=fit["max_epochs"],
        max_steps=-1 if math.isinf(fit["max_steps"]) else fit["max_steps"],
        accumulate_grad_batches=fit["accumulate"],
        val_check_interval=fit["interval"],
        check_val_every_n_epoch=fit["every"],
    ).fit(Scripted(), data(), data())
    assert seen == validations


def progress(**given):
    known = {
        "epoch": 0,
        "max_epochs": math.inf,
        "batch": 10,
        "batches": 10,
        "steps_left": math.inf,
        "batches_per_step": 1,
        "interval": 10,
        "every_n_epochs": 1,
    }
    return FitProgress(**{**known, **given})


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"every_n_epochs": None},
        {"every_n_epochs": 3, "epoch": 2},
        {"batches": math.inf, "interval": 5, "every_n_epochs": None},  # an endless loader, within its first epoch
        {"batches": math.inf, "interval": 5, "steps_left": 5},
        {"batches": math.inf, "interval": math.inf, "max_epochs": 2},
        {"interval": math.inf, "max_epochs": 2},  # a loader without a length, at the end of an epoch
    ],
)
def test_where_bounds_are_unknown_more_is_to_come(given):
    assert not progress(**given).is_last_validation


@pytest.mark.parametrize(
    "given",
    [
        {"max_epochs": 1},
        {"steps_left": 0},
        {"steps_left": 9},
        {"batches": math.inf, "interval": 5, "steps_left": 4},
        {"batches": math.inf, "interval": 5, "steps_left": 2, "batches_per_step": 2},
        {"interval": math.inf, "max_epochs": 1},
    ],
)
def test_where_a_bound_comes_first_nothing_is_to_come(given):
    assert progress(**given).is_last_validation
