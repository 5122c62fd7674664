"""Declare the search space where the parameters are: ``@tunable`` on the model and on the data.

The classes stay what they were. A subclass inherits the space and extends it; `from_trial` constructs from any Optuna
trial, here from the best one.
"""

import argparse

import optuna
from digits import Classifier, Digits
from torch import nn

from lightningtune import OptunaDrivenOptimizer, tunable


@tunable(search_space={"lr": ("loguniform", 1e-4, 1e-1), "hidden": ("int_log", 16, 256)})
class Net(Classifier):
    def __init__(self, lr: float = 1e-3, hidden: int = 64):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


@tunable(search_space={"dropout": ("uniform", 0.0, 0.6), "hidden": ("categorical", [32, 64, 128])})
class DropoutNet(Net):
    """Searches ``lr`` as its parent does, ``hidden`` in its own way, and ``dropout`` besides."""

    def __init__(self, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.net.insert(2, nn.Dropout(dropout))


@tunable(search_space={"batch_size": ("categorical", [32, 64, 128])})
class TunableDigits(Digits):
    """The datamodule's parameters are searched together with the model's."""


def main(n_trials, experiment_dir):
    optimizer = OptunaDrivenOptimizer(
        base_config={"trainer": {"max_epochs": 5, "accelerator": "cpu"}},
        model_class=DropoutNet,
        datamodule_class=TunableDigits,
        study_name="decorator",
        metric="val_acc",
        direction="maximize",
        n_trials=n_trials,
        experiment_dir=experiment_dir,
    )
    study = optimizer.optimize()

    best = optuna.trial.FixedTrial(study.best_params)
    print(f"\nThe best data, built from its trial:   batch_size={TunableDigits.from_trial(best).batch_size}")
    print(f"The best model, with a wider layer:    {DropoutNet.from_trial(best, hidden=512).net}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--n_trials", type=int, default=20, help="trials in all; a study goes on up to this number")
    arguments.add_argument("--experiment_dir", default="lightningtune_runs", help="where the study's folder lies")
    main(**vars(arguments.parse_args()))
