"""Tune a small network on scikit-learn's digits: 30 trials, under a minute, nothing to download.

Run it with ``python examples/quickstart.py``.
"""

import argparse
import os
import sys

import lightning as L
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightningtune import OptunaDrivenOptimizer, tunable


@tunable(
    search_space={
        "lr": ("loguniform", 1e-4, 1e-1),
        "hidden": ("int_log", 16, 256),
        "dropout": ("uniform", 0.0, 0.6),
        "optimizer": ("categorical", ["sgd", "adam"]),
    }
)
class Net(L.LightningModule):
    """A two-layer perceptron; only the decorator above is new."""

    def __init__(self, lr: float = 1e-3, hidden: int = 64, dropout: float = 0.0, optimizer: str = "adam"):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 10))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_acc", (self.net(x).argmax(dim=1) == y).float().mean())

    def configure_optimizers(self):
        cls = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[self.hparams.optimizer]
        return cls(self.parameters(), lr=self.hparams.lr)


class Digits(L.LightningDataModule):
    def __init__(self, batch_size: int = 64):
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage=None):
        x, y = load_digits(return_X_y=True)
        x = torch.tensor(x / 16, dtype=torch.float32)
        y = torch.tensor(y)
        x_train, x_val, y_train, y_val = train_test_split(x, y, test_size=0.3, random_state=0)
        self.train, self.val = TensorDataset(x_train, y_train), TensorDataset(x_val, y_val)

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=256)


def main(n_trials, experiment_dir):
    OptunaDrivenOptimizer(
        base_config={"trainer": {"max_epochs": 10, "accelerator": "cpu"}},
        model_class=Net,
        datamodule_class=Digits,
        metric="val_acc",
        direction="maximize",
        n_trials=n_trials,
        study_name="quickstart",
        experiment_dir=experiment_dir,
        seed=1,
    ).optimize()
    python = min(sys.executable, os.path.relpath(sys.executable), key=len)
    again = f"{python} {sys.argv[0]} --experiment_dir {experiment_dir} --n_trials {n_trials + 30}"
    print(f"\nNext, go on from here:  {again}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--n_trials", type=int, default=30, help="trials in all; a study goes on up to this number")
    arguments.add_argument("--experiment_dir", default="lightningtune_runs", help="where the study's folder lies")
    main(**vars(arguments.parse_args()))
