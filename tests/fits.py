"""Scripted models, a pruner that prunes at a known step, and callbacks that write down what they see."""

import lightning as L
import optuna
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

from lightningtune import TrialError, TuneCallback

BATCHES = 4


class Scripted(L.LightningModule):
    """Logs the given values, one for each validation; the last one again and again."""

    def __init__(self, values=(5.0, 4.0, 3.0, 2.0, 1.0), loss=None):
        super().__init__()
        self.values, self.loss = list(values), loss
        self.layer = torch.nn.Linear(2, 1)
        self.validations = 0

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0]).pow(2).mean()
        return loss * self.loss(self.global_step) if self.loss else loss

    def validation_step(self, batch, batch_idx): ...

    def on_validation_epoch_end(self):
        if self.trainer.sanity_checking:
            self.log("val_loss", -100.0)
            return
        self.log("val_loss", self.values[min(self.validations, len(self.values) - 1)])
        self.validations += 1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Manual(Scripted):
    def __init__(self, **given):
        super().__init__(**given)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


class TrainOnly(L.LightningModule):
    """Logs its metric in training: in the step, or in the module's own hook after the epoch."""

    def __init__(self, where="step"):
        super().__init__()
        self.where = where
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0]).pow(2).mean()
        if self.where == "step":
            self.log("train_loss", float(self.current_epoch), on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_end(self):
        if self.where == "hook":
            self.log("train_loss", float(self.current_epoch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class TrainMetricWithValidation(TrainOnly):
    def validation_step(self, batch, batch_idx):
        self.log("val_acc", 0.5)


class PruneAt(optuna.pruners.BasePruner):
    def __init__(self, step):
        self.step = step

    def prune(self, study, trial):
        return trial.last_step >= self.step


class Watch(L.Callback):
    """Writes down which end hooks it sees."""

    def __init__(self):
        self.seen = []

    def on_train_end(self, trainer, pl_module):
        self.seen.append("on_train_end")

    def on_fit_end(self, trainer, pl_module):
        self.seen.append("on_fit_end")

    def teardown(self, trainer, pl_module, stage):
        self.seen.append("teardown")

    def on_exception(self, trainer, pl_module, exception):
        self.seen.append(f"on_exception {type(exception).__name__}")


class StatusLogger(CSVLogger):
    statuses = ()

    def finalize(self, status):
        self.statuses = (*self.statuses, status)
        super().finalize(status)


def data(**given):
    inputs = torch.linspace(-1, 1, 4 * BATCHES).reshape(-1, 2)
    return DataLoader(TensorDataset(inputs), batch_size=2, **given)


def trainer(*callbacks, **given):
    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        "max_epochs": 5,
    }
    return L.Trainer(callbacks=list(callbacks), **{**quiet, **given})


def run(model=None, pruner=None, callbacks=(), direction="minimize", tune=None, loaders=None, after=None, **given):
    """Run one trial; return it, and the callback."""
    study = optuna.create_study(direction=direction, pruner=pruner or optuna.pruners.NopPruner())
    kept = []

    def objective(trial):
        kept.append(TuneCallback(trial, **(tune or {})))
        fit = trainer(*callbacks, kept[0], **given)
        fit.fit(model if model is not None else Scripted(), *(loaders or (data(), data())))
        if after is not None:
            after(fit)
        return kept[0].score

    study.optimize(objective, n_trials=1, catch=(TrialError,))
    return study.trials[0], kept[0]
