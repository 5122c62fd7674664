"""A space with conditions: as many widths as there are layers, and for each optimizer the parameters that it has.

The function asks an Optuna trial and returns what the config receives; the names it suggests are its own.
"""

import argparse

import torch
from digits import Classifier, Digits
from torch import nn

from lightningtune import AdvancedSearchSpace, OptunaDrivenOptimizer


class Net(Classifier):
    def __init__(self, widths: list[int], optimizer: str, optimizer_args: dict[str, float]):
        super().__init__()
        self.save_hyperparameters()
        layers = [layer for width in widths for layer in (nn.LazyLinear(width), nn.ReLU())]
        self.net = nn.Sequential(*layers, nn.LazyLinear(10))
        self.net(torch.zeros(1, 64))

    def configure_optimizers(self):
        return getattr(torch.optim, self.hparams.optimizer)(self.parameters(), **self.hparams.optimizer_args)


def space(trial):
    n_layers = trial.suggest_int("n_layers", 1, 3)
    optimizer = trial.suggest_categorical("optimizer", ["SGD", "AdamW"])
    arguments = {"lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True)}
    if optimizer == "SGD":
        arguments["momentum"] = trial.suggest_float("momentum", 0.0, 0.99)
    else:
        arguments["weight_decay"] = trial.suggest_float("weight_decay", 1e-4, 1.0, log=True)
    return {
        "model.widths": [trial.suggest_int(f"width_{i}", 16, 128, log=True) for i in range(n_layers)],
        "model.optimizer": optimizer,
        "model.optimizer_args": arguments,
    }


def main(n_trials, experiment_dir):
    optimizer = OptunaDrivenOptimizer(
        base_config={"trainer": {"max_epochs": 5, "accelerator": "cpu"}},
        search_space=AdvancedSearchSpace(space),
        model_class=Net,
        datamodule_class=Digits,
        study_name="conditional_space",
        metric="val_acc",
        direction="maximize",
        n_trials=n_trials,
        experiment_dir=experiment_dir,
        baseline={"n_layers": 1, "width_0": 64, "optimizer": "AdamW", "lr": 1e-3, "weight_decay": 1e-2},
    )
    optimizer.optimize()
    print(f"\nThe best network:\n{optimizer.best_model().net}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--n_trials", type=int, default=20, help="trials in all; a study goes on up to this number")
    arguments.add_argument("--experiment_dir", default="lightningtune_runs", help="where the study's folder lies")
    main(**vars(arguments.parse_args()))
