import json
import re
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from faults import Faulty
from lightning.pytorch.callbacks import EarlyStopping, LearningRateFinder, ModelCheckpoint
from nets import Line, Points
from torch.utils.data import DataLoader, TensorDataset

from lightningtune.check.dry_run import DOUBT_FILE, NOTES_FILE, DryRun, dry_run_config
from lightningtune.config.schema import Schema
from lightningtune.contract import Objective, SilentReporter, StopReason, TrialOutcome, TrialSpec
from lightningtune.errors import MetricError
from lightningtune.training.build import Blueprint
from lightningtune.training.run import train
from lightningtune.training.trackers import with_local_loggers

LOSS = Objective(("val_loss",), ("min",))
CPU = {"accelerator": "cpu"}
LOGS = ("metrics.csv", "hparams.yaml")


@pytest.fixture
def dry_run(tmp_path):
    """Try a config, and return how it ended, what was noted, and whether a trial need not have failed."""
    count = iter(range(99))

    def run(config=None, model=Line, data=Points, saves=True, callbacks=(), leaves=(), objective=LOSS):
        directory = tmp_path / str(next(count))
        directory.mkdir()
        config = {"trainer": CPU, **(config or {})}
        blueprint = Blueprint(Schema(model, data, L.Trainer), config)
        config = dry_run_config(config, 7)
        config = with_local_loggers(config, config["trainer"].get("logger"), directory)
        callbacks = (*callbacks, DryRun(directory, saves))
        spec = TrialSpec(0, config, directory, objective, callbacks, save_checkpoints=False)
        try:
            outcome = train(spec, blueprint, SilentReporter())
        except MetricError as error:  # which the host makes an outcome of
            outcome = TrialOutcome.failed(error)
        record, doubt = directory / NOTES_FILE, directory / DOUBT_FILE
        noted = json.loads(record.read_text()) if record.exists() else None
        left = {path.name for path in directory.iterdir() if not path.name.startswith("events.")}
        assert left - {NOTES_FILE, DOUBT_FILE, *LOGS} == {*leaves}
        return outcome, noted, doubt.exists()

    return run


class Counts(Line):
    """Asserts that a fit is told the numbers of a whole one, and makes its schedules from them."""

    def configure_optimizers(self):
        trainer = self.trainer
        assert (trainer.estimated_stepping_batches, trainer.num_training_batches) == (90 * 4, 8)
        assert (trainer.val_check_interval, trainer.check_val_every_n_epoch, trainer.min_epochs) == (8, 5, 80)
        optimizer = super().configure_optimizers()
        steps = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=int(trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": steps, "interval": "step"}}

    def on_validation_epoch_end(self):
        assert self.trainer.check_val_every_n_epoch == 5


def test_a_dry_run_is_one_epoch_of_two_batches_and_all_numbers_are_those_of_a_trial(dry_run):
    trainer = {
        **CPU, "max_epochs": 90, "min_epochs": 80, "val_check_interval": 8, "profiler": "simple",
        "check_val_every_n_epoch": 5, "accumulate_grad_batches": 2, "num_sanity_val_steps": -1,
        "enable_checkpointing": True, "default_root_dir": "elsewhere",
        "callbacks": [{"class_path": "ModelCheckpoint"}, {"class_path": "lightning.pytorch.callbacks.Timer"}],
    }  # fmt: skip
    outcome, noted, is_in_doubt = dry_run(
        {"trainer": trainer, "data": {"batch_size": 2}}, Counts, leaves=["checkpoints"]
    )
    assert (outcome.reason, outcome.detail) == (StopReason.COMPLETED, "")
    assert outcome.epochs == 1
    assert len(noted["losses"]) == len(noted["train_seconds"]) == 2
    assert (noted["train_batches"], noted["val_batches"], len(noted["val_seconds"])) == (8, 1, 1)
    assert {*noted["metrics"]} == {"val_loss", "val_acc", "size"}
    assert noted["settings"] == {
        "max_epochs": 90, "max_steps": -1, "min_epochs": 80, "min_steps": None, "accumulate_grad_batches": 2,
        "gradient_clip_val": None, "val_check_batch": 8, "check_val_every_n_epoch": 5,
    }  # fmt: skip
    assert is_in_doubt, "what would be raised from now on"


def many():
    values = TensorDataset(torch.linspace(-1, 1, 64).reshape(32, 2))
    return DataLoader(values, 4), DataLoader(values, 4)


@pytest.mark.parametrize("trainer", [{}, {"check_val_every_n_epoch": 2}, {"val_check_interval": 1}])
def test_validations_are_cut_short_whenever_they_come(dry_run, trainer):
    outcome, noted, _ = dry_run({"trainer": {**CPU, **trainer, "max_epochs": 4}}, data=many)
    assert outcome.reason is StopReason.COMPLETED
    assert len(noted["val_seconds"]) == (4 if "val_check_interval" in trainer else 2)
    assert noted["val_batches"] == 8


def test_a_limit_of_the_users_stays(dry_run):
    noted = dry_run({"trainer": {**CPU, "limit_train_batches": 1, "limit_val_batches": 0.5}}, data=many)[1]
    assert (noted["train_batches"], len(noted["losses"])) == (1, 1)
    assert (noted["val_batches"], len(noted["val_seconds"])) == (4, 2)


def raised(hook, after=0):
    """Return a model that raises in a hook, unless the epoch had more than so many batches."""

    def fail(self, *_):
        if self.trainer.global_step <= after:
            raise RuntimeError("no")

    return type("Fails", (Line,), {hook: fail})


@pytest.mark.parametrize(
    ("hook", "is_in_doubt"),
    [
        ("configure_optimizers", False), ("on_train_start", False), ("training_step", False),
        ("validation_step", False), ("on_validation_epoch_end", True), ("on_train_epoch_end", True),
        ("on_train_end", True), ("on_fit_end", True),
    ],
)  # fmt: skip
def test_what_is_raised_before_the_cut_or_in_a_batch_is_raised_in_a_trial(dry_run, hook, is_in_doubt):
    found = dry_run({"trainer": {**CPU, "max_epochs": 4}}, raised(hook, 2), many)
    assert (found[0].detail, found[2]) == ("RuntimeError: no", is_in_doubt)


def test_nothing_of_a_trial_of_one_epoch_that_is_that_short_is_in_doubt(dry_run):
    outcome, _, is_in_doubt = dry_run({"trainer": {**CPU, "max_epochs": 1}}, raised("on_fit_end", 2))
    assert (outcome.detail, is_in_doubt) == ("RuntimeError: no", False)


@pytest.mark.parametrize(
    ("callbacks", "metric"),
    [([EarlyStopping("val_los")], "val_loss"), ([EarlyStopping("val_los")], "val_los"), ([], "val-loss")],
)
def test_a_metric_that_a_whole_epoch_would_miss_too_leaves_no_doubt(dry_run, callbacks, metric):
    objective = Objective((metric,), ("min",))
    outcome, _, is_in_doubt = dry_run(
        {"trainer": {**CPU, "max_epochs": 4}}, data=many, callbacks=callbacks, objective=objective
    )
    assert re.search("metric '?`?val[_-]los", outcome.detail)
    assert not is_in_doubt


def test_a_dry_run_notes_how_large_a_checkpoint_is(dry_run):
    small, large = (dry_run({"model": {"width": width}})[1]["checkpoint"] for width in (4, 4096))
    assert large > small + 4 * 4096 * 3
    assert dry_run(saves=False)[1]["checkpoint"] is None


def test_a_checkpoint_that_cannot_be_written_is_seen(dry_run):
    outcome, noted, _ = dry_run({"model": {"fault": "checkpoint"}}, Faulty)
    assert "cannot pickle '_thread.lock' object" in outcome.detail
    assert noted is None
    assert dry_run({"model": {"fault": "checkpoint"}}, Faulty, saves=False)[0].reason is StopReason.COMPLETED


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"model": {"unused": 0.9}}, set()),
        ({"model": {"late": 0.9}}, set()),
        ({"model": {"width": 8}}, {"model", "weights"}),
        ({"model": {"decay": 1e-30}}, {"optimizers"}),
        ({"data": {"batch_size": 4}}, {"weights"}),
        ({"trainer": {"accelerator": "cpu", "max_epochs": 7}}, {"settings"}),
    ],
)
def test_a_fingerprint_tells_what_a_parameter_changes(dry_run, changed, parts):
    both = [dry_run(config, Faulty)[1] for config in ({}, changed)]
    one, other = ({**noted["fingerprint"], "settings": noted["settings"]} for noted in both)
    assert {name for name in one if one[name] != other[name]} >= parts
    assert (one == other) == (not parts)


class Scheduled(Line):
    def __init__(self, step_size: int = 5):
        super().__init__()
        self.step_size = step_size

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, self.step_size)]


def test_a_scheduler_that_has_not_acted_yet_tells_its_parameters(dry_run):
    one, other = (dry_run({"model": {"step_size": size}}, Scheduled)[1]["fingerprint"] for size in (5, 50))
    assert {name for name in one if one[name] != other[name]} == {"schedulers"}


def test_a_seed_of_the_config_stays():
    assert dry_run_config({"seed_everything": 3}, 1)["seed_everything"] == 3
    assert dry_run_config({"seed_everything": True}, 1)["seed_everything"] == 1
    assert dry_run_config({"seed_everything": False}, 1)["seed_everything"] == 1


def test_checkpoints_of_callbacks_go_to_the_dry_runs_folder_and_finders_are_left_out(dry_run, tmp_path):
    elsewhere = ModelCheckpoint(tmp_path / "elsewhere", monitor="val_loss")
    finder = LearningRateFinder()
    outcome, *_ = dry_run(callbacks=[elsewhere, finder], leaves=["checkpoints"])
    assert outcome.reason is StopReason.COMPLETED
    assert finder.optimal_lr is None
    assert not (tmp_path / "elsewhere").exists()


def test_a_callback_that_watches_a_metric_that_is_not_logged_is_seen(dry_run):
    outcome, _, is_in_doubt = dry_run(
        {"trainer": {**CPU, "max_epochs": 4}}, data=many, callbacks=[ModelCheckpoint(monitor="val_los")]
    )
    assert "val_los" in outcome.detail
    assert not is_in_doubt


class LooksAround(Line):
    def on_fit_start(self):
        assert Path(self.logger.log_dir) == Path(self.trainer.log_dir) == Path(self.trainer.default_root_dir)
        self.logger.experiment.add_histogram("x", torch.ones(2))


def local(logger, tmp_path):
    return with_local_loggers({"trainer": {"max_epochs": 1}}, logger, tmp_path)["trainer"].get("logger")


@pytest.mark.parametrize("logger", [None, True, False])
def test_a_logger_that_lightning_makes_is_as_in_a_trial(logger, tmp_path):
    assert local(logger, tmp_path) is None
    config = {"trainer": {"logger": logger}}
    assert with_local_loggers(config, logger, tmp_path) == config


def test_loggers_of_files_write_to_the_dry_runs_folder_and_trackers_get_no_run(tmp_path):
    csv = {"class_path": "CSVLogger", "init_args": {"save_dir": "mine", "flush_logs_every_n_steps": 3}}
    found = local([csv, "WandbLogger", "nowhere.Logger"], tmp_path)
    assert found[0]["init_args"] == {"save_dir": str(tmp_path), "flush_logs_every_n_steps": 3}
    stand_in = {"class_path": "lightningtune.training.trackers.StandIn", "init_args": {"folder": str(tmp_path)}}
    assert found[1:] == [stand_in, stand_in]
    assert local("TensorBoardLogger", tmp_path)["init_args"] == {"save_dir": str(tmp_path)}


@pytest.mark.parametrize("logger", ["CSVLogger", "TensorBoardLogger", "WandbLogger"])
def test_what_a_model_asks_of_its_logger_fails_where_a_trial_would(dry_run, logger):
    pytest.importorskip("tensorboard")
    outcome, *_ = dry_run({"trainer": {**CPU, "logger": {"class_path": logger}}}, LooksAround)
    assert ("no attribute 'add_histogram'" in outcome.detail) == (logger == "CSVLogger")


_SPREAD = """
import lightning as L, torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, distribute_tensor
from lightningtune.check.dry_run import fingerprint

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
from pathlib import Path
import torch
sys.modules["torch.distributed.tensor"] = None  # as in torch 2.4, and in builds without torch.distributed
import lightningtune.check.dry_run
rooms = {name.split(".")[1] for name in sys.modules if name.startswith("lightningtune.")}
assert rooms <= {"_version", "check", "config", "contract", "errors", "files", "streams", "training", "wording"}, rooms
assert "optuna" not in sys.modules, "a trial's process would wait for it"
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [_SPREAD, _WITHOUT], ids=["spread", "without"])
def test_a_tensor_that_is_spread_is_known_and_a_trials_process_needs_neither_its_module_nor_the_host(script):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
