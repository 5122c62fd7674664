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

from lightningtune.check.pruning import largest_resource, reach_of


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
    reach = reach_of(pruner, "study", trials, validations)
    assert reach.is_whole
    assert (reach.first_trial, reach.first_step) == (first or (None, None))
    assert (reach.pruned > 0) == (first is not None)


def test_some_brackets_of_hyperband_prune():
    reach = reach_of(HyperbandPruner(max_resource=27), "study", 60, 27)
    assert reach.pruner == "HyperbandPruner"
    assert 0 < reach.pruned < 60


def test_the_pruner_itself_is_left_alone_and_nothing_is_said(capfd):
    pruner = HyperbandPruner()
    before = repr(vars(pruner))
    reach_of(pruner, "study", 30, 10)
    assert repr(vars(pruner)) == before
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("pruner", [NopPruner(), ThresholdPruner(upper=1.0)])
def test_pruners_that_do_not_compare_trials_are_not_tried(pruner):
    assert reach_of(pruner, "study", 30, 10) is None


def test_of_a_very_long_study_only_a_part_is_tried():
    reach = reach_of(MedianPruner(n_startup_trials=500), "study", 1000, 5000)
    assert (reach.is_whole, reach.trials, reach.pruned) == (False, 10, 0)


def test_hyperbands_max_resource_is_where_it_is_looked_for():
    assert largest_resource(HyperbandPruner(max_resource=81)) == 81
    assert largest_resource(HyperbandPruner()) is None
    assert largest_resource(optuna.pruners.MedianPruner()) is None
    assert largest_resource(None) is None
