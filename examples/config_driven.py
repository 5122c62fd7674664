"""Everything in YAML, as LightningCLI writes it: what is trained in one file, what is searched in another."""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import yaml
from digits import Classifier
from torch import nn
from torch.optim import Optimizer

from lightningtune import OptunaDrivenOptimizer

HERE = Path(__file__).parent


class Body(nn.Sequential):
    def __init__(self, width: int, activation: nn.Module):
        super().__init__(nn.Linear(64, width), activation)


class Net(Classifier):
    """Is given its parts ready-made, and its optimizer as a function of the parameters."""

    def __init__(self, body: nn.Module, head: nn.Module, optimizer: Callable[[Iterable], Optimizer]):
        super().__init__()
        self.net = nn.Sequential(body, head)
        self.optimizer = optimizer

    def configure_optimizers(self):
        return self.optimizer(self.parameters())


def main(n_trials, experiment_dir):
    optimizer = OptunaDrivenOptimizer(
        base_config=HERE / "config_driven.yaml",
        search_space=HERE / "config_driven_space.yaml",
        study_name="config_driven",
        metric="val_acc",
        direction="maximize",
        n_trials=n_trials,
        experiment_dir=experiment_dir,
    )
    optimizer.optimize()
    print("\nThe best config runs as it is, here or with LightningCLI:\n")
    print(yaml.safe_dump(optimizer.get_best_config(), sort_keys=False))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--n_trials", type=int, default=20, help="trials in all; a study goes on up to this number")
    arguments.add_argument("--experiment_dir", default="lightningtune_runs", help="where the study's folder lies")
    main(**vars(arguments.parse_args()))
