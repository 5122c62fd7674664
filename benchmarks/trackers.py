"""What the loggers of trials cost: ``python benchmarks/trackers.py``, or with ``--quick`` to try it.

What LightningTune adds is measured: the names, the guard around each call, the parameters, the closing with the score
and the state. It is the CPU time inside all calls of a logger, less what the logger itself takes for those that
Lightning makes, for trials of 10 validations and 28 training batches that are logged; divided by the second that a
trial is said to take. What the logger itself takes stands beside it. The first trial, which imports, is left out.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import lightning as L
from overhead import Net, loaders, machine, show

from lightningtune.config.schema import Schema
from lightningtune.contract import Objective, SilentReporter, TrialSpec
from lightningtune.training import trackers
from lightningtune.training.build import Blueprint
from lightningtune.training.run import train

EPOCHS = 10
PARAMS = {"model.lr": 1e-3, "model.dropout": 0.1}


class Logs(Net):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("train_loss", loss)
        return loss


class Spent:
    """Adds up the CPU time inside calls; a call within a call is counted once."""

    def __init__(self):
        self.seconds, self.depth = 0.0, 0

    def timed(self, function):
        def call(*args, **kwargs):
            self.depth += 1
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.depth -= 1
                if not self.depth:
                    self.seconds += time.process_time() - start

        return call


def seconds_of(logger, trials, folder):
    """Return the CPU seconds of a trial that are added to its logger's, and the logger's own."""
    spent, own, taken = Spent(), Spent(), []

    def call(guarded, name, method, *args, **kwargs):
        is_lightnings = name != "finalize" and not own.depth
        return kept[trackers.GuardedLogger, "call"](
            guarded, name, own.timed(method) if is_lightnings else method, *args, **kwargs
        )

    kept = {(owner, name): getattr(owner, name) for owner, name in CALLS}
    for (owner, name), function in kept.items():
        setattr(owner, name, spent.timed(call if name == "call" else function))
    try:
        for number in range(trials + 1):
            spent.seconds = own.seconds = 0.0
            trainer = {"accelerator": "cpu", "max_epochs": EPOCHS, "log_every_n_steps": 8, "logger": logger}
            config = {"seed_everything": 1, "trainer": trainer}
            place = Path(folder, "trials", f"{number:04d}")
            goal = Objective(("val_acc",), ("max",))
            spec = TrialSpec(number, config, place, goal, save_checkpoints=False, study="mine", params=PARAMS)
            train(spec, Blueprint(Schema(Logs, loaders, L.Trainer), config), SilentReporter())
            taken.append((spent.seconds - own.seconds, own.seconds))
    finally:
        for (owner, name), function in kept.items():
            setattr(owner, name, function)
    return tuple(map(statistics.median, zip(*taken[1:], strict=True)))


CALLS = [
    (trackers.GuardedLogger, "call"),
    (trackers.Trackers, "__init__"),
    (trackers.Trackers, "_construct"),
    (trackers.Trackers, "adopt"),
    (trackers.Trackers, "close"),
]


def main(arguments):
    print(machine())
    trials = 2 if arguments.quick else 20
    with tempfile.TemporaryDirectory() as folder:
        for name in ("CSV", "TensorBoard"):
            added, own = seconds_of({"class_path": f"{name}Logger"}, trials, Path(folder, name))
            show(f"added to a 1-second trial with {name}", added, 0.01, f"the logger itself {1000 * own:.1f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only show that it runs")
    main(parser.parse_args())
