"""What the examples share: scikit-learn's digits as a datamodule, and a classifier that still lacks its network."""

import lightning as L
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Digits(L.LightningDataModule):
    """1,797 images of 8x8 pixels, flattened; 30 % of them validate."""

    def __init__(self, batch_size: int = 64):
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage=None):
        x, y = load_digits(return_X_y=True)
        x = torch.tensor(x / 16, dtype=torch.float32)
        x_train, x_val, y_train, y_val = train_test_split(x, torch.tensor(y), test_size=0.3, random_state=0)
        self.train, self.val = TensorDataset(x_train, y_train), TensorDataset(x_val, y_val)

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=256)


class Classifier(L.LightningModule):
    """Trains ``self.net``, which a subclass sets, with Adam and its own ``lr``."""

    net: nn.Module

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self.net(x)
        accuracy = (logits.argmax(dim=1) == y).float().mean()
        self.log_dict({"val_loss": nn.functional.cross_entropy(logits, y), "val_acc": accuracy})

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)
