"""What it costs that nothing is lost, and how soon a study goes on: ``python benchmarks/durability.py``.

The share of a fit's time that goes into checkpoints is measured inside it, for epochs of a tenth of a second that all
improve, and for epochs of some seconds of a model whose checkpoint is larger. What a kill costs is measured from
outside: a study runs as a command, is sent SIGKILL while it trains, and says itself when it trains again. ``--quick``
shows that it runs, not the figures.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from overhead import Net, loaders, machine, show
from torch import nn

from lightningtune import OptunaDrivenOptimizer
from lightningtune.training.checkpoints import KeepCheckpoints

MAY_BE_LOST = 30.0
"""Seconds: the most that is ever unsaved; where holding the best costs little, it is 50 times a write, and an epoch."""


class Wide(Net):
    """Has many parameters, improves with each epoch, and rests so that an epoch takes as long as it is asked to."""

    def __init__(self, lr: float = 1e-3, width: int = 1024, seconds: float = 0.1):
        super().__init__(lr)
        self.wide = nn.Linear(width, width)
        self.seconds = seconds

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) + 1e-6 * self.wide.weight[0].sum()

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", float(self.current_epoch))

    def on_train_epoch_end(self):
        time.sleep(max(0.0, self.seconds - (time.perf_counter() - self.began)))

    def on_train_epoch_start(self):
        self.began = time.perf_counter()
        with Path(self.trainer.default_root_dir, "../../../epochs").open("a") as file:
            file.write(f"{time.time()} {self.current_epoch} {os.getpid()}\n")


def optimizer(directory, width, seconds, epochs, **changed):
    given = {
        "base_config": {
            "trainer": {"max_epochs": epochs, "accelerator": "cpu", "logger": False},
            "model": {"width": width, "seconds": seconds},
        },
        "search_space": {"lr": ("loguniform", 1e-4, 1e-2)},
        "model_class": Wide,
        "datamodule_class": loaders,
        "metric": "val_acc",
        "direction": "maximize",
        "n_trials": 1,
        "experiment_dir": directory,
        "verbose": False,
    }
    return OptunaDrivenOptimizer(**{**given, **changed})


def share_of_checkpoints(width, seconds, epochs):
    """Return which part of a study's time is spent in saving."""
    spent = []

    def timed(method):
        def call(*arguments, **named):
            began = time.perf_counter()
            result = method(*arguments, **named)
            spent.append(time.perf_counter() - began)
            return result

        return call

    before = {name: getattr(KeepCheckpoints, name) for name in ("__call__", "complete")}
    for name, method in before.items():
        setattr(KeepCheckpoints, name, timed(method))
    try:
        with tempfile.TemporaryDirectory() as directory:
            study = optimizer(directory, width, seconds, epochs)
            began = time.perf_counter()
            study.optimize()
            return sum(spent) / (time.perf_counter() - began)
    finally:
        for name, method in before.items():
            setattr(KeepCheckpoints, name, method)


def compare_shares(short, long):
    for width, seconds, count in ((1024, 0.1, short), (3072, 3.0, long)):
        share = share_of_checkpoints(width, seconds, count)
        weights = f"{(width**2) / 1e6:.0f} million parameters, Adam"
        show(f"share of checkpoints, epochs of {seconds:g} s that all improve", share, 0.02, weights)


def run(directory, isolate, epochs):
    """Be the command that is killed: note when the study begins, and run it."""
    study = optimizer(directory, 1024, 0.1, epochs, isolate=isolate)
    Path(directory, "began").write_text(str(time.time()))
    study.optimize()


def count_epochs(directory):
    """Return when each epoch began, which it was, and in which process."""
    path = Path(directory, "epochs")
    lines = path.read_text().splitlines() if path.exists() else []
    return [(float(when), int(epoch), int(process)) for when, epoch, process in map(str.split, lines)]


def go_on_after_kill(isolate, host, epochs):
    """Kill a study's host, or its trial; return the seconds until the trial trained again, and those that were lost.

    Of a host that was killed, the first are counted from the moment that the next one is up.
    """
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, __file__, "--only", str(isolate), "--directory", directory, "--epochs", str(epochs)]
        with subprocess.Popen(command) as process:
            while not (trained := count_epochs(directory)) or trained[-1][1] < 3 * epochs // 4:
                assert process.poll() is None, "the study has ended before it was killed"
                time.sleep(0.01)
            time.sleep(0.05)
            os.kill(process.pid if host else trained[-1][2], signal.SIGKILL)
            killed = time.time()
        if host:
            subprocess.run(command, check=True)
            killed_or_up = float(Path(directory, "began").read_text())
        else:
            killed_or_up = killed
        every = count_epochs(directory)
        before = [epoch for epoch in every if epoch[0] < killed]
        when, epoch, _ = next(epoch for epoch in every if epoch[0] > killed)
        assert every[-1][1] == epochs - 1
        assert epoch > 0
        lost = killed - next(began for began, number, _ in reversed(before) if number == epoch)
        return when - killed_or_up, lost


def compare_kills(repetitions, epochs):
    ways = {"the host, one process": (False, True), "the host, isolated": (True, True), "the trial": (True, False)}
    for what, (isolate, host) in ways.items():
        found = [go_on_after_kill(isolate, host, epochs) for _ in range(repetitions)]
        again, lost = (statistics.median(figures) for figures in zip(*found, strict=True))
        show(f"killed: {what}; seconds until it trains again", again, 1.0)
        show(
            f"killed: {what}; seconds of training lost",
            lost,
            MAY_BE_LOST,
            f"at most {max(lost for _, lost in found):.2f}",
        )


def main(quick):
    print(machine())
    torch.set_num_threads(1)
    compare_shares(*((5, 1) if quick else (200, 20)))
    compare_kills(*((1, 8) if quick else (5, 40)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few repetitions: shows that it runs, not the figures")
    parser.add_argument("--only", help="be the study that is killed, isolated or not")
    parser.add_argument("--directory", help="of --only")
    parser.add_argument("--epochs", type=int, help="of --only")
    arguments = parser.parse_args()
    if arguments.only:
        run(arguments.directory, arguments.only == "True", arguments.epochs)
    else:
        main(arguments.quick)
