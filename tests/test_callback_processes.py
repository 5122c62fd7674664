"""`TuneCallback` in scripts of their own: signals, and the processes of a distributed strategy."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import optuna
import pytest

HEAD = """
import sys
import lightning as L, optuna, torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from lightningtune import TuneCallback
from fits import PruneAt, Scripted, StatusLogger, data, trainer
"""


def script(tmp_path, body):
    path = tmp_path / "script.py"
    path.write_text(HEAD + textwrap.dedent(body))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "PYTHONWARNINGS": "ignore"}
    return {"args": [sys.executable, str(path)], "env": environment, "cwd": tmp_path, "text": True}


def run_script(tmp_path, body):
    """Run a script to its end, again where torch aborts one of its processes; return the run and its folder.

    ``terminate called without an active exception`` is what about one plain Lightning fit under ddp_spawn in fifteen
    ends with on a busy machine, without any callback.
    """
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        done = subprocess.run(**script(folder, body), capture_output=True, timeout=300)
        if "terminate called without an active exception" not in done.stderr:
            break
    return done, folder


def journal(tmp_path):
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    return optuna.storages.JournalStorage(backend)


ENDLESS = """
class Tell(L.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.is_global_zero:
            print("training", flush=True)

def objective(trial):
    tune = TuneCallback(trial)
    trainer(Tell(), tune, max_epochs=1000000, **{given}).fit(Scripted(), data(), data())
    return tune.score

if __name__ == "__main__":
    storage = JournalStorage(JournalFileBackend("journal.log"))
    optuna.create_study(study_name="s", storage=storage).optimize(objective, n_trials=2)
"""


def interrupted(tmp_path, number, given, to_all):
    """Signal a study that trains, or all its processes, as a terminal does; return its exit code and its trial."""
    command = script(tmp_path, ENDLESS.format(given=given))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "start_new_session": True}
    with subprocess.Popen(**command, **pipes) as child:
        assert child.stdout.readline() == "training\n"
        (os.killpg if to_all else os.kill)(child.pid, number)
        child.stdout.read()  # until no process of the study is left
    (trial,) = optuna.load_study(study_name="s", storage=journal(tmp_path)).trials
    return child.returncode, trial


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "to_all", "number", "code", "name"),
    [
        ({}, False, signal.SIGINT, 1, "Ctrl-C"),
        ({"strategy": "ddp_fork", "devices": 2}, False, signal.SIGTERM, 143, "SIGTERM"),
        ({"strategy": "ddp_spawn", "devices": 2}, True, signal.SIGINT, 1, "Ctrl-C"),
    ],
    ids=["one process", "fork", "spawn"],
)
def test_an_interrupted_trial_does_not_stay_running(tmp_path, given, to_all, number, code, name):
    returned, trial = interrupted(tmp_path, number, given, to_all)
    assert returned == code
    assert trial.state.name == "FAIL"
    assert trial.user_attrs["lightningtune:reason"] == "interrupted"
    assert trial.user_attrs["lightningtune:detail"] == f"interrupted by {name}"


EVERY_HOOK = """
import os, signal

class Data(L.LightningDataModule):
    def train_dataloader(self):
        return data()

    val_dataloader = train_dataloader

def terminated_in(owner, hook, pruner):
    def once(*_, **__):
        setattr(parts[owner], hook, lambda *_, **__: None)
        os.kill(os.getpid(), signal.SIGTERM)

    def objective(trial):
        tune = TuneCallback(trial)
        run = trainer(tune, parts["callback"], max_epochs=2, logger=parts["logger"], log_every_n_steps=1)
        run.fit(parts["model"], datamodule=parts["data"])
        return tune.score

    parts = {"model": Scripted(), "data": Data(), "callback": L.Callback(), "logger": StatusLogger("logs")}
    setattr(parts[owner], hook, once)
    study = optuna.create_study(pruner=pruner)
    try:
        study.optimize(objective, n_trials=3)
        code = "none"
    except SystemExit as error:
        code = error.code
    print(owner, hook, code, *[(trial.state.name, trial.user_attrs) for trial in study.trials])

hooks = {
    "model": ["setup", "configure_model", "on_fit_start", "on_train_start", "on_train_batch_end", "on_validation_end",
              "on_train_epoch_end", "on_train_end", "on_fit_end", "teardown"],
    "data": ["prepare_data", "setup", "teardown"],
    "callback": ["setup", "on_fit_start", "on_train_end", "on_fit_end", "teardown"],
    "logger": ["finalize"],
}
for owner in hooks:
    for hook in hooks[owner]:
        terminated_in(owner, hook, PruneAt(9))
        terminated_in(owner, hook, PruneAt(0))
"""


@pytest.mark.slow
def test_sigterm_ends_the_process_and_fails_the_trial_whenever_it_comes_in_a_fit(tmp_path):
    done, _ = run_script(tmp_path, EVERY_HOOK)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert len(lines) == 2 * 19
    attrs = {"lightningtune:reason": "interrupted", "lightningtune:detail": "interrupted by SIGTERM"}
    assert [line for line in lines if not line.endswith(f" 143 {('FAIL', attrs)}")] == []


RANKS = """
class Ranks(Scripted):
    # each rank logs another value

    sync_dist = False

    def on_validation_epoch_end(self):
        self.log("val_loss", self.values[self.validations] + self.global_rank, sync_dist=self.sync_dist)
        self.validations += 1

class Synced(Ranks):
    sync_dist = True

class OneExplodes(Ranks):
    def training_step(self, batch, batch_idx):
        explodes = self.global_rank == 1 and self.trainer.is_last_batch  # a step earlier, all ranks would share it
        return super().training_step(batch, batch_idx) * (float("nan") if explodes else 1.0)

def objective(trial, model):
    tune = TuneCallback(trial, save_best="kept")
    for _ in range({fits} if model is Ranks else 1):
        trainer(tune, strategy="{strategy}", devices=2, num_sanity_val_steps=0).fit(model(), data(), data())
    print(tune.best_model_path)
    return tune.score

def study(name, step, model):
    study = optuna.create_study(study_name=name, storage={storage}, pruner=PruneAt(step))
    study.optimize(lambda trial: objective(trial, model), n_trials=1)

if __name__ == "__main__":
    study("complete", 9, Ranks)
    study("pruned", 1, Synced)
    if "{strategy}" == "ddp_fork":  # which is quicker
        study("exploded", 9, OneExplodes)
"""
STORAGES = {
    "journal": 'JournalStorage(JournalFileBackend("journal.log"))',
    "sqlite": '"sqlite:///study.db"',
    "memory": "None",
}


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "storage", "fits"), [("ddp_spawn", "journal", 1), ("ddp_fork", "sqlite", 2)])
def test_spawned_and_forked_ranks_report_one_value_and_stop_together(tmp_path, strategy, storage, fits):
    body = RANKS.format(strategy=strategy, storage=STORAGES[storage], fits=fits)
    done, folder = run_script(tmp_path, body)
    assert done.returncode == 0, done.stderr

    kept = journal(folder) if storage == "journal" else f"sqlite:///{folder}/study.db"
    complete, pruned = (optuna.load_study(study_name=name, storage=kept).trials[0] for name in ("complete", "pruned"))
    values = [5.5, 4.5, 3.5, 2.5, 1.5]  # the mean over the ranks
    assert (complete.state.name, complete.value) == ("COMPLETE", 1.5)
    assert complete.intermediate_values == dict(enumerate(values * fits))
    best = "kept/trial_0000/best.ckpt" if fits == 1 else "kept/trial_0000-v1/best.ckpt"
    assert done.stdout.splitlines()[-1] == best
    assert (folder / best).exists()
    assert (pruned.state.name, pruned.value) == ("PRUNED", 4.5)
    assert pruned.intermediate_values == dict(enumerate(values[:2]))
    assert pruned.user_attrs["lightningtune:reason"] == "pruned"
    if strategy == "ddp_spawn":
        return
    (exploded,) = optuna.load_study(study_name="exploded", storage=kept).trials
    assert (exploded.state.name, exploded.value, exploded.intermediate_values) == ("PRUNED", None, {})
    assert exploded.user_attrs["lightningtune:detail"] == "the training loss is not finite on another rank"


AFTER = """
class Broken(L.Callback):
    def teardown(self, *_, **__):
        if {breaks}:
            raise ValueError("cannot upload")

def objective(trial):
    tune = TuneCallback(trial)
    try:
        trainer(tune, Broken(), strategy="ddp_fork", devices=2).fit(Scripted(), data(), data())
    except optuna.TrialPruned:
        tune.check_pruned()

if __name__ == "__main__":
    study = optuna.create_study(
        study_name="s", storage=JournalStorage(JournalFileBackend("journal.log")), pruner=PruneAt(0)
    )
    study.optimize(objective, n_trials=1, catch=Exception)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("breaks", "state", "reason"), [(False, "PRUNED", "pruned"), (True, "FAIL", None)])
def test_what_goes_wrong_after_forked_ranks_were_pruned_is_not_hidden(tmp_path, breaks, state, reason):
    done, folder = run_script(tmp_path, AFTER.format(breaks=breaks))
    assert done.returncode == 0, done.stderr
    (trial,) = optuna.load_study(study_name="s", storage=journal(folder)).trials
    assert trial.state.name == state
    assert trial.user_attrs.get("lightningtune:reason") == reason
    assert ("cannot upload" in done.stderr) == breaks


@pytest.mark.slow
def test_a_study_in_memory_is_refused_under_forked_ranks(tmp_path):
    done, _ = run_script(tmp_path, RANKS.format(strategy="ddp_fork", storage=STORAGES["memory"], fits=1))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("lightningtune.errors.ConfigurationError: The training processes of")


OWN_TRIALS = """
import os

def objective(trial, number):
    trial.suggest_int("x", number, number)
    tune = TuneCallback(trial)
    trainer(tune, strategy="ddp", devices=2, max_epochs=2).fit(Scripted(), data(), data())
    return tune.score

for number in (1, os.getpid()):
    study = optuna.create_study()
    study.optimize(lambda trial: objective(trial, number), n_trials=1)
    print(f"ended {study.trials[0].state.name}")
"""


@pytest.mark.slow
def test_ranks_that_sample_their_own_trial_are_refused(tmp_path):
    done, _ = run_script(tmp_path, OWN_TRIALS)
    assert done.returncode != 0
    assert "ended COMPLETE" in done.stdout, "the ranks have sampled the same"
    assert "trial of its own" in done.stderr
    assert "OptunaDrivenOptimizer" in done.stderr
