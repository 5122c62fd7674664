"""How soon the command line answers: ``python benchmarks/command_line.py``, or with ``--quick`` to try it.

The command is run as a user runs it, as a process of its own, start and end included; each figure is the median. A
study of a thousand trials is written down, but not trained: ten validations each, three parameters, and all that the
library keeps on a trial.
"""

import argparse
import contextlib
import os
import random
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import optuna
from overhead import machine, show

from lightningtune.contract import StopReason, TrialFacts, TrialOutcome
from lightningtune.study.identity import WORKER, Worker
from lightningtune.study.opening import open_study
from lightningtune.study.provenance import Provenance, versions
from lightningtune.study.reporter import record_config, record_outcome
from lightningtune.study.storage import open_storage

COMMAND = str(Path(sysconfig.get_path("scripts"), "lightningtune"))
VALIDATIONS = 10
TORCH = "import sys; from lightningtune.cli.main import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"


def write_study(folder, trials):
    """Write a study as a host does, without training it."""
    journal = Path(folder, "lightningtune_runs", "digits", "journal.log")
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = open_study("digits", open_storage(None, journal), ["maximize"], ["val_acc"], True, sampler, None, seed=0)
    provenance = Provenance(versions(), "0" * 40, False, {"model_class": "net.Net", "datamodule_class": "net.Data"})
    facts = TrialFacts("cpu (a model of one)", 2, 1, 1000, 1000, 2**30)
    for _ in range(trials):
        trial = study.ask()
        trial.set_user_attr(WORKER, vars(Worker.this()))
        trial.suggest_float("model.lr", 1e-5, 1e-1, log=True)
        trial.suggest_int("model.hidden", 16, 256)
        trial.suggest_categorical("model.act", ["relu", "gelu"])
        record_config(trial, "0" * 32, 1, provenance)
        values = [random.random() for _ in range(VALIDATIONS)]
        for step, value in enumerate(values):
            trial.report(value, step)
        record_outcome(trial, TrialOutcome(StopReason.COMPLETED, "", (max(values),), 10, 60.0, facts=facts))
        study.tell(trial, max(values))


def seconds_of(folder, *arguments):
    """Return how long a command takes, and how much of that the processor works for it."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([COMMAND, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def imports_torch(folder, *arguments):
    command = [sys.executable, "-c", TORCH, *arguments]
    return subprocess.run(command, cwd=folder, check=False, stdout=subprocess.DEVNULL).returncode


@contextlib.contextmanager
def unsynced():
    """Let the journal be written without waiting for the disk: here it only has to be there."""
    fsync, os.fsync = os.fsync, lambda descriptor: None
    try:
        yield
    finally:
        os.fsync = fsync


def main(quick):
    print(machine())
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trials, repetitions = (30, 1) if quick else (1000, 11)
    with tempfile.TemporaryDirectory() as folder:
        with unsynced():
            write_study(folder, trials)
        measured = {
            "lightningtune --help, seconds": (("--help",), 0.3),
            f"status of {trials} trials, seconds": (("status", "digits"), 1.0),
        }
        found = {what: [] for what in measured}
        for repetition in range(repetitions + 1):  # in turns; the first is not counted
            for what, (arguments, _) in measured.items():
                seconds = seconds_of(folder, *arguments)
                if repetition:
                    found[what].append(seconds)
        for what, (_, target) in measured.items():
            whole, worked = zip(*found[what], strict=True)
            detail = f"at best {min(whole):.3f}; the processor works {statistics.median(worked):.3f}"
            show(what, statistics.median(whole), target, detail)
        show("torch imported for --help", imports_torch(folder, "--help"), 0)
        show("torch imported for status", imports_torch(folder, "status", "digits"), 0)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="few repetitions: shows that it runs, not the figures")
    main(**vars(arguments.parse_args()))
