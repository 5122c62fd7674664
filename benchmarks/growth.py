"""What a large study costs its host: ``python benchmarks/growth.py``, or with ``--quick`` to try it.

A study in its journal gets trials that are made up, then runs some more: a random sampler, no pruner, and a training of
one batch. The time from the end of one fit to the start of the next is the host's, with the building of the model; its
median is shown for each size. The report is of the largest study.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import lightning as L
import optuna
import torch
from overhead import OFF, machine, show

from lightningtune import OptunaDrivenOptimizer, study_report

SPACE = {"lr": ("loguniform", 1e-4, 1e-1)}
FITS = []
"""When each fit began and ended."""


class Net(L.LightningModule):
    def __init__(self, lr: float = 1e-2):
        super().__init__()
        self.lr, self.layer = lr, torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.layer(batch).square().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)

    def on_fit_start(self):
        FITS.append(time.perf_counter())

    def on_fit_end(self):
        FITS.append(time.perf_counter())


def loaders():
    data = torch.utils.data.DataLoader(torch.ones(1, 1))
    return data, data


def tune(folder, n_trials):
    return OptunaDrivenOptimizer(
        {"trainer": {"max_epochs": 1, "accelerator": "cpu", **OFF}},
        SPACE,
        Net,
        loaders,
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=optuna.pruners.NopPruner(),
        n_trials=n_trials,
        experiment_dir=folder,
        save_checkpoints=False,
        verbose=False,
        seed=0,
    )


def host_seconds(folder, before, trials):
    """Return the median time of the host between two trials of a study that has so many before, and the study."""
    study = tune(folder, 1).optimize()
    distributions = study.trials[0].distributions
    made_up = (
        optuna.create_trial(value=1 + number, params={"lr": 1e-2}, distributions=distributions)
        for number in range(before - 1)
    )
    study.add_trials(made_up)
    FITS.clear()
    study = tune(folder, max(before, 1) + trials).optimize()
    return statistics.median(after - end for end, after in zip(FITS[1:-1:2], FITS[2::2], strict=True)), study


def main(arguments):
    print(machine())
    warnings.simplefilter("ignore")
    sizes, trials = ((0, 50, 100), 3) if arguments.quick else ((0, 1000, 10_000), 20)
    with tempfile.TemporaryDirectory() as folder:
        smallest = None
        for before in sizes:
            seconds, study = host_seconds(Path(folder, str(before)), before, trials)
            smallest = smallest or seconds
            print(f"{1e3 * seconds:.0f} ms of the host for a trial after {before:,} trials")
        show("host time of a trial in the largest study, to that in an empty one", seconds / smallest, 3.0)
        path, start = Path(folder, "report.html"), time.perf_counter()
        study_report(study, path)
        show(f"seconds of a report of {sizes[-1]:,} trials", time.perf_counter() - start, 10.0)
        show("its megabytes", path.stat().st_size / 1e6, 5.0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    main(parser.parse_args())
