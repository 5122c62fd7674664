"""Models and data with faults that show before the night: each acts as its arguments say."""

import ctypes
import os
import threading

import lightning as L
import torch
from nets import Line, points
from torch.utils.data import DataLoader, IterableDataset


class Faulty(Line):
    """Fails in the way that ``fault`` names, or talks to its logger; ``unused`` and ``late`` are not used."""

    def __init__(
        self, lr: float = 0.1, width: int = 4, fault: str = "none", unused: float = 0.5, late: float = 0.5, decay=0.0
    ):
        super().__init__(lr, width)
        self.fault, self.decay, self.late = fault, decay, late
        self.lock = threading.Lock() if fault == "checkpoint" else None

    def training_step(self, batch, batch_idx):
        match self.fault:
            case "raise":
                raise RuntimeError(f"shapes do not match: {self.net[0].out_features}")
            case "segfault":
                ctypes.string_at(0)
            case "kill":
                os.kill(os.getpid(), 9)
            case "memory":
                raise torch.OutOfMemoryError("tried to allocate 80 GiB")
            case "nan":
                return self.net(batch[0]).mean() * float("nan")
            case "log":
                self.logger.experiment.add_scalar("x", 1)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        if self.fault == "misspelt":
            self.log("val_los", 1.0)
        else:
            super().validation_step(batch, batch_idx)

    def on_train_epoch_end(self):
        if self.fault == "short" and self.trainer.global_step < self.trainer.num_training_batches:
            raise RuntimeError("the epoch is too short")

    def on_save_checkpoint(self, checkpoint):
        if self.lock is not None:
            checkpoint["lock"] = self.lock

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, weight_decay=self.decay)


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield points()[0]


class Streamed(L.LightningDataModule):
    """Data without a length to train on."""

    def train_dataloader(self):
        return DataLoader(Endless(), batch_size=4)

    def val_dataloader(self):
        return DataLoader(points(), batch_size=4)


class Writes(L.Callback):
    """Writes a file beside the study, as some callbacks do, and counts the rows of its logger."""

    def __init__(self, path: str):
        self.path = path

    def on_fit_end(self, trainer, pl_module):
        with open(self.path, "a") as file:  # noqa: PTH123
            print(trainer.default_root_dir, trainer.limit_train_batches, trainer.max_epochs, file=file)
