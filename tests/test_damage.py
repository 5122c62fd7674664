"""A study folder of which one file is damaged gives what it gave before, or an error that names the file."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import Line, Points, points

from lightningtune import LightningTuneError, OptunaDrivenOptimizer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="a killed process is noticed by /proc"),
    pytest.mark.filterwarnings("ignore:.*weights_only"),
]

COMPLETE, PRUNED, FAILED, KILLED = (0.05, 0.3, 0.1), 0.01, 0.95, 0.2
TRIALS = 6


class PruneSlow(optuna.pruners.BasePruner):
    def prune(self, study, trial):
        return trial.params["lr"] == PRUNED and trial.last_step == 1


class DieOnce(L.Callback):
    """Kills its process in the fourth epoch of one trial, if it is told to."""

    def on_train_epoch_start(self, trainer, pl_module):
        if pl_module.lr == KILLED and trainer.current_epoch == 3 and "DIES" in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)


def optimizer(folder, n_trials=TRIALS, study_name="study", seed=3, **options):
    return OptunaDrivenOptimizer(
        {"trainer": {"max_epochs": 5, "accelerator": "cpu"}, "model": {"explode_at": 0.9}},
        {"lr": ("loguniform", 1e-3, 1.0)},
        Line,
        Points,
        n_trials=n_trials,
        study_name=study_name,
        experiment_dir=folder,
        seed=seed,
        pruner=PruneSlow(),
        callbacks=[DieOnce()],
        save_top_k=3,
        baseline=False,
        verbose=False,
        **options,
    )


SCRIPT = """
    import os, sys
    from test_damage import COMPLETE, FAILED, KILLED, PRUNED, optimizer

    if __name__ == "__main__":
        first = optimizer("runs", 5, isolate=True)
        for lr in (*COMPLETE, PRUNED, FAILED, KILLED):
            first.study.enqueue_trial({"lr": lr})
        first.optimize()
        first.refit(seeds=[1])
        optimizer("other", 1, study_name="study", seed=4).optimize()
        os.environ["DIES"] = "yes"
        optimizer("runs").optimize()
"""


@dataclass
class Outcome:
    """What a user gets from a study: an error, by its question, or an answer."""

    trials: object
    config: object
    weights: object
    after: object
    refit: object


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """The folder of a study whose host was killed in its last trial, beside one of another study of its name."""
    folder = tmp_path_factory.mktemp("left")
    (folder / "script.py").write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, "script.py"], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return folder


@pytest.fixture(scope="module")
def undamaged(left, tmp_path_factory):
    """What the study gives when nothing is damaged."""
    return ask(shutil.copytree(left / "runs", tmp_path_factory.mktemp("undamaged") / "runs"))


def ask(folder):
    """Do with a study all that a user does."""
    opened = optimizer(folder)

    def go_on():
        wider = optimizer(folder, TRIALS + 1)
        wider.optimize()
        return table(wider)

    def refit_is_equal():
        again = optimizer(folder)
        return [refit.score for refit in again.refit()] == [again.results().best.values]

    return Outcome(
        answer(lambda: table(opened)),
        answer(opened.get_best_config),
        answer(lambda: weights(opened)),
        answer(go_on),
        answer(refit_is_equal),
    )


def answer(question):
    try:
        return question()
    except LightningTuneError as error:
        return error


def table(opened):
    """Return what a study says of its trials that count, and which is best."""
    results = opened.results()
    trials = [(t.params.get("lr"), t.state, t.values) for t in results.trials if t.continued_by is None]
    best = results.best
    assert best.values == min(values for _, state, values in trials if state == "complete")
    return trials, best.params["lr"]


def weights(opened):
    """Return the best weights, and make sure that they give the best value."""
    model = opened.best_model()
    with torch.no_grad():
        loss = model.net(points().tensors[0]).pow(2).mean()
    assert loss.item() == pytest.approx(opened.results().best.value, rel=1e-5)
    return {name: value.tolist() for name, value in model.state_dict().items()}


# --- damages --------------------------------------------------------------------------------------------------------


def missing(path, place, others):
    path.unlink()


def empty(path, place, others):
    path.write_bytes(b"")


def cut(path, place, others):
    path.write_bytes(path.read_bytes()[: int(place * path.stat().st_size)])


def flip(path, place, others):
    content = bytearray(path.read_bytes())
    if content:
        content[int(place * len(content))] ^= 1 << int(place * 1000) % 8
    path.write_bytes(content)


def garbage(path, place, others):
    path.write_bytes(random.Random(place).randbytes(300))


def lines_of_garbage(path, place, others):
    path.write_bytes(path.read_bytes() + random.Random(place).randbytes(300) + b"\n")


def zeros(path, place, others):
    content = path.read_bytes()
    begin = int(place * len(content))
    path.write_bytes(content[:begin] + bytes(min(64, len(content) - begin)) + content[begin + 64 :])


def another(path, place, others):
    """Another trial's file, or another study's, which is whole."""
    same_kind = sorted(other for other in others.rglob(f"*{path.suffix}") if other.is_file())
    path.write_bytes(same_kind[int(place * len(same_kind))].read_bytes())


def folder(path, place, others):
    path.unlink()
    path.mkdir()


DAMAGES = [missing, empty, cut, flip, garbage, lines_of_garbage, zeros, another, folder]


def check(undamaged, name, found):
    """Whatever a damaged study says is what it said before, or an error that names what is damaged."""
    for question, expected in vars(undamaged).items():
        got = getattr(found, question)
        if isinstance(got, LightningTuneError):
            assert name.name in str(got) or "The study 'study' exists with seed 4" in str(got), (question, got)
        else:
            assert got == expected, question


def check_shorter(undamaged, found):
    """A journal that was cut knows less, but nothing wrong; what is lost is trained again to the same values."""
    known = {lr: values for lr, state, values in undamaged.after[0] if state == "complete"}
    for got in (found.trials, found.after):
        if not isinstance(got, LightningTuneError):
            complete = {lr: values for lr, state, values in got[0] if state == "complete"}
            assert {lr: known.get(lr, values) for lr, values in complete.items()} == complete
    if not isinstance(found.after, LightningTuneError):
        assert [state for _, state, _ in found.after[0]].count("running") == 0
    if not isinstance(found.config, LightningTuneError):
        assert found.config["model"]["lr"] == found.trials[1]
    if not isinstance(found.refit, LightningTuneError):
        assert found.refit


FILES = st.sampled_from(
    [
        "journal.log",
        "study.yaml",
        "best/config.yaml",
        "best/model.ckpt",
        "refit/0001_seed_1/best.ckpt",
        "refit/0001_seed_1/config.yaml",
        *(f"trials/0001/{name}" for name in ("config.yaml", "metrics.csv", "best.ckpt", "output.log", "hparams.yaml")),
        *(f"trials/0003/{name}" for name in ("config.yaml", "output.log")),
        *(f"trials/0004/{name}" for name in ("config.yaml", "error.txt")),
        *(f"trials/0005/{name}" for name in ("config.yaml", "metrics.csv", "best.ckpt", "last.ckpt")),
    ]
)


@given(name=FILES, damage=st.sampled_from(DAMAGES), place=st.floats(0, 1, exclude_max=True))
@settings(max_examples=20, deadline=None)
def test_a_damaged_file_gives_what_was_there_before_or_an_error_that_names_it(left, undamaged, name, damage, place):
    with tempfile.TemporaryDirectory() as copy:
        runs = shutil.copytree(left / "runs", Path(copy) / "runs", symlinks=True)
        path = runs / "study" / name
        before = path.read_bytes()
        damage(path, place, left)
        is_shorter = name == "journal.log" and path.is_file() and is_beginning(path.read_bytes(), before)
        found = ask(runs)
    if is_shorter:
        check_shorter(undamaged, found)
    else:
        check(undamaged, path, found)


def is_beginning(content, before):
    """Whether all whole lines of a file are the first of it as it was."""
    whole = content[: content.rfind(b"\n") + 1]
    return 0 < len(whole) < len(before) and before.startswith(whole)
