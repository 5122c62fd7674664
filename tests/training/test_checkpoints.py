import contextlib
import itertools
import os
import subprocess

import lightning as L
import pytest
import torch
from nets import Line, Points

from lightningtune.config.schema import Schema
from lightningtune.contract import Objective, SilentReporter, StopReason, TrialSpec
from lightningtune.training.build import Blueprint
from lightningtune.training.checkpoints import KeepCheckpoints
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
