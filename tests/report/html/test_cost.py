import dataclasses
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from reported import START, ours

from lightningtune.report.html.cost import find_cost, find_failures
from lightningtune.report.html.record import read_study
from lightningtune.report.html.timeline import lanes_of
from lightningtune.study.directory import StudyDirectory


def cost(count, folder, **given_options):
    record = read_study(ours(count, **given_options), StudyDirectory(folder))
    return find_cost(record.results.trials, lanes_of(record, START))


def test_what_was_spent_and_saved(tmp_path):
    found = cost(10, tmp_path)  # of 0 to 9, trial 4 and 9 are pruned after 4 of 12 epochs, and 8 fails
    assert (found.epochs, found.full, found.saved) == (7 * 12 + 2 * 4, 12, 16)
    assert found.saved_share == 16 / (92 + 16)
    assert found.seconds == 7 * 50 + 2 * 20
    assert found.waited == 10 * 10
    assert found.elapsed == 4 * 60 + 30  # the last to end is trial 9, or 8, which failed at once


def test_an_empty_study_cost_nothing(tmp_path):
    found = cost(0, tmp_path)
    assert (found.epochs, found.elapsed, found.full, found.saved_share) == (0, 0, None, 0)


@given(st.integers(0, 30))
def test_no_more_is_saved_than_there_would_have_been(count):
    found = cost(count, Path("nowhere"))
    assert 0 <= found.saved_share < 1
    assert found.elapsed >= 0


def test_failures_that_differ_in_a_number_are_one(tmp_path):
    record = read_study(ours(30), StudyDirectory(tmp_path))
    (failure,) = find_failures(record.results.trials)
    assert failure.detail == "RuntimeError: out of luck at 8"
    assert [trial.number for trial in failure.trials] == [8, 17, 26]


def test_what_the_user_has_ended_is_no_failure(tmp_path):
    trials = read_study(ours(10), StudyDirectory(tmp_path)).results.trials
    assert find_failures([dataclasses.replace(trials[8], reason="interrupted")]) == ()
