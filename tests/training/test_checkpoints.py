import os

import lightning as L
import pytest
import torch
from nets import Line, Points

from lightningtune.training.checkpoints import KeepCheckpoints


@pytest.fixture
def trainer(tmp_path):
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(Line(), datamodule=Points())
    return trainer


def test_the_best_is_written_once_and_linked(trainer, tmp_path):
    keep = KeepCheckpoints(tmp_path)
    keep(trainer, True)
    assert keep.best.samefile(keep.last)


def test_a_later_value_that_is_not_the_best_leaves_the_best_alone(trainer, tmp_path):
    keep = KeepCheckpoints(tmp_path)
    keep(trainer, True)
    best = keep.best.read_bytes()
    with torch.no_grad():
        trainer.model.net[0].weight.fill_(7.0)
    keep(trainer, False)
    assert keep.best.read_bytes() == best
    assert torch.load(keep.last, weights_only=True)["state_dict"]["net.0.weight"].eq(7.0).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_a_file_system_without_links_gets_a_copy(trainer, tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    keep = KeepCheckpoints(tmp_path)
    keep(trainer, True)
    assert keep.last.read_bytes() == keep.best.read_bytes()
    assert not keep.best.samefile(keep.last)


def test_a_checkpoint_loads_into_the_class(trainer, tmp_path):
    keep = KeepCheckpoints(tmp_path)
    keep(trainer, True)
    assert Line.load_from_checkpoint(keep.best).hparams.lr == 0.1
