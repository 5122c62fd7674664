import datetime
import itertools
import os

import optuna
from hypothesis import given
from hypothesis import strategies as st
from reported import START, ours, theirs

from lightningtune.report.html.record import read_study
from lightningtune.report.html.timeline import Bar, lanes_of, pack
from lightningtune.study.directory import StudyDirectory

SPANS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=40)


def bars(spans):
    at = [START + datetime.timedelta(seconds=start) for start, _ in spans]
    return [
        Bar(number, "complete", start, start + datetime.timedelta(seconds=length), length)
        for number, (start, (_, length)) in enumerate(zip(at, spans, strict=True))
    ]


@given(SPANS)
def test_no_two_trials_share_a_lane_at_a_time_and_there_are_no_more_lanes_than_needed(spans):
    given_bars = bars(spans)
    lanes = pack(given_bars)
    assert sorted(bar.number for lane in lanes for bar in lane) == [bar.number for bar in given_bars]
    for lane in lanes:
        assert all(one.end <= other.start for one, other in itertools.pairwise(lane))
    at_once = [sum(other.start <= bar.start < other.end for other in given_bars) for bar in given_bars]
    assert len(lanes) <= max(at_once, default=0) + any(bar.start == bar.end for bar in given_bars)


def test_trials_lie_in_the_lane_of_their_cores_and_wait_before_they_train(tmp_path):
    lanes = lanes_of(read_study(ours(4), StudyDirectory(tmp_path)), START)
    assert [lane.name for lane in lanes] == ["core 0", "core 1"]
    assert [bar.number for bar in lanes[0].bars] == [0, 2]
    assert (lanes[0].bars[0].training, lanes[0].bars[0].waiting) == (50, 10)


def test_a_running_trial_lasts_until_now(tmp_path):
    study = theirs(trials=1)
    study.ask()
    now = study.trials[1].datetime_start + datetime.timedelta(seconds=30)
    lanes = lanes_of(read_study(study, StudyDirectory(tmp_path)), now)
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
    record = read_study(study, directory)
    (bar,) = [bar for lane in lanes_of(record, START) for bar in lane.bars if bar.number == 1]
    assert (bar.training, bar.waiting, bar.end - bar.start) == (6, 0, datetime.timedelta(seconds=6))
    assert record.results.trials[1].epochs == 2
