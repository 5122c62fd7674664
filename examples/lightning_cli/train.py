"""A LightningCLI as many projects have one: `python train.py fit --config config.yaml` trains."""

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Digits(L.LightningDataModule):
    """Images of 8x8 pixels, of which the middle is cut out; 30 % of them validate."""

    def __init__(self, size: int = 8, batch_size: int = 64):
        super().__init__()
        self.size, self.batch_size = size, batch_size

    def setup(self, stage: str) -> None:
        x, y = load_digits(return_X_y=True)
        edge = (8 - self.size) // 2
        images = torch.tensor(x / 16, dtype=torch.float32).reshape(-1, 8, 8)
        x = images[:, edge : edge + self.size, edge : edge + self.size].flatten(1)
        x_train, x_val, y_train, y_val = train_test_split(x, torch.tensor(y), test_size=0.3, random_state=0)
        self.train, self.val = TensorDataset(x_train, y_train), TensorDataset(x_val, y_val)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, 256)


class Net(L.LightningModule):
    """Has no optimizer of its own: that, and a scheduler, are named in the config."""

    def __init__(self, size: int, hidden: int = 64, dropout: float = 0.0):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(size**2, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 10))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self.net(x)
        accuracy = (logits.argmax(dim=1) == y).float().mean()
        self.log_dict({"val_loss": nn.functional.cross_entropy(logits, y), "val_acc": accuracy})


class DigitsCLI(LightningCLI):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data.size", "model.size")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.set_defaults({"early_stopping.monitor": "val_loss", "early_stopping.patience": 5})


def main(cli: type[LightningCLI] = DigitsCLI) -> None:
    cli(Net, Digits, seed_everything_default=1, trainer_defaults={"accelerator": "cpu", "max_epochs": 10})


if __name__ == "__main__":
    main()
