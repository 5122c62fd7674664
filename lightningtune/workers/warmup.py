"""What the fork server does once, so that no trial has to: late imports, caches that fill up, quickened bytecode."""

from __future__ import annotations

import contextlib
import importlib
import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from lightningtune.config.schema import Schema
from lightningtune.contract import Objective, SilentReporter, TrialSpec
from lightningtune.errors import InvalidConfigError
from lightningtune.training.build import Blueprint
from lightningtune.training.run import train
from lightningtune.training.tracker_names import list_imports


class _Nothing(LightningModule):
    """Learns nothing: no backward pass is run, since autograd's threads would not survive a fork."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.log("train_loss", 0.0)
        self.optimizers().step()  # type: ignore[union-attr]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.layer(batch[0]).sum())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


def _data() -> tuple[DataLoader[Any], DataLoader[Any]]:
    data = TensorDataset(torch.zeros(2, 1))
    return DataLoader(data), DataLoader(data)


_IN_MEMORY = {"class_path": "CSVLogger", "init_args": {"save_dir": "memory://warm-up", "name": "", "version": ""}}
"""The logger that trials have by default, in memory: a server may be killed at any time, and would leave its files."""


def warm_up(blueprint: Blueprint) -> None:
    """Run a fit of two steps on the CPU, and parse the base config: trials differ from it in few sections.

    It writes no file.

    Args:
        blueprint: of the study; knows its base config.
    """
    with contextlib.suppress(InvalidConfigError):  # the search space may give what it lacks
        blueprint.check(blueprint.config)
    for module in list_imports(blueprint.config.get("trainer") or {}):
        with contextlib.suppress(Exception):  # that a tracker fails, whatever it raises, is for the trial to tell
            importlib.import_module(module)
    own = {"seed_everything": 0, "trainer": {"max_epochs": 1, "accelerator": "cpu", "logger": _IN_MEMORY}}
    spec = TrialSpec(0, own, Path(os.devnull), Objective(("val_loss",), ("min",)), save_checkpoints=False)
    train(spec, Blueprint(Schema(_Nothing, _data, Trainer), own), SilentReporter())
