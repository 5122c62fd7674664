"""What stands in for a tracker that is away does nothing, whatever is done with it."""

import copy
import math
import pickle
from pathlib import Path

import pytest

from lightningtune.training.trackers import Nothing, StandIn


def test_nothing_is_done_at_any_depth(tmp_path):
    run = StandIn(tmp_path).experiment
    run.config.update({"a": 1})
    run.config["a"] = run.config.b = 1
    del run.config["a"], run.config.b
    run.summary["steps"] += 1
    with run.start(nested=True) as inner:
        inner[0].log_artifact(3).wait()
    assert not run.config["a"]
    assert not run.summary["best"] > 1
    assert not run.summary["best"] < 1
    assert math.isnan(float(2 * run.summary["best"] / 3))
    assert (len(run), [*run.history()], "a" in run.config) == (0, [], False)
    assert f"{run.dir:.2f}" == str(run.dir) == str(tmp_path)
    assert Path(run.dir, "net.pt") == tmp_path / "net.pt"


def test_an_error_within_it_is_the_user_s():
    with pytest.raises(ValueError, match="mine"), Nothing("folder").start_run():
        raise ValueError("mine")


def test_it_can_be_copied():
    for copied in (copy.deepcopy(Nothing("folder")), pickle.loads(pickle.dumps(Nothing("folder")))):
        assert str(copied.anything) == "folder"


def test_a_logger_that_cannot_be_made_takes_any_call_too(tmp_path):
    logger = copy.deepcopy(StandIn(tmp_path))
    assert not logger.use_artifact("data").download()
    assert logger.save_dir == logger.log_dir == logger.root_dir == str(tmp_path)
