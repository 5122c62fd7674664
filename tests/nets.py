"""Tiny models and data for tests of whole studies: a trial takes a few hundredths of a second."""

import os
import pickle
import signal
from pathlib import Path

import lightning as L
import optuna
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightningtune.config.schema import Schema
from lightningtune.training.build import Blueprint


class Line(L.LightningModule):
    """Logs ``val_loss``, which the learning rate and the epoch decide, and ``val_acc``."""

    def __init__(self, lr: float = 0.1, width: int = 4, act: str = "relu", explode_at: float = 9.0):
        super().__init__()
        self.save_hyperparameters()
        self.lr, self.explode_at = lr, explode_at
        self.net = nn.Sequential(nn.Linear(2, width), nn.Linear(width, 1))

    def training_step(self, batch, batch_idx):
        if self.lr > self.explode_at:
            raise RuntimeError(f"lr {self.lr:.3f} is too high")
        return self.net(batch[0]).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        loss = self.net(batch[0]).pow(2).mean()
        self.log("val_loss", loss)
        self.log("val_acc", -loss)
        self.log("size", float(sum(p.numel() for p in self.parameters())))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class PrunesItself(Line):
    """Raises ``optuna.TrialPruned`` at a place of a trial that its argument names."""

    def __init__(self, at: str = "nowhere"):
        super().__init__()
        self.at = at
        self.reach("model")

    def reach(self, place):
        if self.at == place:
            raise optuna.TrialPruned(f"not worth it, says the {place}")

    def setup(self, stage):
        self.reach("setup")

    def training_step(self, batch, batch_idx):
        self.reach("step")
        self.reach(f"step of rank {self.global_rank}")
        return super().training_step(batch, batch_idx)


class DiesOnce(Line):
    """Its process is killed in the fourth epoch, the first time."""

    def __init__(self, lr: float = 0.1, mark: str = ""):
        super().__init__(lr)
        self.mark = mark

    def on_train_epoch_start(self):
        if self.current_epoch == 3 and not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Points(L.LightningDataModule):
    def __init__(self, batch_size: int = 8, shuffle: bool = True):
        super().__init__()
        self.batch_size, self.shuffle = batch_size, shuffle

    def train_dataloader(self):
        return DataLoader(points(), batch_size=self.batch_size, shuffle=self.shuffle)

    def val_dataloader(self):
        return DataLoader(points(), batch_size=16)


def points():
    return TensorDataset(torch.linspace(-1, 1, 32).reshape(16, 2))


def loaders(batch_size: int = 8):
    """Ready dataloaders in place of a datamodule."""
    return DataLoader(points(), batch_size=batch_size), DataLoader(points(), batch_size=16)


class Sees:
    """Runs code where it is unpickled."""

    def __init__(self, code):
        self.code = code

    def __reduce__(self):
        return exec, (self.code,)


def payload(model=Line, data=Points, config=None, **options):
    """Return what a starter of processes takes."""
    blueprint = Blueprint(Schema(model, data, L.Trainer), config or {}, **options)
    return pickle.dumps(blueprint)
