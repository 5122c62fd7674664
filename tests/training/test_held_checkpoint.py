import threading

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import SingleDeviceStrategy
from nets import Line, Points

from lightningtune.training.held_checkpoint import hold


def fitted(model=None, **given):
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    trainer = L.Trainer(max_epochs=1, **{"accelerator": "cpu", **quiet, **given})
    trainer.fit(model or Line(), datamodule=Points())
    return trainer


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


class Moments(Line):
    """Its optimizer has a state."""

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def test_what_is_held_is_what_would_have_been_written_then(tmp_path):
    trainer = fitted(Moments())
    trainer.save_checkpoint(tmp_path / "then.ckpt")
    held = hold(trainer)
    weight = trainer.model.net[0].weight
    with torch.no_grad():
        weight.fill_(7.0)
        trainer.optimizers[0].state[weight]["exp_avg"].fill_(7.0)
    trainer.model.hparams["act"] = "gelu"
    held.write(tmp_path / "later.ckpt")
    then, later = (torch.load(tmp_path / name, weights_only=True) for name in ("then.ckpt", "later.ckpt"))
    assert same(then, later)
    assert vars(then["state_dict"]) == vars(later["state_dict"]), "with the versions of its modules"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["later.ckpt", "then.ckpt"]


def test_it_is_written_as_the_trainer_writes(tmp_path):
    class Marks(TorchCheckpointIO):
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            super().save_checkpoint({**checkpoint, "mark": 1}, path)

    io = Marks()
    trainer = fitted(plugins=[io])
    held = hold(trainer)
    assert trainer.strategy.checkpoint_io is io
    held.write(tmp_path / "a.ckpt")
    assert torch.load(tmp_path / "a.ckpt", weights_only=True)["mark"] == 1


class Sharded(SingleDeviceStrategy):
    def save_checkpoint(self, checkpoint, filepath, storage_options=None):
        filepath.mkdir()


def test_a_strategy_that_writes_in_its_own_way_is_not_asked():
    assert hold(fitted(strategy=Sharded("cpu"), accelerator="auto")) is None


@pytest.mark.parametrize("where", ["hook", "callback"])
def test_what_cannot_be_copied_is_not_held(where):
    class Locked(Line):
        def on_save_checkpoint(self, checkpoint):
            checkpoint["lock"] = threading.Lock()

    class Holds(L.Callback):
        def state_dict(self):
            return {"lock": threading.Lock()}

    trainer = fitted(Locked()) if where == "hook" else fitted(callbacks=[Holds()])
    assert hold(trainer) is None
    assert isinstance(trainer.strategy.checkpoint_io, TorchCheckpointIO)


def test_the_memory_of_what_is_not_needed_any_more_is_used_again(tmp_path):
    trainer = fitted(Moments())
    first = hold(trainer)
    places = [tensor.data_ptr() for tensor in first.memory]
    with torch.no_grad():
        trainer.model.net[0].weight.fill_(7.0)
    second = hold(trainer, first)
    assert [tensor.data_ptr() for tensor in second.memory] == places
    second.write(tmp_path / "a.ckpt")
    assert torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]["net.0.weight"].eq(7.0).all()
    other = hold(fitted(Line(width=9)), second)
    other.write(tmp_path / "a.ckpt")
    assert torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]["net.0.weight"].shape == (9, 2)
