import tempfile

import fsspec
import lightning as L
from nets import Line, Points

from lightningtune.config.overrides import Schema
from lightningtune.training.build import Blueprint
from lightningtune.workers.warmup import warm_up


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
