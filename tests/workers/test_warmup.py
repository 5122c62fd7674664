import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import fsspec
import lightning as L
import pytest
from nets import Line, Points

from lightningtune.config.schema import Schema
from lightningtune.training.build import Blueprint
from lightningtune.workers.fork_server import warm_up


def test_warming_up_trains_and_writes_no_file(tmp_path, monkeypatch):
    """A server may be killed meanwhile, and nobody would remove it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    warm_up(Blueprint(Schema(Line, Points, L.Trainer), {}))
    assert "val_loss" in memory.cat_file("/warm-up/metrics.csv").decode()
    assert [*tmp_path.iterdir()] == []


def test_what_the_base_config_lacks_is_no_error():
    """The search space may give it."""

    def model(lr: float): ...

    warm_up(Blueprint(Schema(model, Points, L.Trainer), {}))


IMPORTS = """
import json, os, sys, threading
import lightning as L
import torch
from nets import Line, Points
from lightningtune.config.schema import Schema
from lightningtune.training.build import Blueprint
from lightningtune.workers.fork_server import warm_up

def threads():
    tasks = [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
    return sorted(task for task in tasks if task != "jemalloc_bg_thd")  # another is started after a fork

torch.set_num_threads(1)
before = threads()
loggers = [{"class_path": name} for name in ("WandbLogger", "MLFlowLogger", "TensorBoardLogger")]
warm_up(Blueprint(Schema(Line, Points, L.Trainer), {"trainer": {"logger": loggers}}))
known = {"wandb", "mlflow.store.tracking.sqlalchemy_store", "torch.utils.tensorboard"}
print(json.dumps([threads() == before, threading.active_count(), sorted(known & {*sys.modules})]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="trials are forked on Linux")
def test_what_trackers_import_is_imported_once_and_starts_no_thread(tmp_path):
    """A thread would not survive the fork."""
    path = [str(Path(__file__).parents[1]), *sys.path]
    command = [sys.executable, "-W", "ignore", "-c", f"import sys; sys.path[:0] = {path}\n{IMPORTS}"]
    # by these MLflow tells a test, in which it sends no telemetry
    env = {name: value for name, value in os.environ.items() if name not in {"CI", "PYTEST_CURRENT_TEST"}}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=env)
    modules = ["mlflow.store.tracking.sqlalchemy_store", "torch.utils.tensorboard", "wandb"]
    assert json.loads(done.stdout.splitlines()[-1]) == [True, 1, modules]
    assert [*tmp_path.iterdir()] == []


def test_a_tracker_that_cannot_be_imported_is_for_the_trial_to_tell(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    warm_up(Blueprint(Schema(Line, Points, L.Trainer), {"trainer": {"logger": {"class_path": "WandbLogger"}}}))
