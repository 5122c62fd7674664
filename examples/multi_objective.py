"""Two objectives at once: accuracy, and how few parameters it takes. What comes back is a Pareto front."""

import argparse

from digits import Classifier, Digits
from torch import nn

from lightningtune import OptunaDrivenOptimizer, tunable


@tunable(search_space={"lr": ("loguniform", 1e-4, 1e-1), "hidden": ("int_log", 4, 256)})
class Net(Classifier):
    def __init__(self, lr: float = 1e-3, hidden: int = 64):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))

    def on_validation_epoch_end(self):
        self.log("n_parameters", float(sum(p.numel() for p in self.parameters())))


def main(n_trials, experiment_dir):
    optimizer = OptunaDrivenOptimizer(
        base_config={"trainer": {"max_epochs": 5, "accelerator": "cpu"}},
        model_class=Net,
        datamodule_class=Digits,
        study_name="multi_objective",
        metric=["val_acc", "n_parameters"],
        direction=["maximize", "minimize"],
        n_trials=n_trials,
        experiment_dir=experiment_dir,
    )
    optimizer.optimize()

    print("\nThe Pareto front, from small to accurate:\n  val_acc  n_parameters  hidden      lr")
    for trial in sorted(optimizer.results().best_trials, key=lambda trial: trial.values[1]):
        accuracy, size = trial.values
        print(f"  {accuracy:7.4f}  {size:12,.0f}  {trial.params['hidden']:6}  {trial.params['lr']:.4f}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--n_trials", type=int, default=20, help="trials in all; a study goes on up to this number")
    arguments.add_argument("--experiment_dir", default="lightningtune_runs", help="where the study's folder lies")
    main(**vars(arguments.parse_args()))
