"""LightningCLIs as users have them, for tests of whole studies on tiny models."""

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningCLI, SaveConfigCallback
from nets import Line, Points


class Bare(L.LightningModule):
    """Has no optimizer of its own."""

    def __init__(self, width: int = 4, batch_size: int = 0, depth: int = 1):
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Linear(width, 1))

    def training_step(self, batch, batch_idx):
        return self.net(batch[0]).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.net(batch[0]).pow(2).mean())


class OnlyHere(Line):
    """No other class has its name, so that a config may leave its module out."""


class LinkedCLI(LightningCLI):
    """Links arguments, adds some, and has hooks that look at the config as the subcommand has it."""

    def __init__(self, *args, **kwargs):
        self.seen = []
        super().__init__(*args, **kwargs)

    def add_arguments_to_parser(self, parser):
        parser.add_argument("--depth", type=int, default=2)
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.set_defaults({"early_stopping.monitor": "val_loss"})
        parser.link_arguments("data.batch_size", "model.batch_size")
        parser.link_arguments("depth", "model.depth")

    def before_instantiate_classes(self):
        self.seen.append("before")
        if self.config.fit.trainer.max_epochs is None:
            self.config.fit.trainer.max_epochs = 3

    def after_instantiate_classes(self):
        self.seen.append("after")
        self.model.seen = self.seen

    def before_fit(self):
        self.seen.append("before_fit")

    def after_fit(self):
        raise AssertionError("a trial is the fit, and nothing after it")


def linked():
    LinkedCLI(Bare, Points, trainer_defaults={"accelerator": "cpu", "max_epochs": 2})


def plain():
    LightningCLI(Line, Points, trainer_defaults={"accelerator": "cpu", "max_epochs": 2})


def any_subclass():
    LightningCLI(Line, Points, subclass_mode_model=True, subclass_mode_data=True)


def not_run():
    cli = LightningCLI(Line, Points, run=False, seed_everything_default=7)
    cli.trainer.fit(cli.model, cli.datamodule)


class Notes(SaveConfigCallback):
    """Saves its config elsewhere too."""

    def save_config(self, trainer, pl_module, stage):
        pl_module.noted = self.parser.dump(self.config, skip_none=False)


def noting():
    LightningCLI(Line, Points, save_config_callback=Notes, trainer_defaults={"accelerator": "cpu", "max_epochs": 1})
