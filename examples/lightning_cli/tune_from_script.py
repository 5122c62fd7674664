"""The LightningCLI of train.py, tuned from a script; train.py and config.yaml stay as they are."""

import argparse
from pathlib import Path

from train import main as train

from lightningtune import OptunaDrivenOptimizer

HERE = Path(__file__).parent


def main(n_trials, experiment_dir):
    optimizer = OptunaDrivenOptimizer(
        base_config=HERE / "config.yaml",
        search_space=HERE / "space.yaml",
        cli=train,  # constructs the CLI; the path of train.py would do too
        study_name="lightning_cli",
        metric="val_acc",
        direction="maximize",
        n_trials=n_trials,
        experiment_dir=experiment_dir,
    )
    optimizer.optimize()
    best = optimizer.directory / "best" / "config.yaml"
    print(f"\nThe best config runs as it is:\n  python {HERE / 'train.py'} fit --config {best}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--n_trials", type=int, default=20, help="trials in all; a study goes on up to this number")
    arguments.add_argument("--experiment_dir", default="lightningtune_runs", help="where the study's folder lies")
    main(**vars(arguments.parse_args()))
