import json
import subprocess
import sys

import lightning as L
import pytest
import torch
from faults import Faulty
from lightning.pytorch.callbacks import LearningRateFinder, ModelCheckpoint
from nets import Line, Points

from lightningtune.config.overrides import Schema
from lightningtune.contract import Objective, SilentReporter, StopReason, TrialSpec
from lightningtune.training.build import Blueprint
from lightningtune.training.rehearsal import RECORD, Rehearsal, rehearsal_of, with_stage_logger
from lightningtune.training.run import train

LOSS = Objective(("val_loss",), ("min",))


@pytest.fixture
def rehearse(tmp_path):
    """Rehearse a config, and return how it ended and what was noted."""
    count = iter(range(99))

    def run(config=None, model=Line, data=Points, saves=True, callbacks=(), leaves=()):
        directory = tmp_path / str(next(count))
        directory.mkdir()
        config = {"trainer": {"accelerator": "cpu"}, **(config or {})}
        blueprint = Blueprint(Schema(model, data, L.Trainer), config)
        config = with_stage_logger(rehearsal_of(config, 7), directory)
        callbacks = (*callbacks, Rehearsal(directory, saves))
        spec = TrialSpec(0, config, directory, LOSS, callbacks, save_checkpoints=False)
        outcome = train(spec, blueprint, SilentReporter())
        record = directory / RECORD
        noted = json.loads(record.read_text()) if record.exists() else None
        assert {path.name for path in directory.iterdir()} - {RECORD} == {*leaves}
        return outcome, noted

    return run


def test_a_rehearsal_is_one_epoch_of_two_batches_whatever_was_asked_for(rehearse):
    trainer = {
        "accelerator": "cpu", "max_epochs": 90, "min_epochs": 80, "val_check_interval": 500, "profiler": "simple",
        "check_val_every_n_epoch": 5, "logger": {"class_path": "lightning.pytorch.loggers.CSVLogger"},
        "enable_checkpointing": True, "default_root_dir": "elsewhere", "num_sanity_val_steps": 1,
        "callbacks": [{"class_path": "ModelCheckpoint"}, {"class_path": "lightning.pytorch.callbacks.Timer"}],
    }  # fmt: skip
    outcome, noted = rehearse({"trainer": trainer, "data": {"batch_size": 2}}, leaves=["checkpoints"])
    assert outcome.reason is StopReason.COMPLETED
    assert outcome.epochs == 1
    assert len(noted["losses"]) == 2
    assert (noted["train_lengths"], noted["val_lengths"]) == ([8], [1])
    assert {*noted["metrics"]} == {"val_loss", "val_acc", "size"}
    assert noted["train_seconds"] > 0 < noted["val_seconds"]
    assert "(90, -1, 1, None)" in noted["marks"]["trainer"]


def test_a_rehearsal_notes_how_large_a_checkpoint_is(rehearse):
    small, large = (rehearse({"model": {"width": width}})[1]["checkpoint"] for width in (4, 4096))
    assert large > small + 4 * 4096 * 3
    assert rehearse(saves=False)[1]["checkpoint"] is None


def test_a_checkpoint_that_cannot_be_written_is_seen(rehearse):
    outcome, noted = rehearse({"model": {"fault": "checkpoint"}}, Faulty)
    assert "cannot pickle '_thread.lock' object" in outcome.detail
    assert noted is None
    assert rehearse({"model": {"fault": "checkpoint"}}, Faulty, saves=False)[0].reason is StopReason.COMPLETED


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"model": {"unused": 0.9}}, set()),
        ({"model": {"late": 0.9}}, set()),
        ({"model": {"width": 8}}, {"model", "weights"}),
        ({"model": {"decay": 1e-30}}, {"optimizers"}),
        ({"data": {"batch_size": 4}}, {"weights"}),
        ({"trainer": {"accelerator": "cpu", "max_epochs": 7}}, {"trainer"}),
    ],
)
def test_a_fingerprint_tells_what_a_parameter_changes(rehearse, changed, parts):
    one, other = (rehearse(config, Faulty)[1]["marks"] for config in ({}, changed))
    assert {name for name in one if one[name] != other[name]} >= parts
    assert (one == other) == (not parts)


class Scheduled(Line):
    def __init__(self, step_size: int = 5):
        super().__init__()
        self.step_size = step_size

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, self.step_size)]


def test_a_scheduler_that_has_not_acted_yet_tells_its_parameters(rehearse):
    one, other = (rehearse({"model": {"step_size": size}}, Scheduled)[1]["marks"] for size in (5, 50))
    assert {name for name in one if one[name] != other[name]} == {"schedulers"}


def test_limits_that_are_smaller_stay():
    trainer = {"limit_train_batches": 1, "limit_val_batches": 0}
    assert rehearsal_of({"trainer": trainer}, 0)["trainer"].items() >= trainer.items()
    trainer = {"limit_train_batches": 0.5, "limit_val_batches": 1.0}
    rehearsed = rehearsal_of({"trainer": trainer}, 0)["trainer"]
    assert (rehearsed["limit_train_batches"], rehearsed["limit_val_batches"]) == (2, 2)
    never = rehearsal_of({"trainer": {"max_epochs": 3, "check_val_every_n_epoch": 4}}, 0)
    assert never["trainer"]["limit_val_batches"] == 0


def test_a_seed_of_the_config_stays():
    assert rehearsal_of({"seed_everything": 3}, 1)["seed_everything"] == 3
    assert rehearsal_of({"seed_everything": True}, 1)["seed_everything"] == 1
    assert rehearsal_of({"seed_everything": False}, 1)["seed_everything"] == 1


def test_checkpoints_of_callbacks_go_to_the_rehearsals_folder_and_finders_are_left_out(rehearse, tmp_path):
    elsewhere = ModelCheckpoint(tmp_path / "elsewhere", monitor="val_loss")
    finder = LearningRateFinder()
    outcome, _ = rehearse(callbacks=[elsewhere, finder], leaves=["checkpoints"])
    assert outcome.reason is StopReason.COMPLETED
    assert finder.optimal_lr is None
    assert not (tmp_path / "elsewhere").exists()


def test_a_callback_that_watches_a_metric_that_is_not_logged_is_seen(rehearse):
    outcome, _ = rehearse(callbacks=[ModelCheckpoint(monitor="val_los")])
    assert "val_los" in outcome.detail


class LooksAround(Line):
    def on_fit_start(self):
        assert self.logger.log_dir == self.trainer.log_dir == self.trainer.default_root_dir
        self.logger.experiment.add_histogram("x", [1, 2])
        self.logger.log_image("x", images=[])


def test_a_loggers_folder_is_the_rehearsals_and_it_forgets_everything(rehearse):
    assert rehearse(model=LooksAround)[0].detail == ""
    assert with_stage_logger({"trainer": {"logger": False}}, None) == {"trainer": {"logger": False}}


_SPREAD = """
import lightning as L, torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, distribute_tensor
from lightningtune.training.rehearsal import fingerprint

model = L.LightningModule()
model.weight = torch.nn.Parameter(torch.tensor([1.0, -3.0]))
one = fingerprint(L.Trainer(logger=False, accelerator="cpu"), model)["weights"]
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
mesh = init_device_mesh("cpu", (1,))
model.weight = torch.nn.Parameter(distribute_tensor(model.weight.data, mesh, [Replicate()]))
assert fingerprint(L.Trainer(logger=False, accelerator="cpu"), model)["weights"] == one, one
dist.destroy_process_group()
"""
_WITHOUT = """
import sys
import torch
sys.modules["torch.distributed.tensor"] = None  # as in torch 2.4, and in builds without torch.distributed
import lightningtune.training.rehearsal
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [_SPREAD, _WITHOUT], ids=["spread", "without"])
def test_a_tensor_that_is_spread_is_known_and_its_module_is_not_needed(script):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
