"""Dry runs of points, in this process: what a whole check does with them is in `test_check`."""

import lightning as L
import pytest
from faults import Faulty
from nets import Points

from lightningtune.check.points import DryRunPoint
from lightningtune.check.runner import DryRunner, is_hopeless, start_processes
from lightningtune.config.schema import Schema
from lightningtune.contract import Objective
from lightningtune.errors import ConfigurationError
from lightningtune.training.build import Blueprint
from lightningtune.workers.devices import Slot

POINTS = [DryRunPoint(f"width={width}", {"width": width}, {"width": width}) for width in (4, 8, 16, 32)]


@pytest.fixture
def try_points(tmp_path):
    """Try points of a model that has a fault, or none."""

    def run(points, fault="none", told=None, seconds=600.0, epoch_seconds=60.0):
        config = {
            "model": {"fault": fault},
            "data": {"batch_size": 2},
            "trainer": {"accelerator": "cpu", "max_epochs": 5},
        }
        runner = DryRunner(
            blueprint=Blueprint(Schema(Faulty, Points, L.Trainer), config),
            objective=Objective(("val_loss",), ("min",)),
            callbacks=(),
            slot=Slot(),
            saves=False,
            seed=0,
            folder=tmp_path,
            processes=None,
            is_isolated=False,
            epoch_seconds=epoch_seconds,
        )
        return runner.run_all(points, (told if told is not None else []).append, seconds)

    return run


def test_each_point_is_told_of_and_noted_and_has_the_config_that_a_trial_would_have(try_points):
    told = []
    runs, left = try_points(POINTS[:2], told=told)
    assert told == ["1 of 2: width=4", "2 of 2: width=8"]
    assert left == ()
    assert runs[0].notes.metrics["size"] < runs[1].notes.metrics["size"]
    assert runs[0].notes.settings["max_epochs"] == 5


def test_when_the_time_is_up_no_further_point_is_tried(try_points):
    runs, left = try_points(POINTS[:2], seconds=0)
    assert [run.name for run in runs] == ["width=4"]
    assert [*left] == POINTS[1:2]


def test_when_the_first_three_have_failed_no_further_point_is_tried(try_points):
    runs, left = try_points(POINTS, "raise")
    assert is_hopeless(runs)
    assert (len(runs), [*left]) == (3, POINTS[3:])


def test_what_only_a_short_epoch_raises_is_tried_with_a_whole_one(try_points):
    runs, _ = try_points(POINTS[:2], "short")
    assert [run.outcome.reason.value for run in runs] == ["completed"] * 2
    assert [len(run.notes.losses) for run in runs] == [8, 8]


def test_what_only_a_short_epoch_raises_is_in_doubt_where_a_whole_one_takes_too_long(try_points):
    runs, left = try_points(POINTS, "short", epoch_seconds=0.0)
    assert [run.outcome.detail for run in runs] == ["RuntimeError: the epoch is too short"] * 4
    assert all(run.is_in_doubt for run in runs)
    assert left == (), "a trial may succeed"


def test_a_point_that_is_none_of_the_config_is_a_failure(try_points):
    wrong = DryRunPoint("nowhere", {"model.nowhere": 1}, {"nowhere": 1})
    runs, _ = try_points([POINTS[0], wrong])
    assert not is_hopeless(runs)
    assert isinstance(runs[1].outcome.error, ConfigurationError)
    assert runs[1].notes is None
    assert is_hopeless([runs[1]])


def test_what_has_to_run_apart_and_cannot_travel_is_refused():
    def cannot_travel():
        raise ConfigurationError("it cannot travel")

    with pytest.raises(ConfigurationError, match="it cannot travel"), start_processes(cannot_travel, True):
        pass
    with start_processes(cannot_travel, False) as started:
        assert started is None
