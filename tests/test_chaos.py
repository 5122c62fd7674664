"""A study whose processes are killed at random moments ends as one that was left alone; `make chaos` kills more."""

import sys

import pytest
from chaos import disturb, faults_of, leave_alone, report

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")]


def test_a_study_that_is_killed_at_random_moments_ends_as_one_that_was_left_alone(tmp_path):
    run = disturb(tmp_path / "disturbed", kills=10, seed=4)
    print(report(run))
    assert len(run.kills) == 10
    assert faults_of(run, leave_alone(tmp_path / "undisturbed")) == []
