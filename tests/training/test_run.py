import gc
import multiprocessing
import os
import signal
import sys

import lightning as L
import pytest
import torch
from nets import Line, Points, points
from torch.utils.data import DataLoader

from lightningtune import ConfigurationError
from lightningtune.config.schema import Schema
from lightningtune.contract import Objective, Stop, StopReason, TrialSpec
from lightningtune.errors import MetricError
from lightningtune.training.build import Blueprint
from lightningtune.training.run import train


class Collect:
    """A reporter that keeps what it is told, and stops a trial at a given step."""

    def __init__(self, stop_at=None):
        self.values, self.stop_at = [], stop_at

    def report(self, values, step):
        self.values.append(values)
        return Stop(StopReason.PRUNED, "told to stop") if step == self.stop_at else None

    def notice(self, text): ...


class Explodes(Line):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * float("nan")


def run(tmp_path, model=Line, reporter=None, seed=1, objective=None, data=Points, **trainer):
    config = {"seed_everything": seed, "trainer": {"accelerator": "cpu", "max_epochs": 3, **trainer}}
    spec = TrialSpec(0, config, tmp_path, objective or Objective(("val_loss",), ("min",)))
    return train(spec, Blueprint(Schema(model, data, L.Trainer), config), reporter or Collect())


def test_every_validation_is_reported_and_the_best_is_kept(tmp_path):
    reporter = Collect()
    outcome = run(tmp_path, reporter=reporter)
    assert outcome.reason is StopReason.COMPLETED
    assert len(reporter.values) == 3
    assert outcome.score == min(reporter.values)
    assert outcome.epochs == 3
    assert outcome.duration > 0
    assert outcome.checkpoint == tmp_path / "best.ckpt"
    best_epoch = reporter.values.index(outcome.score)
    assert torch.load(outcome.checkpoint, weights_only=False)["epoch"] == best_epoch
    assert (tmp_path / "last.ckpt").exists(), "the study does not know of its end yet"


def test_the_same_seed_trains_the_same_model(tmp_path):
    values = [run(tmp_path / name, seed=seed).score for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    assert values[0] == values[1] != values[2]


class Plateau(Line):
    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_los"}}


@pytest.mark.parametrize("waits", ["early stopping", "scheduler"])
def test_a_metric_that_is_not_there_is_told_of_though_others_wait_for_it_too(tmp_path, waits):
    objective = Objective(("val_los",), ("min",))
    stopping = {"class_path": "EarlyStopping", "init_args": {"monitor": "val_los"}}
    model, callbacks = (Line, [stopping]) if waits == "early stopping" else (Plateau, [])
    with pytest.raises(MetricError, match="The metric 'val_los' was not logged.*Did you mean 'val_loss'"):
        run(tmp_path, model, objective=objective, callbacks=callbacks)
    if waits == "scheduler":  # it asks before the first validation
        early = run(tmp_path / "early", model, objective=objective, check_val_every_n_epoch=2)
        assert "ReduceLROnPlateau conditioned on metric" in early.detail
    other = run(tmp_path / "other", model, callbacks=callbacks)
    assert "conditioned on metric" in other.detail, "of a metric that is not tuned, Lightning says it"


def test_a_mistake_leaves_the_user_s_random_state_too(tmp_path):
    torch.manual_seed(99)
    with pytest.raises(MetricError):
        run(tmp_path, Line, objective=Objective(("val_los",), ("min",)))
    assert torch.initial_seed() == 99


def test_a_stopped_trial_says_why(tmp_path):
    outcome = run(tmp_path, reporter=Collect(stop_at=0))
    assert (outcome.reason, outcome.detail, outcome.score) == (StopReason.PRUNED, "told to stop at validation 1", None)
    assert outcome.epochs == 1


def test_a_score_that_cannot_be_computed_fails_its_trial(tmp_path):
    outcome = run(tmp_path, objective=Objective(("val_loss",), ("min",), score=lambda values: values[99]))
    assert (outcome.reason, outcome.score) == (StopReason.FAILED, None)
    assert outcome.detail == "IndexError: list index out of range"


@pytest.mark.parametrize("policy", ["prune", "fail"])
def test_a_loss_that_is_no_number_ends_the_trial(tmp_path, policy):
    outcome = run(tmp_path, Explodes, objective=Objective(("val_loss",), ("min",), non_finite=policy))
    assert outcome.reason is StopReason.NON_FINITE
    assert "val_loss is nan" in outcome.detail
    assert (outcome.error is not None) == (policy == "fail")


def test_what_a_model_raises_is_an_outcome(tmp_path):
    class Raises(Line):
        def __init__(self):
            raise KeyError("no such layer")

    outcome = run(tmp_path, Raises)
    assert outcome.reason is StopReason.FAILED
    assert outcome.detail == "KeyError: 'no such layer'"
    assert "in __init__" in outcome.traceback


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_running_out_of_memory_has_a_reason_of_its_own(tmp_path, error):
    class Greedy(Line):
        def training_step(self, batch, batch_idx):
            raise error

    assert run(tmp_path, Greedy).reason is StopReason.OUT_OF_MEMORY


def test_a_real_allocation_that_fails_is_out_of_memory(tmp_path):
    class Greedy(Line):
        def training_step(self, batch, batch_idx):
            return torch.empty(2**55)

    assert run(tmp_path, Greedy).reason is StopReason.OUT_OF_MEMORY


def test_an_exit_inside_training_is_a_failure_not_an_interruption(tmp_path):
    class Exits(Line):
        def training_step(self, batch, batch_idx):
            raise SystemExit(3)

    outcome = run(tmp_path, Exits)
    assert (outcome.reason, outcome.detail) == (StopReason.FAILED, "TrialError: the training called sys.exit(3)")


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
# torch, which looks whether files can still be opened, leaves one where the worker's end interrupts it
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_training_whose_dataloader_worker_is_killed_is_killed(tmp_path):
    others = {*multiprocessing.active_children()}

    class Kills(Line):
        def training_step(self, batch, batch_idx):
            for worker in {*multiprocessing.active_children()} - others:
                os.kill(worker.pid, signal.SIGKILL)
            return super().training_step(batch, batch_idx)

    class Loaded(Points):
        def train_dataloader(self):
            return DataLoader(points(), batch_size=1, num_workers=1)

    outcome = run(tmp_path, Kills, data=Loaded)
    assert outcome.reason is StopReason.KILLED, outcome.traceback
    assert outcome.detail.startswith("a DataLoader's worker ended: ")
    del outcome  # its error holds the file
    gc.collect()


def test_a_fit_without_a_validation_is_a_mistake(tmp_path):
    with pytest.raises(ConfigurationError, match="val_loss"):
        run(tmp_path, limit_val_batches=0)
