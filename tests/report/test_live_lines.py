"""What a study says of itself while it runs."""

import dataclasses
import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lightningtune.report.live import ProgressLines, sparkline
from lightningtune.study.events import StudyBegan, TrialEnded, TrialPlaced, TrialStarted, ValuesReported
from lightningtune.study.results import StudyResults, TrialResult


def trial(number, value=0.5, state="complete", **changed):
    values = (value,) if state == "complete" else None
    result = TrialResult(number, state, values, {"model.lr": 0.01}, "", "", 10, 1.0, number == 0, None, None)
    return dataclasses.replace(result, **changed)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def begun(clock, *so_far, total=10, direction="maximize"):
    progress = ProgressLines(("val_acc",), clock)
    best = sorted((t for t in so_far if t.state == "complete"), key=lambda t: t.value, reverse=direction == "maximize")
    numbers = tuple(t.number for t in best[:1])
    results = StudyResults("s", ("val_acc",), (direction,), so_far, numbers)
    progress.begin(StudyBegan(results, len(so_far), total, "s"))
    return progress


def said(progress):
    return [line.plain.rstrip() for line in progress.draw()]


def test_a_new_study_has_only_its_size_to_tell(clock):
    assert said(begun(clock)) == ["0/10 trials"]


def test_what_was_there_before_counts_and_the_pace_is_of_this_session(clock):
    progress = begun(clock, trial(0, 0.4), trial(1, 0.9), trial(2, state="pruned", epochs=3), trial(3, state="fail"))
    assert said(progress) == [
        "4/10 trials",
        "best val_acc 0.9 (trial 1), better by 0.5 than the untuned defaults",
        "1 pruned, which saved 7 epochs · 1 failed",
    ]
    progress.add_trial(TrialStarted(4, {"model.lr": 0.01}))
    clock.now = 30.0
    progress.end_trial(TrialEnded(trial(4, 0.95), (trial(4, 0.95),), 5))
    assert said(progress)[:2] == [
        "5/10 trials · 2:30 left",
        "best val_acc 0.95 (trial 4), better by 0.55 than the untuned defaults",
    ]


def test_smaller_is_better_where_the_metric_is_minimized(clock):
    progress = begun(clock, trial(0, 0.4), trial(1, 0.1), direction="minimize")
    assert said(progress)[1] == "best val_acc 0.1 (trial 1), better by 0.3 than the untuned defaults"


def test_an_interrupted_trial_and_one_that_goes_on_elsewhere_are_not_done(clock):
    progress = begun(clock)
    progress.end_trial(TrialEnded(trial(0, state="fail", reason="interrupted", detail="interrupted by Ctrl-C"), (), 0))
    progress.end_trial(TrialEnded(trial(1, state="fail", reason="killed", continued_by=2), (), 0))
    assert said(progress) == ["0/10 trials"]


def test_what_a_mistake_has_ended_is_no_failure_and_another_session_counts_afresh(clock):
    refused = trial(0, state="fail", reason="refused", detail="MetricError: x", is_baseline=False)
    progress = begun(clock, refused, trial(1, 0.5), trial(2, state="pruned", epochs=2))
    progress.add_trial(TrialStarted(3, {"model.lr": 0.1}))
    again = StudyResults(
        "s", ("val_acc",), ("maximize",), (refused, trial(1, 0.5), trial(2, state="pruned", epochs=2)), (1,)
    )
    progress.begin(StudyBegan(again, 2, 10, "s"))
    assert said(progress) == ["2/10 trials", "best val_acc 0.5 (trial 1)", "1 pruned, which saved 8 epochs"]


def left(progress):
    minutes, seconds = re.fullmatch(r".* (\d+):(\d+) left", said(progress)[0]).groups()
    return 60 * int(minutes) + int(seconds)


@pytest.mark.parametrize("at_a_time", [1, 6])
def test_with_trials_that_take_as_long_the_time_left_is_true_at_each_moment(clock, at_a_time):
    progress, seen = begun(clock, total=12), []
    for first in range(0, 12, at_a_time):
        numbers = range(first, first + at_a_time)
        for number in numbers:
            progress.add_trial(TrialStarted(number, {}))
        for _ in range(10 * bool(first)):
            clock.now += 1.0
            seen.append(left(progress) + clock.now)
        clock.now += 10.0 * (not first)
        for number in numbers:
            progress.end_trial(TrialEnded(trial(number), (), number + 1))
    assert seen
    assert {*seen} == {120 / at_a_time}


def test_the_trials_of_other_hosts_count(clock):
    progress = begun(clock)
    progress.end_trial(TrialEnded(trial(7, 0.5), (), 8))
    assert said(progress)[0].startswith("8/10 trials")


def test_what_is_no_better_than_the_defaults_is_not_called_so(clock):
    progress = begun(clock, trial(0, 0.4))
    progress.end_trial(TrialEnded(trial(1, 0.3), (trial(1, 0.3),), 2))  # the baseline violates a constraint
    assert said(progress)[1] == "best val_acc 0.3 (trial 1)"


def test_each_running_trial_has_a_line(clock):
    progress = begun(clock)
    progress.add_trial(TrialStarted(0, {}, is_baseline=True))
    progress.add_trial(TrialStarted(1, {"model.lr": 0.1}))
    progress.place_trial(TrialPlaced(1, ("1",)))
    for step, value in enumerate((0.1, 0.2, 0.3)):
        progress.add_values(ValuesReported(1, (value,), step))
    clock.now = 65.0
    assert said(progress)[1:] == [
        "   0               no validation yet  1:05  untuned defaults",
        "   1  ▁▅█          0.3 at validation 3  1:05  device 1  lr=0.1",
    ]


@pytest.mark.parametrize(
    ("trainer", "moment"),
    [
        ({"max_epochs": 20}, "epoch 3/20"),
        ({"max_epochs": 20, "val_check_interval": 1.0}, "epoch 3/20"),
        ({"max_epochs": 20, "val_check_interval": 1}, "validation 3"),  # a batch
        ({"max_epochs": 20, "check_val_every_n_epoch": 5}, "validation 3"),  # each epoch reports what training logs
        ({"max_steps": 100}, "epoch 3"),
        ({"max_epochs": -1}, "epoch 3"),
        ({"max_epochs": 20, "val_check_interval": 0.25}, "validation 3"),
        ({"max_epochs": 20, "val_check_interval": 500, "check_val_every_n_epoch": None}, "validation 3"),
        ({"max_epochs": 2}, "validation 3"),
        ({}, "validation 3"),
    ],
)
def test_a_running_trial_tells_its_epoch_where_that_is_sure(clock, trainer, moment):
    progress = begun(clock)
    progress.add_trial(TrialStarted(0, {}, trainer=trainer))
    for step in range(3):
        progress.add_values(ValuesReported(0, (0.5,), step))
    assert f" 0.5 at {moment}  0:00" in said(progress)[1]


def test_of_many_running_trials_the_first_ten_are_shown(clock):
    progress = begun(clock, total=100)
    for number in range(13):
        progress.add_trial(TrialStarted(number, {}))
    assert len(said(progress)) == 12
    assert said(progress)[-1] == "and 3 more run"


def test_a_value_of_a_trial_that_has_ended_is_let_go(clock):
    progress = begun(clock)
    progress.add_values(ValuesReported(7, (0.1,), 0))
    assert said(progress) == ["0/10 trials"]


@given(st.lists(st.floats()))
@example([0.0, 5e-324])
@example([-1e308, 1e308])
def test_a_curve_has_a_mark_for_each_value_and_gaps_where_there_is_none(values):
    drawn = sparkline(values)
    assert [mark == " " for mark in drawn] == [not math.isfinite(value) for value in values]


@given(st.lists(st.floats(-1e6, 1e6), min_size=2))
def test_a_higher_value_is_never_drawn_lower(values):
    pairs = sorted(zip(values, sparkline(values), strict=True))
    assert [mark for _, mark in pairs] == sorted(mark for _, mark in pairs)
