"""What LightningTune costs, as ratios from one run: ``python benchmarks/overhead.py``, or with ``--quick`` to try it.

Each ratio is of medians over repetitions that take turns, so that a slow moment of the machine meets both sides. The
training is the same everywhere: an MLP on scikit-learn's digits, 3 epochs of 23 batches, one thread. While the clock
runs, what is printed goes to a terminal of its own that nobody looks at, since progress bars are only drawn in one.

The callback is measured through the Trainer's profiler: the time inside all of its hooks from the start of a fit to the
end, those of each batch included, for each validation. Of that, the hook that reports is shown apart.

A trial is a whole study's time, with the first and the last line it prints, divided by its trials. No trial is pruned,
and the objectives written by hand do not ask: they have no pruning callback, and keep their study in memory.
"""

import argparse
import contextlib
import importlib.metadata
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import lightning as L
import optuna
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.profilers import Profiler
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna_integration import PyTorchLightningPruningCallback
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightningtune import OptunaDrivenOptimizer, TuneCallback

EPOCHS = 3
SPACE = {"lr": ("loguniform", 1e-4, 1e-2), "dropout": ("uniform", 0.0, 0.5)}
OFF = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


class Net(L.LightningModule):
    def __init__(self, lr: float = 1e-3, dropout: float = 0.0):
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, 10))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_acc", (self.net(x).argmax(dim=1) == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


x_train, x_val, y_train, y_val = (
    torch.tensor(part) for part in train_test_split(*load_digits(return_X_y=True), test_size=0.2, random_state=0)
)
TRAIN = TensorDataset(x_train.float() / 16, y_train)
VAL = TensorDataset(x_val.float() / 16, y_val)


def loaders():
    return DataLoader(TRAIN, batch_size=64, shuffle=True, drop_last=False), DataLoader(VAL, batch_size=512)


class HookTimes(Profiler):
    """Adds up the time inside the hooks of callbacks, by the hook's name."""

    def __init__(self):
        super().__init__()
        self.seconds = Counter()
        self.begun = {}

    def start(self, action_name):
        self.begun[action_name] = time.perf_counter()

    def stop(self, action_name):
        seconds = time.perf_counter() - self.begun[action_name]
        if action_name.startswith("[Callback]"):
            self.seconds[action_name.rpartition(".")[2]] += seconds


def callback_seconds(make_callback, study):
    """Train one trial, the same each time; return its callback's seconds for each validation, and the report's."""
    trial = study.ask()
    times = HookTimes()
    L.seed_everything(0, verbose=False)
    settings = {**OFF, "enable_checkpointing": False, "max_epochs": EPOCHS, "accelerator": "cpu"}
    trainer = L.Trainer(callbacks=[make_callback(trial)], profiler=times, **settings)
    trainer.fit(Net(), *loaders())
    study.tell(trial, trainer.callback_metrics["val_acc"].item())
    return times.seconds.total() / EPOCHS, times.seconds["on_validation_end"] / EPOCHS


def by_hand(directory, trial, **settings):
    model = Net(lr=trial.suggest_float("lr", 1e-4, 1e-2, log=True), dropout=trial.suggest_float("dropout", 0.0, 0.5))
    trainer = L.Trainer(max_epochs=EPOCHS, accelerator="cpu", default_root_dir=directory, **settings)
    trainer.fit(model, *loaders())
    return trainer.callback_metrics["val_acc"].item()


def with_defaults(directory, trials):
    """Return the seconds of a trial as people write it: Lightning's logger, checkpoints, progress bar and summary."""
    return seconds_of_study(lambda trial: by_hand(directory, trial), trials)


def with_checkpoints_only(directory, trials):
    """Return the seconds of a trial with everything off, but the best and the last checkpoint written."""

    def objective(trial):
        folder = Path(directory, str(trial.number))
        keep = ModelCheckpoint(folder, monitor="val_acc", mode="max", save_top_k=1, save_last=True)
        return by_hand(directory, trial, callbacks=[keep], **OFF)

    return seconds_of_study(objective, trials)


def seconds_of_study(objective, trials):
    began = time.perf_counter()
    optuna.create_study(direction="maximize").optimize(objective, n_trials=trials)
    return ((time.perf_counter() - began) / trials,)


def with_facade(directory, trials):
    """Return the seconds of a trial of a whole study, all of its folder and its journal included."""
    optimizer = OptunaDrivenOptimizer(
        base_config={"trainer": {"max_epochs": EPOCHS, "accelerator": "cpu"}},
        search_space=SPACE,
        model_class=Net,
        datamodule_class=loaders,
        pruner=PRUNER,
        metric="val_acc",
        direction="maximize",
        n_trials=trials,
        experiment_dir=directory,
    )
    began = time.perf_counter()
    optimizer.optimize()
    return ((time.perf_counter() - began) / trials,)


PRUNER = optuna.pruners.MedianPruner(n_warmup_steps=EPOCHS)
"""Asked at each validation, and never prunes: every trial trains as long as every other."""


def process_seconds(code):
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return (time.perf_counter() - began,)


@contextlib.contextmanager
def unseen_terminal():
    """Print to a pseudo-terminal that a process of its own empties; Lightning's advice goes nowhere."""
    ours, theirs = os.openpty()
    reader = subprocess.Popen(["cat"], stdin=ours, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(ours)
    with (
        os.fdopen(theirs, "w") as terminal,
        contextlib.redirect_stdout(terminal),
        contextlib.redirect_stderr(terminal),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield
    reader.wait()


def medians(repetitions, **measures):
    """Let the measures take turns, once without being counted; return the median of each figure of each."""
    found = {name: [] for name in measures}
    for repetition in range(repetitions + 1):
        for name, measure in measures.items():
            with tempfile.TemporaryDirectory() as directory, unseen_terminal():
                seconds = measure(directory)
            if repetition:
                found[name].append(seconds)
    return {name: [statistics.median(figures) for figures in zip(*rows, strict=True)] for name, rows in found.items()}


def machine():
    """Say where and with what is measured."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "lightning", "optuna")]
    what = (models[0].partition(": ")[2], f"{len(models)} cores", f"Python {platform.python_version()}", *versions)
    return ", ".join(what)


def show(what, figure, target, detail=""):
    figure = round(figure, 3)
    verdict = "ok" if figure <= target else "MISSED"
    print(f"{what:<58} {figure:6.3f}   target at most {target:4.2f}   {verdict:<6}  {detail}", flush=True)


def compare_callbacks(repetitions, kind, storage):
    studies = [optuna.create_study(direction="maximize", storage=storage(name)) for name in ("ours", "theirs")]
    found = medians(
        repetitions,
        ours=lambda _: callback_seconds(lambda trial: TuneCallback(trial, monitor="val_acc"), studies[0]),
        theirs=lambda _: callback_seconds(
            lambda trial: PyTorchLightningPruningCallback(trial, monitor="val_acc"), studies[1]
        ),
    )
    (ours, our_report), (theirs, their_report) = found["ours"], found["theirs"]
    detail = f"{ours * 1e3:.2f} and {theirs * 1e3:.2f} ms; the report alone {our_report / their_report:.2f}"
    show(f"callback beside optuna-integration's, {kind}", ours / theirs, 1.1, detail)


def compare_trials(repetitions, trials):
    found = medians(
        repetitions,
        facade=lambda directory: with_facade(directory, trials),
        defaults=lambda directory: with_defaults(directory, trials),
        checkpoints_only=lambda directory: with_checkpoints_only(directory, trials),
    )
    for what, other, target in (
        ("facade trial beside Lightning's defaults", "defaults", 0.8),
        ("facade trial beside everything off but checkpoints", "checkpoints_only", 1.2),
    ):
        (facade,), (by_hand,) = found["facade"], found[other]
        show(what, facade / by_hand, target, f"{facade * 1e3:.0f} and {by_hand * 1e3:.0f} ms")


def compare_imports(repetitions):
    found = medians(
        repetitions,
        ours=lambda _: process_seconds("import lightningtune"),
        bare=lambda _: process_seconds("pass"),
    )
    show("import lightningtune, seconds over a bare interpreter", found["ours"][0] - found["bare"][0], 0.15)
    torch_too = "import lightningtune, sys; sys.exit('torch' in sys.modules)"
    imported = subprocess.run([sys.executable, "-c", torch_too], check=False).returncode
    show("import lightningtune, torch imported with it", imported, 0)


def main(quick):
    print(machine())
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as directory:

        def journal(name):
            return JournalStorage(JournalFileBackend(f"{directory}/{name}.log"))

        compare_callbacks(2 if quick else 60, "in memory", lambda name: InMemoryStorage())
        compare_callbacks(2 if quick else 60, "journal", journal)
    compare_trials(1 if quick else 7, trials=3 if quick else 30)
    compare_imports(1 if quick else 11)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="few repetitions: shows that it runs, not the figures")
    main(**vars(arguments.parse_args()))
