import dataclasses
import datetime
import itertools
import os
from pathlib import Path

import optuna
from hypothesis import given
from hypothesis import strategies as st
from reported import START, ours, theirs

from lightningtune.report.html.results import drawable_results
from lightningtune.report.html.timeline import Bar, find_cost, find_lanes, group_failures, pack_bars
from lightningtune.study.directory import StudyDirectory

SPANS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=40)


def bars(spans):
    at = [START + datetime.timedelta(seconds=start) for start, _ in spans]
    return [
        Bar(number, "complete", start, start + datetime.timedelta(seconds=length), length)
        for number, (start, (_, length)) in enumerate(zip(at, spans, strict=True))
    ]


def lanes_of(study, folder, now=START):
    results = drawable_results(study, StudyDirectory(folder))
    return find_lanes(results.trials, results.optuna_trials, results.is_ours, now)


@given(SPANS)
def test_no_two_trials_share_a_lane_at_a_time_and_there_are_no_more_lanes_than_needed(spans):
    given_bars = bars(spans)
    lanes = pack_bars(given_bars)
    assert sorted(bar.number for lane in lanes for bar in lane) == [bar.number for bar in given_bars]
    for lane in lanes:
        assert all(one.end <= other.start for one, other in itertools.pairwise(lane))
    at_once = [sum(other.start <= bar.start < other.end for other in given_bars) for bar in given_bars]
    assert len(lanes) <= max(at_once, default=0) + any(bar.start == bar.end for bar in given_bars)


def test_trials_lie_in_the_lane_of_their_cores_and_wait_before_they_train(tmp_path):
    lanes = lanes_of(ours(4), tmp_path)
    assert [lane.name for lane in lanes] == ["core 0", "core 1"]
    assert [bar.number for bar in lanes[0].bars] == [0, 2]
    assert (lanes[0].bars[0].training, lanes[0].bars[0].waiting) == (50, 10)


def test_a_running_trial_lasts_until_now(tmp_path):
    study = theirs(trials=1)
    study.ask()
    now = study.trials[1].datetime_start + datetime.timedelta(seconds=30)
    lanes = lanes_of(study, tmp_path, now)
    assert [lane.name for lane in lanes] == ["worker 1"]
    assert (lanes[0].bars[1].outcome, lanes[0].bars[1].training, lanes[0].bars[1].waiting) == ("running", 30, 0)


def test_of_a_trial_whose_host_was_killed_only_what_it_has_trained_is_drawn(tmp_path):
    study, directory = ours(1), StudyDirectory(tmp_path)
    study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL, intermediate_values={0: 0.5, 1: 0.6}))
    killed = study.get_trials(deepcopy=False)[1]
    killed.datetime_start, killed.datetime_complete = START, START + datetime.timedelta(hours=8)
    directory.begin(directory.trial(1), {"trainer": {"max_epochs": 9}})
    last = (START + datetime.timedelta(seconds=6)).timestamp()
    os.utime(directory.config(1), (last, last))
    (bar,) = [bar for lane in lanes_of(study, tmp_path) for bar in lane.bars if bar.number == 1]
    assert (bar.training, bar.waiting, bar.end - bar.start) == (6, 0, datetime.timedelta(seconds=6))
    assert drawable_results(study, directory).trials[1].epochs == 2


def cost(count, folder):
    study = ours(count)
    return find_cost(drawable_results(study, StudyDirectory(folder)).trials, lanes_of(study, folder))


def test_what_was_spent_and_saved(tmp_path):
    found = cost(10, tmp_path)  # of 0 to 9, trial 4 and 9 are pruned after 4 of 12 epochs, and 8 fails
    assert (found.epochs, found.median, found.saved) == (7 * 12 + 2 * 4, 12, 16)
    assert found.saved_share == 16 / (92 + 16)
    assert found.seconds == 7 * 50 + 2 * 20
    assert found.waited == 10 * 10
    assert found.elapsed == 4 * 60 + 30  # the last to end is trial 9, or 8, which failed at once


def test_an_empty_study_cost_nothing(tmp_path):
    found = cost(0, tmp_path)
    assert (found.epochs, found.elapsed, found.median, found.saved_share) == (0, 0, None, 0)


@given(st.integers(0, 30))
def test_no_more_is_saved_than_there_would_have_been(count):
    found = cost(count, Path("nowhere"))
    assert 0 <= found.saved_share < 1
    assert found.elapsed >= 0


def test_failures_that_differ_in_a_number_are_one(tmp_path):
    (group,) = group_failures(drawable_results(ours(30), StudyDirectory(tmp_path)).trials)
    assert [(trial.number, trial.detail) for trial in group] == [
        (number, f"RuntimeError: out of luck at {number}") for number in (8, 17, 26)
    ]


def test_what_the_user_has_ended_is_no_failure(tmp_path):
    trials = drawable_results(ours(10), StudyDirectory(tmp_path)).trials
    assert group_failures([dataclasses.replace(trials[8], reason="interrupted")]) == []
