"""Trials an hour on one GPU, for several trials on it at a time: ``python benchmarks/gpu_packing.py``.

The model is a small CNN on random images of CIFAR's size, which keeps a large GPU idle most of the time. Every figure
is of a whole study, the start of its server included; how much faster than one trial at a time it is, is a ratio from
one run. Without a GPU it says so, and ends.
"""

import argparse
import tempfile
import time

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightningtune import OptunaDrivenOptimizer

PACKED = (1, 2, 4, 8, 16)


class Cnn(L.LightningModule):
    def __init__(self, lr: float = 1e-3, width: int = 32):
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * width, 10),
        )

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def images(batch_size: int = 64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4096, 3, 32, 32, generator=generator)
    data = TensorDataset(x, torch.randint(0, 10, (4096,), generator=generator))
    return DataLoader(data, batch_size, shuffle=True), DataLoader(data, 512)


def trials_per_hour(packed, trials, epochs):
    with tempfile.TemporaryDirectory() as directory:
        began = time.perf_counter()
        study = OptunaDrivenOptimizer(
            base_config={"trainer": {"max_epochs": epochs, "accelerator": "gpu"}},
            search_space={"lr": ("loguniform", 1e-4, 1e-2), "width": ("categorical", [16, 32, 64])},
            model_class=Cnn,
            datamodule_class=images,
            n_trials=trials,
            n_jobs=packed,
            isolate=True,
            trials_per_device=packed,
            experiment_dir=directory,
            verbose=False,
        ).optimize()
        seconds = time.perf_counter() - began
    assert {trial.state.name for trial in study.trials} <= {"COMPLETE", "PRUNED"}
    return 3600 * trials / seconds


def main(trials, epochs):
    if not torch.cuda.is_available():
        print("There is no GPU here: nothing was measured.")
        return
    print(f"{torch.cuda.get_device_name()}, {trials} trials of {epochs} epochs")
    alone = None
    for packed in PACKED:
        rate = trials_per_hour(packed, trials, epochs)
        alone = alone or rate
        print(f"trials_per_device={packed:<3} {rate:8.0f} trials an hour   {rate / alone:5.2f} times one", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=5)
    main(**vars(parser.parse_args()))
