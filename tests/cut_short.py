"""Trials that are cut short at a validation, as by SIGKILL: what their folder holds then is kept."""

import itertools
import random
import shutil

import lightning as L
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightningtune.config.schema import Schema
from lightningtune.contract import Objective, TrialSpec
from lightningtune.training.build import Blueprint
from lightningtune.training.run import train

LOSS = Objective(("val_loss",), ("min",))


class Learner(L.LightningModule):
    """Everything it does depends on random state: initial weights, dropout, noise from NumPy and from Python."""

    def __init__(self, scheduler: str = "step"):
        super().__init__()
        self.save_hyperparameters()
        self.scheduler = scheduler
        self.net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))

    def training_step(self, batch, batch_idx):
        noise = np.random.rand() + random.random()
        loss = (self.net(batch[0]) - batch[0].sum(dim=1, keepdim=True) - noise).pow(2).mean()
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        loss = (self.net(batch[0]) - 1.0).pow(2).mean()
        self.log("val_loss", loss)

    def on_validation_epoch_end(self):
        self.log("turns", float(abs(self.current_epoch - 3)))  # best at epoch 3
        self.log("held", 1.0)
        if self.current_epoch % 2:
            self.log("odd", self.net[0].weight.sum())
        if self.current_epoch == 0:
            self.log("mixed", self.net[0].weight.sum())

    def on_train_epoch_end(self):
        if self.current_epoch == 0:
            self.log("held", 1.0)
        if self.current_epoch in (1, 4, 5):
            self.log("odd_in_training", self.net[0].weight.sum())
        if self.current_epoch != 2:  # new to the validation of the next epoch
            self.log("mixed", self.net[0].weight.sum())

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
        if self.scheduler == "plateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "held"}}
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)]


def samples():
    return TensorDataset(torch.linspace(-1, 1, 36).reshape(18, 2))


class Data(L.LightningDataModule):
    def __init__(self, batch_size: int = 4, own_generator: bool = False):
        super().__init__()
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(3) if own_generator else None

    def train_dataloader(self):
        return DataLoader(samples(), self.batch_size, shuffle=True, generator=self.generator)

    def val_dataloader(self):
        return DataLoader(samples(), 9)


class PositionLoader(DataLoader):
    """Goes on in the middle of an epoch."""

    def __init__(self):
        self.seed, self.position = 0, 0
        super().__init__(samples(), 3)

    def __iter__(self):
        order = torch.randperm(18, generator=torch.Generator().manual_seed(self.seed)).split(3)
        if self.position == len(order):  # nobody asks for more than there is
            self.seed, self.position = self.seed + 1, 0
            order = torch.randperm(18, generator=torch.Generator().manual_seed(self.seed)).split(3)
        for batch in order[self.position :]:
            self.position += 1
            yield [samples().tensors[0][batch]]

    def state_dict(self):
        return {"seed": self.seed, "position": self.position}

    def load_state_dict(self, state):
        self.seed, self.position = state["seed"], state["position"]


class Positioned(Data):
    def train_dataloader(self):
        return PositionLoader()


class Collect:
    """A reporter that keeps what it is told, and what the folder holds when it is told, as if killed then.

    What it is told before the first batch is what was told before the checkpoint.
    """

    def __init__(self, folder=None, stop=None):
        self.again, self.told, self.folder, self.stop, self.has_begun = {}, {}, folder, stop, False

    def report(self, values, step):
        assert step > max({**self.again, **self.told}, default=-1)
        if not self.has_begun:
            self.again[step] = values
            return None
        self.told[step] = values
        if self.folder is not None:
            shutil.copytree(self.folder, self.folder.parent / f"killed_at_{step}")
        return self.stop if self.stop and step == 1 else None

    def notice(self, text): ...


class Final(L.Callback):
    """Keeps what training has come to, and tells a reporter that it has begun."""

    def __init__(self, reporter):
        self.reporter = reporter

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.reporter.has_begun = True

    def on_train_end(self, trainer, pl_module):
        self.weights = {name: value.clone() for name, value in pl_module.state_dict().items()}
        self.optimizer = trainer.optimizers[0].state_dict()["param_groups"][0]["lr"]
        self.counts = trainer.global_step, trainer.current_epoch
        self.loops = trainer.fit_loop.epoch_loop.state_dict()


def hasty():
    """Return a clock by which so much time passes that each validation is saved."""
    ticks = itertools.count(step=31.0)
    return lambda: next(ticks)


def run(
    folder,
    reporter,
    checkpoint=None,
    model=None,
    data=None,
    objective=LOSS,
    callbacks=(),
    data_class=Data,
    clock=None,
    **given,
):
    """Train a trial in a folder of its own; return its outcome and what it has come to."""
    folder.mkdir(exist_ok=True)
    trainer = {"max_epochs": 6, "accelerator": "cpu", "log_every_n_steps": 1, **given}
    config = {"seed_everything": 5, "model": model or {}, "data": data or {}, "trainer": trainer}
    final = Final(reporter)
    spec = TrialSpec(0, config, folder, objective, (*callbacks, final), checkpoint=checkpoint)
    blueprint = Blueprint(Schema(Learner, data_class, L.Trainer), config)
    return train(spec, blueprint, reporter, clock=clock or hasty()), final


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)
