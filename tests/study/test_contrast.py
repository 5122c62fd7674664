from pathlib import Path

from lightningtune.study.contrast import Finding, contrast, finding_of
from lightningtune.study.results import StudyResults, TrialResult


def trial(number, values, state="complete", is_baseline=False, continued_by=None):
    return TrialResult(number, state, values, {}, "", "", 3, 2.0, is_baseline, Path(), None, continued_by=continued_by)


def finding(name, best, metrics=("acc",), directions=("maximize",)):
    return Finding(name, metrics, directions, best, 0, None, None, {}, 1, 1.0)


def test_a_study_is_summed_up():
    trials = (trial(0, (0.5,), is_baseline=True), trial(1, (0.75,)), trial(2, None, "fail"))
    found = finding_of(StudyResults("s", ("acc",), ("maximize",), trials, (1,)))
    assert (found.best, found.best_number, found.baseline, found.improvement) == ((0.75,), 1, (0.5,), 0.25)
    assert (found.counts, found.epochs, found.seconds) == ({"complete": 2, "fail": 1}, 9, 6.0)


def test_epochs_of_a_trial_that_another_goes_on_from_count_once():
    trials = (trial(0, None, "fail", continued_by=1), trial(1, (0.75,)))
    found = finding_of(StudyResults("s", ("acc",), ("maximize",), trials, (1,)))
    assert (found.epochs, found.seconds, found.counts) == (3, 4.0, {"complete": 1})


def test_a_study_of_nothing_is_too():
    found = finding_of(StudyResults("s", ("acc",), ("maximize",), (), ()))
    assert (found.best, found.best_number, found.baseline, found.epochs) == (None, None, None, 0)


def test_the_better_wins_where_both_tune_the_same():
    assert contrast((finding("a", (0.5,)), finding("b", (0.6,))), ({}, {})).winner == 1
    low = {"directions": ("minimize",)}
    assert contrast((finding("a", (0.5,), **low), finding("b", (0.6,), **low)), ({}, {})).winner == 0
    assert contrast((finding("a", None), finding("b", (0.6,))), ({}, {})).winner == 1


def test_nobody_wins_where_it_cannot_be_said():
    assert contrast((finding("a", (0.5,)), finding("b", (0.5,))), ({}, {})).winner is None
    assert contrast((finding("a", None), finding("b", None)), ({}, {})).winner is None
    assert contrast((finding("a", (0.5,)), finding("b", (0.6,), metrics=("f1",))), ({}, {})).winner is None
    two = {"metrics": ("acc", "size"), "directions": ("maximize", "minimize")}
    assert contrast((finding("a", (0.5, 1.0), **two), finding("b", (0.6, 1.0), **two)), ({}, {})).winner is None


def test_what_differs_in_the_definitions_is_named_by_its_path():
    one = {"study_name": "a", "base_config": {"trainer": {"max_epochs": 3}}, "search_space": {"lr": {"low": 0.1}}}
    other = {"study_name": "b", "base_config": {"trainer": {"max_epochs": 5}}, "search_space": {"lr": {"low": 0.1}}}
    seen = contrast((finding("a", (1.0,)), finding("b", (1.0,)), finding("c", (1.0,))), (one, other, {}))
    assert seen.differences == {
        "base_config.trainer.max_epochs": (3, 5, None),
        "search_space.lr.low": (0.1, 0.1, None),
    }
