"""Scripts whose trials run in processes of their own, and real signals."""

import os
import secrets
import signal
import textwrap
import time
from pathlib import Path

import optuna
import pytest
from family import children_of, have_ended, marked


def found(study):
    return [(trial.params, trial.values, trial.state.name) for trial in study.trials]


BESIDE_A_THREAD = """
    import threading
    threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


@pytest.fixture(params=["", BESIDE_A_THREAD], ids=["forked", "interpreter"])
def before(request):
    """What a script does first, which decides how the server is started."""
    return request.param


LOCAL = """
    import lightning as L
    from nets import Line, Points
    from lightningtune import OptunaDrivenOptimizer

    class Mine(Line):
        def training_step(self, batch, batch_idx):
            print("said by a trial")
            return offset() * super().training_step(batch, batch_idx)

    def offset():
        return 2.0

    class Counts(L.Callback):
        pass

    study = OptunaDrivenOptimizer(
        {"trainer": {"max_epochs": 1, "accelerator": "cpu"}},
        lambda trial: {"model.lr": trial.suggest_float("lr", 0.1, 1)},
        Mine, lambda: Points(), n_trials=3, n_jobs=2, callbacks=[Counts()], score=lambda values: values[-1],
        experiment_dir="runs",
    ).optimize()
    print([trial.state.name for trial in study.trials])
"""


HAS_SET = """
    import os, sys, threading
    sys.path.insert(0, os.path.abspath("beside"))
    import numpy as np
    import torch
    from nets import Line, Points
    from lightningtune import OptunaDrivenOptimizer

    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    np.replaced = True
    print("the script has not ended its line", end="")

    class Tells(Line):
        def on_train_start(self):
            import lies_beside
            print(self.net[0].weight.dtype, torch.are_deterministic_algorithms_enabled(), sys.argv[1:])
            print(hasattr(np, "replaced"), threading.current_thread().name, os.path.basename(os.getcwd()))

    class Doubles(Points):
        def train_dataloader(self):
            loader = super().train_dataloader()
            return [[batch[0].double()] for batch in loader]

        def val_dataloader(self):
            return [[batch[0].double()] for batch in super().val_dataloader()]

    os.mkdir("elsewhere")
    os.chdir("elsewhere")

    OptunaDrivenOptimizer(
        {"trainer": {"max_epochs": 1, "accelerator": "cpu"}}, {"lr": ("loguniform", 1e-3, 1.0)}, Tells, Doubles,
        n_trials=1, isolate=True, experiment_dir="runs",
    ).optimize()
"""


@pytest.mark.slow
def test_what_a_script_has_set_holds_in_trials(script, tmp_path, before):
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside/lies_beside.py").touch()
    with script(before + HAS_SET, "--fast") as process:
        said = process.stdout.read()
    assert process.returncode == 0, said
    assert said.count("the script has not ended its line") == 1
    assert (tmp_path / "elsewhere/runs/optuna_study/trials/0000/output.log").read_text().splitlines() == [
        "torch.float64 True ['--fast']",
        f"{not before} MainThread elsewhere",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [(), ("-c", textwrap.dedent(LOCAL)), ("-c", textwrap.dedent(BESIDE_A_THREAD + LOCAL))],
    ids=["script", "without a file", "as in a notebook"],
)
def test_a_script_needs_no_guard_and_its_own_classes_travel(script, tmp_path, how):
    with script(LOCAL, how=how) as process:
        said = process.stdout.read()
    assert "['COMPLETE', 'COMPLETE', 'COMPLETE']" in said
    assert "said by a trial" not in said
    assert "said by a trial" in (tmp_path / "runs/optuna_study/trials/0002/output.log").read_text()


ENDLESS = """
    import contextlib, os, sys
    import lightning as L
    from lightningtune import OptunaDrivenOptimizer
    from nets import Line, Points

    class Tell(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            with contextlib.suppress(OSError):  # nobody listens, not yet or not any more
                os.write(os.open("running", os.O_WRONLY | os.O_NONBLOCK), b"epoch")

    def told(study, trial):
        print("ended", trial.number, trial.state.name, flush=True)

    OptunaDrivenOptimizer(
        {"trainer": {"max_epochs": 1000000, "accelerator": "cpu", "check_val_every_n_epoch": int(sys.argv[1])}},
        {"lr": ("loguniform", 1e-3, 1.0)}, Line, Points,
        n_trials=8, n_jobs=2, experiment_dir="runs", seed=0, callbacks=[Tell(), told],
    ).optimize()
"""


def begin_endless(script, tmp_path, every, before=""):
    os.mkfifo(tmp_path / "running")
    process = script(before + ENDLESS, str(every))
    with (tmp_path / "running").open() as running:
        assert running.read(5) == "epoch"
    return process


def trials_in(folder):
    journal = optuna.storages.journal.JournalFileBackend(str(folder / "optuna_study/journal.log"))
    study = optuna.load_study(study_name="optuna_study", storage=optuna.storages.JournalStorage(journal))
    return [(trial.state.name, trial.user_attrs.get("lightningtune:reason")) for trial in study.trials]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_one_signal_lets_running_trials_reach_their_validation(script, tmp_path, number, code):
    with begin_endless(script, tmp_path, every=1) as process:
        process.send_signal(number)
        said = process.stdout.read()
    assert process.returncode in {code, -number}
    assert "running trials end at their next validation" in said
    trials = trials_in(tmp_path / "runs")
    assert {*trials} == {("FAIL", "interrupted")}
    assert 1 <= len(trials) <= 2
    assert (tmp_path / "runs/optuna_study/trials/0000/last.ckpt").exists()


@pytest.mark.slow
def test_two_signals_end_everything_now(script, tmp_path, before):
    with begin_endless(script, tmp_path, 10**6, before) as process:  # no validation is ever reached
        family = children_of(process.pid)
        process.send_signal(signal.SIGINT)
        said = ""
        while "Once more ends them now" not in said:
            said += (line := process.stdout.readline())
            assert line, said
        process.send_signal(signal.SIGINT)
        process.stdout.read()
    assert process.returncode in {130, -signal.SIGINT}
    assert len(family) >= 2, "the second trial may not have its process yet"
    assert have_ended(family)
    assert {*trials_in(tmp_path / "runs")} == {("FAIL", "interrupted")}
    assert "interrupted" in (tmp_path / "runs/optuna_study/trials/0000/error.txt").read_text()


LOADS = """
    import signal, sys
    from pathlib import Path
    from lightningtune import OptunaDrivenOptimizer
    from nets import Line, Points

    class Slow(Points):
        def prepare_data(self):
            Path("running").write_text("loads")
            signal.pause()

    OptunaDrivenOptimizer(
        {"trainer": {"max_epochs": 1, "accelerator": "cpu"}}, {"lr": ("loguniform", 1e-3, 1.0)}, Line, Slow,
        n_trials=8, n_jobs=2, share_data=sys.argv[1] == "share", experiment_dir="runs",
    ).optimize()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["share", "prepare"])
def test_one_signal_ends_what_has_no_validation_to_reach(script, tmp_path, how):
    os.mkfifo(tmp_path / "running")
    with script(LOADS, how) as process:
        assert (tmp_path / "running").read_text() == "loads"
        family = children_of(process.pid)
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode in {130, -signal.SIGINT}
    assert "0 of 8 trials are done; run again to go on" in said
    assert have_ended(family)
    assert {*trials_in(tmp_path / "runs")} <= {("FAIL", "interrupted")}


@pytest.mark.slow
def test_nothing_outlives_a_host_that_is_killed(script, tmp_path, before):
    with begin_endless(script, tmp_path, 1, before) as process:
        family = children_of(process.pid)
        process.kill()
        process.stdout.read()  # ends when the last process that has it is gone
    assert have_ended(family), "a process is left"


LEAVES = """
    import os, sys, threading
    from pathlib import Path
    import lightning as L
    from torch.utils.data import DataLoader
    from family import marked
    from lightningtune import OptunaDrivenOptimizer
    from nets import Line, points

    class Leaves(Line):
        def on_train_start(self):
            if os.getpid() in marked("MARK"):
                Path(self.trainer.default_root_dir, "marked").touch()
            if self.trainer.default_root_dir.endswith("1"):
                os._exit(3)

    def loaders():
        options = {"num_workers": 1, "persistent_workers": True}
        return [DataLoader(points(), 8, multiprocessing_context=how, **options) for how in ("fork", "spawn")]

    OptunaDrivenOptimizer(
        {"trainer": {"max_epochs": 2, "accelerator": "cpu"}}, {"lr": ("loguniform", 1e-3, 1.0)}, Leaves, loaders,
        n_trials=4, n_jobs=2, experiment_dir="runs",
    ).optimize()
    assert not [thread.name for thread in threading.enumerate() if "lightningtune" in thread.name]
"""


@pytest.mark.slow
def test_nothing_is_left_of_a_study(script, tmp_path, tmp_path_factory, monkeypatch, before):
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("TMPDIR", str(temporary))
    mark = f"LEAVES_{secrets.token_hex(4)}"
    monkeypatch.setenv(mark, "1")

    def memory():
        # a database that another test runs at the same time has shared memory, too
        return {path for path in Path("/dev/shm").iterdir() if not path.name.startswith("PostgreSQL.")}

    ours, found, there = marked(mark), memory(), {*temporary.iterdir()}
    with script(before + LEAVES.replace("MARK", mark)) as process:
        said = process.stdout.read()
    assert process.returncode == 0, said
    trials = tmp_path / "runs/optuna_study/trials"
    assert [*trials.glob("*/marked")], "the mark finds processes"
    assert (trials / "0001/error.txt").exists()
    assert have_ended(marked(mark) - ours)
    assert {*temporary.iterdir()} <= there
    left, until = memory() - found, time.monotonic() + 30
    while left and time.monotonic() < until:  # what a test beside this one uses for a moment goes
        time.sleep(0.1)
        left &= memory()
    assert not left
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
