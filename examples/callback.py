"""A hand-written Optuna objective: ``TuneCallback`` beside the callbacks that are there already.

It reports each validation, prunes, and knows the score of the fit: the best value, not the last.
"""

import argparse
import logging
from pathlib import Path

import lightning as L
import optuna
from digits import Classifier, Digits
from lightning.pytorch.callbacks import EarlyStopping
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from torch import nn

from lightningtune import TuneCallback


class Net(Classifier):
    def __init__(self, lr: float, hidden: int):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def objective(trial):
    lr = trial.suggest_float("lr", 1e-4, 1.0, log=True)
    hidden = trial.suggest_int("hidden", 16, 256, log=True)
    tune = TuneCallback(trial, monitor="val_acc")
    trainer = L.Trainer(
        max_epochs=20,
        accelerator="cpu",
        callbacks=[tune, EarlyStopping(monitor="val_loss", patience=3)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Net(lr, hidden), datamodule=Digits())
    return tune.score


def main(n_trials, experiment_dir):
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    Path(experiment_dir).mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name="callback",
        storage=JournalStorage(JournalFileBackend(f"{experiment_dir}/callback.log")),
        direction="maximize",
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=2),
        load_if_exists=True,
    )
    study.optimize(objective, n_trials=n_trials)

    pruned = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.PRUNED]
    print(f"\n{len(study.trials)} trials, {len(pruned)} of them pruned:")
    for trial in pruned:
        print(f"  trial {trial.number} {trial.user_attrs['lightningtune:detail']}")
    print(f"Best: trial {study.best_trial.number} with val_acc {study.best_value:.4f} and {study.best_params}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--n_trials", type=int, default=20, help="trials to add to the study")
    arguments.add_argument("--experiment_dir", default="lightningtune_runs", help="where the study's journal lies")
    main(**vars(arguments.parse_args()))
