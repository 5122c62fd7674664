"""A study whose processes are killed at random moments ends as one that was left alone; `make chaos` kills more."""

import sys
import tempfile
from pathlib import Path

import pytest
from chaos import disturb, faults_of, leave_alone, report

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")]


@pytest.fixture
def folder():
    """A folder with a short name: the studies' sockets lie in it, whose paths may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as path:
        yield Path(path)


def test_a_study_that_is_killed_at_random_moments_ends_as_one_that_was_left_alone(folder):
    run = disturb(folder / "disturbed", kills=10, seed=4)
    print(report(run))
    assert len(run.kills) == 10
    assert faults_of(run, leave_alone(folder / "undisturbed")) == []
