"""What is kept of a trial while it trains: its best and its last checkpoint."""

import contextlib
import itertools
import os
import subprocess
import threading

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import SingleDeviceStrategy
from nets import Line, Points

from lightningtune.config.schema import Schema
from lightningtune.contract import Objective, SilentReporter, StopReason, TrialSpec
from lightningtune.training.build import Blueprint
from lightningtune.training.checkpoints import KeepCheckpoints, hold
from lightningtune.training.run import train


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


class Clock:
    """Stands still, but for the time that a test lets pass, and for what a write takes."""

    def __init__(self, write=0.1):
        self.now, self.write = 1000.0, write

    def __call__(self):
        return self.now


class Writes:
    """Saves in the time that the clock says; writes down when."""

    world_size = 1
    is_global_zero = True
    loggers = ()
    strategy = None  # that writes in its own way

    def __init__(self, clock):
        self.clock, self.at = clock, []

    def save_checkpoint(self, path):
        path.write_text("")
        self.at.append(self.clock.now)
        self.clock.now += self.clock.write


def times_of_writing(tmp_path, epoch, count, write=0.1, is_best=lambda number: False):
    """Return when the last checkpoint was written, of ``count`` epochs that take ``epoch`` seconds each."""
    clock = Clock(write)
    writes, keep = Writes(clock), KeepCheckpoints(tmp_path, clock)
    for number in range(count):
        clock.now += epoch
        keep(writes, is_best(number))
    return writes.at, clock.now


def test_writing_takes_a_fiftieth_of_the_time_of_quick_epochs(tmp_path):
    written, end = times_of_writing(tmp_path, epoch=0.1, count=1000)
    assert 0.018 <= len(written) * 0.1 / (end - 1000.0) <= 0.021
    assert all(later - earlier >= 5.1 - 1e-6 for earlier, later in itertools.pairwise(written))


@pytest.mark.parametrize(("epoch", "write"), [(0.5, 20.0), (7.0, 2.0), (29.0, 1.0), (20.0, 5.0)])
def test_never_more_than_half_a_minute_is_unsaved(tmp_path, epoch, write):
    written, _ = times_of_writing(tmp_path, epoch, count=100, write=write)
    assert max(later - earlier - write for earlier, later in itertools.pairwise(written)) <= 30.0 + 1e-6


def test_an_epoch_that_takes_longer_is_always_saved(tmp_path):
    assert len(times_of_writing(tmp_path, epoch=40.0, count=10, write=5.0)[0]) == 10


def test_the_best_is_always_written_and_counts_as_the_last(tmp_path):
    written, _ = times_of_writing(tmp_path, epoch=0.1, count=40, is_best=lambda number: number in (0, 10))
    assert written == pytest.approx([1000.1, 1001.2])


def test_what_is_needed_is_written_at_once_and_what_is_not_needed_is_not(trainer, tmp_path):
    clock = Clock()
    keep = KeepCheckpoints(tmp_path, clock)
    writes = Writes(clock)
    keep(writes, True)
    keep(writes, False)
    assert len(writes.at) == 1
    keep(writes, False, "always")
    assert len(writes.at) == 2
    clock.now += 1000.0
    keep(writes, False, "never")
    assert len(writes.at) == 2
    keep.last.unlink()
    keep(writes, True, "never")
    assert keep.best.exists()
    assert not keep.last.exists()


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
    keep(trainer, False, "always")
    assert keep.best.read_bytes() == best
    assert torch.load(keep.last, weights_only=True)["state_dict"]["net.0.weight"].eq(7.0).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_a_file_system_without_links_gets_a_copy(trainer, tmp_path, monkeypatch):
    def refuse(*args, **options):
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


# --- the best, held in memory ---------------------------------------------------------------------------------------


def kept(keep):
    """Return of which weight each checkpoint is."""
    found = {}
    for path in (keep.best, keep.last):
        if path.exists():
            found[path.name] = torch.load(path, weights_only=True)["state_dict"]["net.0.weight"][0, 0].item()
    return found


class Timed:
    """A trainer by whose clock a write takes a second; each validation has another weight."""

    def __init__(self, trainer, tmp_path):
        self.trainer, self.clock = trainer, Clock()
        self.keep = KeepCheckpoints(tmp_path, self)
        self.writes = 0

    def __call__(self):  # the second look at the clock of each write
        self.clock.now += 0.5
        return self.clock.now

    def validate(self, weight, is_best, seconds=0.0, last="when due"):
        self.clock.now += seconds
        with torch.no_grad():
            self.trainer.model.net[0].weight.fill_(weight)
        self.keep(self.trainer, is_best, last)
        return kept(self.keep)


def test_a_best_that_is_not_due_is_written_when_something_is(trainer, tmp_path):
    timed = Timed(trainer, tmp_path)
    assert timed.validate(1.0, True) == {"best.ckpt": 1.0, "last.ckpt": 1.0}
    assert timed.validate(2.0, True) == {"best.ckpt": 1.0, "last.ckpt": 1.0}
    assert timed.validate(3.0, True) == {"best.ckpt": 1.0, "last.ckpt": 1.0}
    assert timed.validate(4.0, False) == {"best.ckpt": 1.0, "last.ckpt": 1.0}
    assert timed.validate(5.0, False, seconds=30.0) == {"best.ckpt": 3.0, "last.ckpt": 5.0}
    assert timed.validate(6.0, True) == {"best.ckpt": 3.0, "last.ckpt": 5.0}
    assert timed.validate(7.0, True, seconds=30.0) == {"best.ckpt": 7.0, "last.ckpt": 7.0}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize("needed", [True, False])
def test_a_best_that_is_held_is_written_at_the_end_and_where_all_is_needed(trainer, tmp_path, needed):
    timed = Timed(trainer, tmp_path)
    timed.validate(1.0, True)
    timed.validate(2.0, True)
    if needed:
        assert timed.validate(3.0, False, last="always") == {"best.ckpt": 2.0, "last.ckpt": 3.0}
    else:
        timed.validate(3.0, False, last="never")
        timed.keep.complete(trainer)
        assert kept(timed.keep) == {"best.ckpt": 2.0, "last.ckpt": 1.0}
    assert timed.validate(4.0, True, last="never")["best.ckpt"] == 4.0
    timed.keep.complete(trainer)
    assert kept(timed.keep)["best.ckpt"] == 4.0


class Counts(SilentReporter):
    """Counts how often the best checkpoint is another one than at the validation before."""

    def __init__(self, path):
        self.path, self.seen, self.count = path, None, 0

    def report(self, values, step):
        now = self.path.stat().st_ino if self.path.exists() else None
        self.count, self.seen = self.count + (now != self.seen), now


def test_quick_epochs_that_are_all_better_do_not_drown_in_writing(tmp_path):
    config = {"seed_everything": 1, "trainer": {"accelerator": "cpu", "max_epochs": 40, "logger": False}}
    spec = TrialSpec(0, config, tmp_path, Objective(("val_loss",), ("min",), "last"))
    counts = Counts(tmp_path / "best.ckpt")
    outcome = train(spec, Blueprint(Schema(Line, Points, L.Trainer), config), counts)
    assert counts.count < 20
    assert torch.load(outcome.checkpoint, weights_only=True)["epoch"] == 39


# --- a full disk ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system takes root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk):
    with (disk / "filling").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize("is_best", [True, False])
def test_a_full_disk_leaves_the_checkpoints_of_before_whole(trainer, small_disk, is_best):
    keep = KeepCheckpoints(small_disk)
    keep(trainer, True)
    before = keep.best.read_bytes()
    fill(small_disk)
    with torch.no_grad():
        trainer.model.net[0].weight.fill_(7.0)
    with pytest.raises(OSError, match=r"No space left on device here or in .*: '.*/disk/(best|last).ckpt'"):
        keep(trainer, is_best, "always")
    assert keep.best.read_bytes() == keep.last.read_bytes() == before
    assert sorted(path.name for path in small_disk.iterdir()) == ["best.ckpt", "filling", "last.ckpt"]


def test_a_trial_whose_disk_is_full_has_failed_and_says_so(small_disk):
    class Fills(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                fill(small_disk)

    (small_disk / "trial").mkdir()
    config = {"seed_everything": 1, "trainer": {"accelerator": "cpu", "max_epochs": 4, "logger": False}}
    spec = TrialSpec(0, config, small_disk / "trial", Objective(("val_loss",), ("min",)), (Fills(),))
    outcome = train(spec, Blueprint(Schema(Line, Points, L.Trainer), config), SilentReporter())
    assert outcome.reason is StopReason.FAILED
    assert outcome.detail.startswith("OSError: [Errno 28] No space left on device here or in ")
    assert str(small_disk / "trial" / "best.ckpt") in outcome.detail
    assert torch.load(outcome.checkpoint, weights_only=True)["epoch"] == 0
    assert torch.load(small_disk / "trial/last.ckpt", weights_only=True)["epoch"] == 0


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
