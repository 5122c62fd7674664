"""What trials in processes of their own cost, and what several at a time gain: ``python benchmarks/parallel.py``.

Ratios from one run; ``--quick`` shows that it runs, not the figures. The training is that of ``overhead.py``, with one
thread a trial. Ray Tune, where it is installed, is asked to do the same as a whole command, as people write it: its
Optuna search, a function that trains, two at a time; once with an actor for each trial, which is its default, and once
with actors that are used again. What a whole command costs includes its imports and the start of its processes.
"""

import argparse
import importlib.util
import itertools
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import lightning as L
import optuna
import torch
from overhead import EPOCHS, OFF, SPACE, Net, loaders, machine, show

from lightningtune import OptunaDrivenOptimizer
from lightningtune.study.reporter import OptunaReporter
from lightningtune.training.callback import TrialCallback

FORK = multiprocessing.get_context("fork")
TRIALS = 20
WORK = {"trainer": {"max_epochs": 1, "accelerator": "cpu"}, "model": {"rounds": 1}}


class Work(Net):
    """Computes with one thread for a given number of rounds, and learns nothing."""

    def __init__(self, rounds: int = 1, lr: float = 1e-3, dropout: float = 0.0):
        super().__init__(lr, dropout)
        self.rounds = rounds

    def on_train_start(self):
        work(self.rounds)


def work(rounds):
    torch.set_num_threads(1)
    matrix = torch.ones(64, 64) / 64
    for _ in range(rounds * 1000):
        matrix = matrix @ matrix


def optimizer(directory, **changed):
    given = {
        "base_config": {"trainer": {"max_epochs": EPOCHS, "accelerator": "cpu"}},
        "search_space": SPACE,
        "model_class": Net,
        "datamodule_class": loaders,
        "metric": "val_acc",
        "direction": "maximize",
        "n_trials": TRIALS,
        "experiment_dir": directory,
        "verbose": False,
    }
    return OptunaDrivenOptimizer(**{**given, **changed})


def with_ray(directory, trials, reuse_actors):
    """Search as Ray Tune's guides have it."""
    from ray import init, tune
    from ray.tune.search.optuna import OptunaSearch

    def train(config):
        model = Net(**config)
        trainer = L.Trainer(max_epochs=EPOCHS, accelerator="cpu", enable_checkpointing=False, **OFF)
        trainer.fit(model, *loaders())
        tune.report({"val_acc": trainer.callback_metrics["val_acc"].item()})

    init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    tuner = tune.Tuner(
        train,
        param_space={"lr": tune.loguniform(1e-4, 1e-2), "dropout": tune.uniform(0.0, 0.5)},
        tune_config=tune.TuneConfig(
            metric="val_acc",
            mode="max",
            num_samples=trials,
            max_concurrent_trials=2,
            search_alg=OptunaSearch(),
            reuse_actors=reuse_actors,
        ),
        run_config=tune.RunConfig(storage_path=directory, verbose=0),
    )
    results = tuner.fit()
    assert results.num_terminated == trials
    assert not results.num_errors


COMMANDS = {
    "lightningtune": lambda directory, trials: optimizer(directory, n_trials=trials, n_jobs=2).optimize(),
    "ray": lambda directory, trials: with_ray(directory, trials, reuse_actors=False),
    "ray-reused": lambda directory, trials: with_ray(directory, trials, reuse_actors=True),
}


def command_seconds(name, trials):
    """Run one search as a whole command."""
    with tempfile.TemporaryDirectory() as directory:
        began = time.perf_counter()
        command = [sys.executable, __file__, "--only", name, "--trials", str(trials), "--directory", directory]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        return time.perf_counter() - began


def compare_with_ray(trials, repetitions):
    if importlib.util.find_spec("ray") is None:
        print("Ray Tune is not installed: nothing was compared with it.")
        return
    found = {name: [] for name in COMMANDS}
    for _ in range(repetitions):
        for name, seconds in found.items():
            seconds.append(command_seconds(name, trials))
    ours, ray, reused = (statistics.median(found[name]) for name in COMMANDS)
    detail = f"{ours:.1f}, {ray:.1f} and {reused:.1f} s"
    show(f"{trials} tiny trials, 2 at a time, beside Ray Tune", ours / ray, 1 / 8, detail)
    show("the same beside Ray Tune with actors used again", ours / reused, 1.0)


def seconds_between_trials(directory, trials, **how):
    """Return the seconds from the end of each trial to the end of the next, once all is warm."""
    ends = []

    def ended(study, trial):
        ends.append(time.perf_counter())

    optimizer(directory, n_trials=trials, callbacks=[ended], pruner=optuna.pruners.NopPruner(), **how).optimize()
    return [after - before for before, after in itertools.pairwise(ends[trials // 3 :])]


class Reports(Net):
    """Writes down how long each report to the host takes, with the decision that comes back."""

    def on_fit_start(self):
        self.seconds = []
        watcher = next(callback for callback in self.trainer.callbacks if isinstance(callback, TrialCallback))
        watcher.reporter.report = timed(watcher.reporter.report, self.seconds)

    def on_fit_end(self):
        Path(self.trainer.default_root_dir, "seconds").write_text(" ".join(map(str, self.seconds)))


def timed(function, seconds):
    def call(*arguments):
        began = time.perf_counter()
        result = function(*arguments)
        seconds.append(time.perf_counter() - began)
        return result

    return call


def compare_reports(trials, epochs):
    """A report as the trial sees it, and without what Optuna's journal and pruner take of it in the host."""
    trainer = {"max_epochs": epochs, "limit_train_batches": 1, "accelerator": "cpu"}
    with tempfile.TemporaryDirectory() as directory:
        study = optimizer(
            directory, base_config={"trainer": trainer}, model_class=Reports, n_trials=trials, isolate=True
        )
        in_host, original = [], OptunaReporter.report
        OptunaReporter.report = timed(original, in_host)
        try:
            study.optimize()
        finally:
            OptunaReporter.report = original
        written = [path.read_text() for path in study.directory.glob("trials/*/seconds")]
        in_trial = [float(word) for text in written for word in text.split()]
    whole, there = (statistics.median(seconds) * 1e3 for seconds in (in_trial, in_host))
    detail = f"with Optuna's journal and pruner {whole:.2f}, of which these are {there:.2f}"
    show("a report to the host and back, milliseconds", whole - there, 1.0, detail)


def compare_isolated(trials, repetitions):
    found = {False: [], True: []}
    for _ in range(repetitions):
        for isolate, seconds in found.items():
            with tempfile.TemporaryDirectory() as directory:
                seconds += seconds_between_trials(directory, trials, isolate=isolate)
    here, apart = (statistics.median(seconds) for seconds in found.values())
    detail = f"{apart * 1e3:.0f} and {here * 1e3:.0f} ms a trial; a ratio of {apart / here:.2f}"
    show("an isolated trial, seconds over one in this process", apart - here, 0.06, detail)


def seconds_of_bare_work(processes, rounds):
    """Return how long processes take that do nothing but the work, all of it each: what the machine can give."""
    started = [FORK.Process(target=work, args=(rounds,)) for _ in range(processes)]
    began = time.perf_counter()
    for process in started:
        process.start()
    for process in started:
        process.join()
    return time.perf_counter() - began


def compare_jobs(trials, seconds_each):
    """Two at a time beside one at a time, whole studies, the start of the server included."""
    began = time.perf_counter()
    work(1)
    rounds = max(1, round(seconds_each / (time.perf_counter() - began)))
    found = {}
    for jobs in (1, 2):
        with tempfile.TemporaryDirectory() as directory:
            study = optimizer(
                directory,
                base_config={**WORK, "model": {"rounds": rounds}},
                model_class=Work,
                n_trials=trials,
                n_jobs=jobs,
                isolate=True,
            )
            began = time.perf_counter()
            study.optimize()
            found[jobs] = time.perf_counter() - began
    alone, beside = (seconds_of_bare_work(processes, trials * rounds // 2) for processes in (1, 2))
    detail = f"{found[2]:.1f} and {found[1]:.1f} s for {trials} trials; {found[1] / found[2]:.2f} times as fast"
    detail += f", where two bare processes are {2 * alone / beside:.2f} times as fast as one"
    show(f"2 jobs beside 1, trials of {seconds_each:g} s of one thread", found[2] / found[1], 1 / 1.8, detail)


def tree_memory():
    """Return the MiB of this process and all that it has started, shared pages counted once."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    tree = {os.getpid()}
    while more := {child for child, parent in parents.items() if parent in tree} - tree:
        tree |= more
    total = 0
    for number in tree:
        try:
            rollup = Path(f"/proc/{number}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1024


def compare_memory(trials):
    sizes = []
    with tempfile.TemporaryDirectory() as directory:
        optimizer(
            directory, n_trials=trials, isolate=True, callbacks=[lambda study, trial: sizes.append(tree_memory())]
        ).optimize()
    before, after = sizes[trials // 4], sizes[-1]
    show(
        f"memory after {trials} isolated trials beside that after {trials // 4}",
        after / before,
        1.05,
        f"{after:.0f} MiB",
    )


def main(quick):
    print(machine())
    torch.set_num_threads(1)
    compare_reports(3 if quick else 12, 5 if quick else 100)
    compare_isolated(6 if quick else 12, 1 if quick else 15)
    compare_memory(8 if quick else 200)
    compare_jobs(2 if quick else 20, 0.1 if quick else 2.0)
    compare_with_ray(2 if quick else TRIALS, 1 if quick else 3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few trials: shows that it runs, not the figures")
    parser.add_argument("--only", choices=COMMANDS, help="run one search, as a whole command")
    parser.add_argument("--trials", type=int, default=TRIALS, help="of --only")
    parser.add_argument("--directory", default="lightningtune_runs", help="of --only")
    arguments = parser.parse_args()
    if arguments.only:
        COMMANDS[arguments.only](arguments.directory, arguments.trials)
    else:
        main(arguments.quick)
