"""Tune a small convolutional network on Fashion-MNIST, and test the winner once on images it was not chosen by.

Downloads the data (30 MB) into ``--data_dir`` unless it is there. Needs torchvision: ``pip install -e ".[vision]"``.
"""

import argparse
import sys

import lightning as L
import optuna
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split
from torchvision.datasets import FashionMNIST

from lightningtune import OptunaDrivenOptimizer, tunable


@tunable(
    search_space={
        "lr": ("loguniform", 1e-4, 1e-1),
        "channels": ("int", 8, 32, 8),
        "dropout": ("uniform", 0.0, 0.5),
        "weight_decay": ("loguniform", 1e-6, 1e-2),
    }
)
class ConvNet(L.LightningModule):
    def __init__(self, lr: float = 1e-3, channels: int = 8, dropout: float = 0.0, weight_decay: float = 1e-2):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            *(nn.Conv2d(1, channels, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Flatten(), nn.Dropout(dropout), nn.Linear(2 * channels * 7 * 7, 10)),
        )

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_acc", (self.net(x).argmax(dim=1) == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr, weight_decay=self.hparams.weight_decay)


@tunable(search_space={"batch_size": ("categorical", [64, 128, 256])})
class Fashion(L.LightningDataModule):
    def __init__(self, data_dir: str, batch_size: int = 128):
        super().__init__()
        self.data_dir, self.batch_size = data_dir, batch_size

    def setup(self, stage=None):
        images = load(self.data_dir, train=True)
        n_val = len(images) // 6
        seed = torch.Generator().manual_seed(0)
        self.train, self.val = random_split(images, [len(images) - n_val, n_val], generator=seed)

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=1000)


def load(data_dir, train):
    images = FashionMNIST(data_dir, train=train)
    return TensorDataset(images.data[:, None] / 255, images.targets)


def main(n_trials, experiment_dir, data_dir, no_download):
    try:
        FashionMNIST(data_dir, download=not no_download)
    except (RuntimeError, OSError) as error:
        sys.exit(
            f"Fashion-MNIST is not in {data_dir} and was not downloaded: {error}\n"
            "Where there is a network, run this without --no_download. Otherwise put the four files of "
            "https://github.com/zalandoresearch/fashion-mnist (train-images-idx3-ubyte and so on, unpacked) into "
            f"{data_dir}/FashionMNIST/raw."
        )
    optimizer = OptunaDrivenOptimizer(
        base_config={"data": {"data_dir": data_dir}, "trainer": {"max_epochs": 9, "limit_train_batches": 100}},
        model_class=ConvNet,
        datamodule_class=Fashion,
        pruner=optuna.pruners.SuccessiveHalvingPruner(reduction_factor=3),
        study_name="fashion_mnist",
        metric="val_acc",
        direction="maximize",
        n_trials=n_trials,
        experiment_dir=experiment_dir,
    )
    optimizer.optimize()

    x, y = load(data_dir, train=False).tensors
    with torch.no_grad():
        accuracy = (optimizer.best_model().net(x).argmax(dim=1) == y).float().mean()
    print(f"\nThe best model on {len(y):,} test images: {accuracy:.4f} accuracy")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--n_trials", type=int, default=20, help="trials in all; a study goes on up to this number")
    arguments.add_argument("--experiment_dir", default="lightningtune_runs", help="where the study's folder lies")
    arguments.add_argument("--data_dir", default="data", help="where the folder FashionMNIST/raw lies or is made")
    arguments.add_argument("--no_download", action="store_true", help="use only what is in --data_dir")
    main(**vars(arguments.parse_args()))
