"""A study whose processes are killed at random moments ends as one that was left alone; `make chaos` kills more."""

import contextlib
import sys
import tempfile
from pathlib import Path

import pytest
from chaos import DATABASE, disturb, faults_of, leave_alone, report
from servers import Postgres

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")]


@contextlib.contextmanager
def short_folder():
    """Make a folder with a short name: the studies' sockets lie in it, whose paths may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as path:
        yield Path(path)


@pytest.fixture
def folder():
    with short_folder() as path:
        yield path


@pytest.fixture(scope="module")
def undisturbed():
    with short_folder() as path:
        yield leave_alone(path)


@pytest.fixture
def database():
    with contextlib.closing(Postgres()) as server:
        yield server


def test_a_study_that_is_killed_at_random_moments_ends_as_one_that_was_left_alone(folder, undisturbed):
    run = disturb(folder, kills=7, seed=4)
    print(report(run))
    assert len(run.kills) == 7
    assert faults_of(run, undisturbed) == []


def test_so_does_one_in_a_database_that_is_killed_too(folder, undisturbed, database):
    run = disturb(folder, kills=5, seed=1, database=database)
    print(report(run))
    assert len(run.kills) == 5
    assert DATABASE in run.kills
    assert faults_of(run, undisturbed) == []
