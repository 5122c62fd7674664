import dataclasses
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightningtune.report.html.summary import find_gain, summarize
from lightningtune.study.results import Refit, StudyResults, TrialResult

BASE = TrialResult(0, "complete", (0.5,), {"lr": 0.001, "act": "relu"}, "completed", "", 3, 1.0, True, Path(), None)
BEST = dataclasses.replace(BASE, number=1, values=(0.75,), params={"lr": 0.01, "act": "relu"}, is_baseline=False)
SCORES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=5)


def study(trials, best, directions=("maximize",), scores=None):
    refits = [
        Refit(number, 1, (score,), None, Path()) for number, several in (scores or {}).items() for score in several
    ]
    return StudyResults("s", ("val_acc",), directions, trials, best, tuple(refits))


def test_the_best_stands_beside_the_defaults():
    found = summarize(study((BASE, BEST), (1,)))
    assert found.gain.value == 0.25
    assert found.gain_line == "0.25 better than the untuned defaults (0.5)"
    assert "was not measured" in found.certainty[0]


def tuned(count, base=0.5, step=0.01):
    """Return trials whose values grow from just above the defaults'."""
    return tuple(
        dataclasses.replace(BEST, number=number, values=(base + step * number,)) for number in range(1, count + 1)
    )


def test_how_close_the_best_lie_is_told_of_tuned_trials_only():
    found = summarize(study((BASE, *tuned(12)), (12,)))
    assert found.spread == pytest.approx(0.04)
    assert found.certainty[0] == "The 5 best tuned trials lie within 0.04 of each other."
    assert "The gain is no larger than that." not in found.certainty
    far = dataclasses.replace(BASE, values=(9.0,))
    assert summarize(study((far, *tuned(12)), (0,))).spread == pytest.approx(0.04)
    near = dataclasses.replace(BASE, values=(0.6,))
    assert "The gain is no larger than that." in summarize(study((near, *tuned(12)), (12,))).certainty


def test_of_few_trials_nothing_is_said_of_how_close_they_lie():
    found = summarize(study((BASE, *tuned(9)), (9,)))
    assert found.spread is None
    assert len(found.certainty) == 1


def test_infeasible_trials_do_not_count_among_the_best():
    def spread(*infeasible):
        marked = (dataclasses.replace(one, is_feasible=one.number not in infeasible) for one in (BASE, *tuned(12)))
        return summarize(study((*marked,), (9,))).spread

    assert spread(11, 12) == pytest.approx(0.04)
    assert spread(10, 11, 12) is None


def test_of_infinite_scores_nothing_is_said_of_how_close_they_lie():
    for infinite in (1, 2):
        trials = (*tuned(12), *(dataclasses.replace(BEST, values=(math.inf,)) for _ in range(infinite)))
        assert summarize(study(trials, (12,))).spread is None


def test_less_is_better_where_it_is_minimized():
    found = summarize(study((BEST, dataclasses.replace(BASE, number=1, is_baseline=False)), (1,), ("minimize",)))
    assert found.gain is None
    assert found.gain_line == "There is no completed trial of the untuned defaults to compare with."


def test_defaults_that_nothing_beats_gain_nothing():
    found = summarize(study((BASE,), (0,)))
    assert found.gain.value == 0
    assert found.gain_line == "These are the untuned defaults (0.5): nothing better was found."
    assert len(found.certainty) == 1


def test_refits_take_the_place_of_the_lucky_score():
    found = summarize(study((BASE, BEST), (1,), scores={1: [0.7, 0.6, 0.65]}))
    assert found.gain.value == pytest.approx(0.15)
    assert found.gain.error == pytest.approx(math.sqrt(0.0025 / 3 + 0.0025))
    assert found.gain_line == "0.15 ± 0.058 better than the untuned defaults (0.5)"
    assert found.certainty[0].startswith("Trained again with 3 seeds, trial 1 comes to 0.65 ± 0.05")
    assert "1 training of the defaults, whose variance is taken to be the same" in found.certainty[1]


def test_what_was_only_luck_is_called_worse():
    found = summarize(study((BASE, BEST), (1,), scores={1: [0.4, 0.45], 0: [0.5, 0.55]}))
    assert found.gain_line.startswith("0.1 ± 0.035 worse than")
    assert found.gain.seeds == (2, 2)


def test_one_refit_says_nothing_of_how_they_differ():
    assert summarize(study((BASE, BEST), (1,), scores={1: [0.7]})).gain.error is None


def test_there_is_no_single_found_to_several_objectives_or_to_none():
    assert summarize(study((BASE,), ())) is None
    both = StudyResults("s", ("a", "b"), ("maximize", "minimize"), (BASE,), (0,))
    assert summarize(both) is None


@given(SCORES, SCORES)
def test_the_direction_changes_only_the_sign(own, others):
    up = find_gain(BEST, BASE, own, others, 1)
    down = find_gain(BEST, BASE, [-value for value in own], [-value for value in others], -1)
    assert up.value == pytest.approx(down.value)
    assert up.error == pytest.approx(down.error)


@given(SCORES, SCORES, st.floats(-100, 100))
def test_a_gain_does_not_depend_on_where_zero_is(own, others, by):
    gain = find_gain(BEST, BASE, own, others, 1)
    moved = find_gain(BEST, BASE, [v + by for v in own], [v + by for v in others], 1)
    assert moved.value == pytest.approx(gain.value, abs=1e-9)


def test_defaults_that_violate_a_constraint_are_not_compared_with():
    found = summarize(study((dataclasses.replace(BASE, is_feasible=False), BEST), (1,)))
    assert found.gain is None
    assert found.gain_line == "The untuned defaults (0.5) violate a constraint: there is nothing to compare with."
