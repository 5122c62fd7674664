import threading

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import SingleDeviceStrategy
from nets import Line, Points

from lightningtune.training.checkpoints import hold


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


class Keeps(Line):
    """Writes one more tensor."""

    kept = torch.ones(2)

    def on_save_checkpoint(self, checkpoint):
        checkpoint["kept"] = self.kept


def written(held, path):
    held.write(path)
    return torch.load(path, weights_only=True)


def test_a_tensor_that_cannot_be_copied_is_not_held():
    trainer = fitted(Keeps())
    before = hold(trainer)
    trainer.lightning_module.kept = torch.ones(2, device="meta")
    assert hold(trainer, before) is None
    assert isinstance(trainer.strategy.checkpoint_io, TorchCheckpointIO)


def test_what_does_not_fit_in_memory_is_not_held():
    trainer = fitted(Keeps())
    trainer.lightning_module.kept = torch.ones(1).expand(2**60)
    assert hold(trainer) is None


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
def test_memory_of_another_layout_is_not_written_over(tmp_path):
    trainer, held = fitted(Keeps()), None
    dense = torch.tensor([0.0, 1.0, 0.0, 2.0])
    for kept in (dense, dense.to_sparse(), dense[:1].to_sparse(), dense.add(1).to_sparse(), dense.add(2), dense.int()):
        trainer.lightning_module.kept = kept
        held = hold(trainer, held)
        found = written(held, tmp_path / "a.ckpt")["kept"]
        assert (found.layout, found.dtype) == (kept.layout, kept.dtype)
        assert torch.equal(found.to_dense(), kept.to_dense())


def test_memory_is_used_again_in_inference_mode_and_outside(tmp_path):
    trainer, held, places = fitted(Keeps()), None, set()
    for count, inference in enumerate((True, False, True)):
        with torch.inference_mode(inference):
            trainer.lightning_module.kept = torch.full((2,), float(count))
            held = hold(trainer, held)
        assert written(held, tmp_path / "a.ckpt")["kept"].tolist() == [count, count]
        places.add(tuple(tensor.data_ptr() for tensor in held.memory))
    assert len(places) == 1


class Tied(Line):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.one, self.other = torch.nn.Linear(99, 99), torch.nn.Linear(99, 99)
        self.other.weight = self.one.weight


def test_tied_weights_are_held_and_written_once(tmp_path):
    trainer, held = fitted(Tied()), None
    trainer.save_checkpoint(tmp_path / "then.ckpt")
    for _ in range(2):
        held = hold(trainer, held)
        later = written(held, tmp_path / "later.ckpt")
        assert same(torch.load(tmp_path / "then.ckpt", weights_only=True), later)
        weights = [later["state_dict"][f"{name}.weight"] for name in ("one", "other")]
        assert weights[0].data_ptr() == weights[1].data_ptr()
        sizes = [(tmp_path / name).stat().st_size for name in ("then.ckpt", "later.ckpt")]
        assert sizes[1] == pytest.approx(sizes[0], abs=1000)
    trainer.lightning_module.other.weight = torch.nn.Parameter(torch.zeros(99, 99))
    later = written(hold(trainer, held), tmp_path / "later.ckpt")["state_dict"]
    assert later["other.weight"].eq(0).all()
    assert later["one.weight"].ne(0).any()


def test_what_differs_in_one_place_of_memory_is_not_taken_for_tied(tmp_path):
    trainer = fitted(Keeps())
    numbers = torch.tensor([[1 + 2j, 3 + 4j], [5 + 6j, 7 + 8j]])
    kept = [numbers, numbers.conj(), numbers.T, numbers[0], numbers[1], torch.empty(0), torch.empty(0, dtype=torch.int)]
    trainer.lightning_module.kept = kept
    for one, other in zip(written(hold(trainer), tmp_path / "a.ckpt")["kept"], kept, strict=True):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype
