"""A study to be killed, run as a command: each training is decided by its place, and writes down what it does.

Usage: ``python chaos_study.py FOLDER TRIALS EPOCHS PACE [URL]``, with the seconds that an epoch is to take, and where
the study is stored, unless that is a journal in its folder. The points are
those of the training's place in the study, whatever has been killed before. Before each epoch the model appends a line
to ``FOLDER/epochs``: process, trial, epoch, time, and the seconds since validating where it saved, else 0.
"""

import os
import sys
import time
from pathlib import Path

import lightning as L
import optuna
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightningtune import OptunaDrivenOptimizer
from lightningtune.study.tally import TrialTally

FOLDER, TRIALS, EPOCHS, PACE = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
BATCHES = 4


class ByPlace(optuna.samplers.RandomSampler):
    """Draws the same point for the same training, however often the study has begun again."""

    def sample_independent(self, study, trial, name, distribution):
        place = TrialTally(study).get_place(trial.number)
        random = optuna.samplers.RandomSampler(seed=1000 * place + sum(name.encode()))
        return random.sample_independent(study, trial, name, distribution)


class Net(L.LightningModule):
    def __init__(self, lr: float = 0.1, dropout: float = 0.1):
        super().__init__()
        self.lr, self.validated, self.saving = lr, 0.0, 0.0
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 1))

    def on_validation_epoch_end(self):
        self.validated = time.monotonic()

    def on_save_checkpoint(self, checkpoint):
        self.saving = self.validated  # a best that is held may be written first, without asking the model

    def on_train_epoch_start(self):
        now, begun, self.saving = time.monotonic(), self.saving, 0.0
        trial = int(Path(self.trainer.default_root_dir).name)
        line = f"{os.getpid()} {trial} {self.current_epoch} {now:.6f} {now - begun if begun else 0.0:.6f}\n"
        descriptor = os.open(FOLDER / "epochs", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line.encode())
        os.close(descriptor)

    def loss(self, batch):
        return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        time.sleep(PACE / BATCHES)
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), self.lr)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.95)]


class Data(L.LightningDataModule):
    """Small batches are loaded by a process of their own."""

    def __init__(self, batch_size: int = 16):
        super().__init__()
        self.batch_size = batch_size
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(BATCHES * 24, 8, generator=generator)
        self.points = TensorDataset(x, x.prod(dim=1, keepdim=True).tanh())

    def train_dataloader(self):
        workers = int(self.batch_size <= 12)
        return DataLoader(self.points, self.batch_size, shuffle=True, drop_last=True, num_workers=workers)

    def val_dataloader(self):
        return DataLoader(self.points, 96)


if __name__ == "__main__":
    OptunaDrivenOptimizer(
        base_config={"trainer": {"max_epochs": EPOCHS, "accelerator": "cpu", "limit_train_batches": BATCHES}},
        search_space={
            "lr": ("loguniform", 1e-4, 1e-1),
            "dropout": ("uniform", 0.0, 0.5),
            "batch_size": ("categorical", [8, 12, 16, 20, 24]),
        },
        model_class=Net,
        datamodule_class=Data,
        sampler=ByPlace(),
        pruner=optuna.pruners.NopPruner(),
        study_name="chaos",
        n_trials=TRIALS,
        n_jobs=2,
        seed=1,
        experiment_dir=FOLDER,
        verbose=False,
        storage=sys.argv[5] if len(sys.argv) > 5 else None,
    ).optimize()
