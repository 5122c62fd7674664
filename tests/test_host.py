"""Whole studies whose trials run in processes of their own, with real processes and signals."""

import collections
import gc
import multiprocessing
import os
import secrets
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import lightning as L
import optuna
import pytest
import torch
from family import children_of, have_ended, marked
from nets import Line, Points, PrunesItself, points
from torch.utils.data import DataLoader

from lightningtune import ConfigurationError, OptunaDrivenOptimizer

RANDOM = {"search_space": {"lr": ("loguniform", 1e-3, 1.0)}, "n_trials": 4}
CPU = {"accelerator": "cpu", "max_epochs": 2}


@pytest.fixture
def tune(tmp_path):
    """Build an optimizer with small defaults, each of which a test may replace."""

    def build(**changed):
        given = {
            "base_config": {"trainer": CPU},
            "model_class": Line,
            "datamodule_class": Points,
            "experiment_dir": tmp_path,
            "verbose": False,
            "seed": 0,
            "isolate": True,
            "sampler": optuna.samplers.RandomSampler(seed=0),
            **RANDOM,
        }
        return OptunaDrivenOptimizer(**{**given, **changed})

    return build


@pytest.fixture
def script(tmp_path):
    """Run a script that sees the modules of the tests."""

    def start(text, *arguments, how=(), **options):
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(text))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": tmp_path}
        command = [sys.executable, *(how or [str(path)]), *arguments]
        return subprocess.Popen(command, env=environment, **{**pipes, **options})

    return start


def found(study):
    return [(trial.params, trial.values, trial.state.name) for trial in study.trials]


# --- the same, wherever it runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "storage", [None, *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("memory", "sqlite"))]
)
def test_isolated_parallel_and_in_process_trials_are_the_same(tune, tmp_path, storage):
    def run(name, **how):
        kinds = {"memory": optuna.storages.InMemoryStorage(), "sqlite": f"sqlite:///{tmp_path}/{name}.db"}
        optimizer = tune(study_name=name, **({"storage": kinds[storage]} if storage else {}), **how)
        study = optimizer.optimize()
        assert isinstance(study, optuna.Study)
        assert optimizer.best_model().hparams.lr == study.best_params["lr"]
        return found(study)

    here = run("here", isolate=False)
    assert len(here) == 4
    assert run("apart") == here
    assert run("beside", n_jobs=3) == here


@pytest.mark.slow
def test_a_seeded_tpe_finds_the_same_apart_as_here(tune):
    options = {"sampler": None, "n_trials": 14, "pruner": optuna.pruners.NopPruner()}
    here = tune(study_name="here", isolate=False, **options).optimize()
    apart = tune(study_name="apart", **options).optimize()
    assert found(apart) == found(here)
    assert len({trial.params["lr"] for trial in here.trials}) == 14


@pytest.mark.slow
def test_n_trials_is_the_total_and_every_trial_is_placed(tune):
    optimizer = tune(n_jobs=2, n_trials=3)
    optimizer.optimize()
    study = tune(n_jobs=2, n_trials=5).optimize()
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3, 4]
    cores = sorted(os.sched_getaffinity(0))
    for trial in study.trials:
        placed = trial.user_attrs["lightningtune:placement"]
        assert (placed["devices"], placed["threads"]) == ([], min(torch.get_num_threads(), max(1, len(cores) // 2)))
        assert {*placed["cores"]} < {*cores} or len(cores) == 1
    assert {path.name for path in (optimizer.directory / "trials").iterdir()} == {f"{n:04d}" for n in range(5)}


@pytest.mark.slow
def test_n_jobs_of_minus_one_fits_the_machine(tune):
    study = tune(n_jobs=-1).optimize()
    placed = [trial.user_attrs["lightningtune:placement"] for trial in study.trials]
    assert {(where["threads"], len(where["cores"])) for where in placed} == {(1, 1)}
    assert len({where["cores"][0] for where in placed}) == min(len(os.sched_getaffinity(0)), len(placed))


class Placed(L.Callback):
    """Writes down where a trial runs, and a worker of its DataLoader."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_start(self, trainer, pl_module):
        loader = DataLoader(points(), num_workers=1, worker_init_fn=self.write)
        next(iter(loader))
        self.write("main")

    def write(self, who):
        where = sorted(os.sched_getaffinity(0)), torch.get_num_threads(), gc.get_freeze_count() > 10_000
        Path(self.folder, f"{os.getpid()} {who}").write_text(repr(where))


@pytest.mark.slow
def test_a_trial_keeps_to_its_cores_and_so_do_its_workers(tune, tmp_path):
    (tmp_path / "placed").mkdir()
    study = tune(n_jobs=2, callbacks=[Placed(str(tmp_path / "placed"))]).optimize()
    cores = {tuple(trial.user_attrs["lightningtune:placement"]["cores"]) for trial in study.trials}
    threads = study.trials[0].user_attrs["lightningtune:placement"]["threads"]
    found = {path.name: eval(path.read_text()) for path in (tmp_path / "placed").iterdir()}
    assert len(found) == 8
    for name, (where, used, is_frozen) in found.items():
        assert tuple(where) in cores
        assert used == (threads if name.endswith("main") else 1)
        assert is_frozen, "the heap of the server was frozen before it forked"


class Meets(L.Callback):
    """Two trials wait for each other: they go on only where both run at the same time."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_start(self, trainer, pl_module):
        mine = Path(self.folder, str(os.getpid()))
        mine.touch()
        while len([*Path(self.folder).iterdir()]) < 2:
            os.sched_yield()


@pytest.mark.slow
def test_trials_run_at_the_same_time(tune, tmp_path):
    (tmp_path / "meet").mkdir()
    study = tune(n_jobs=2, n_trials=2, callbacks=[Meets(str(tmp_path / "meet"))]).optimize()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]


class PruneOdd(optuna.pruners.BasePruner):
    def prune(self, study, trial):
        assert threading.current_thread().name.startswith("lightningtune-trial")
        return trial.number % 2 == 1


def test_pruner_and_callbacks_live_in_the_host(tune):
    seen = []
    optimizer = tune(n_jobs=2, pruner=PruneOdd(), callbacks=[lambda study, trial: seen.append(os.getpid())])
    study = optimizer.optimize()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED"] * 2
    assert seen == [os.getpid()] * 4
    assert len(list(optimizer.directory.glob("trials/*/best.ckpt"))) == 1


@pytest.mark.slow
def test_an_optuna_callback_may_stop_the_study(tune):
    study = tune(n_trials=50, callbacks=[lambda study, trial: study.stop()]).optimize()
    assert len(study.trials) == 1


BESIDE_A_THREAD = """
    import threading
    threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


@pytest.fixture(params=["", BESIDE_A_THREAD], ids=["forked", "interpreter"])
def before(request):
    """What a script does first, which decides how the server is started."""
    return request.param


# --- what travels ------------------------------------------------------------------------------------------------

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


def test_what_cannot_travel_is_named(tune):
    lock = threading.Lock()

    class Locked(L.Callback):
        def __init__(self):
            self.held = 1

        def __deepcopy__(self, memo):
            return self

        def __reduce__(self):
            return str, (lock,)

    for wrong, name in (
        ({"callbacks": [Locked()]}, "callbacks: Locked"),
        ({"score": lambda values, lock=lock: values[0]}, "score"),
        ({"model_class": lambda lr, lock=lock: Line(lr)}, "model_class"),
        ({"datamodule_class": lambda lock=lock: Points()}, "datamodule_class"),
    ):
        with pytest.raises(ConfigurationError, match=rf"^{name} cannot be sent to a trial's process.*isolate=False"):
            tune(**wrong).optimize()


# --- what ends a trial, and what does not end the study ----------------------------------------------------------


class Dies(Line):
    def on_train_epoch_start(self):
        if self.current_epoch == 1 and self.hparams.act != "relu":
            print("about to end")
            numbers = {"kill": signal.SIGKILL, "term": signal.SIGTERM}
            os._exit(7) if self.hparams.act == "exit" else os.kill(os.getpid(), numbers[self.hparams.act])


@pytest.mark.slow
def test_the_study_survives_any_trial(tune):
    optimizer = tune(
        model_class=Dies,
        search_space={"act": ("categorical", ["relu", "kill", "exit", "term"])},
        baseline=False,
        n_trials=4,
        n_jobs=2,
    )
    for act in ("relu", "kill", "exit", "term"):
        optimizer.study.enqueue_trial({"act": act})
    study = optimizer.optimize()
    assert optimizer.results().counts == {"complete": 1, "fail": 3}
    attempts = collections.Counter(trial.params["act"] for trial in study.trials)
    assert attempts == {"relu": 1, "kill": 4, "exit": 4, "term": 4}  # the first, and three that got no further
    ends = {trial.params["act"]: trial for trial in study.trials}
    assert ends["relu"].state.name == "COMPLETE"
    assert ends["term"].user_attrs["lightningtune:reason"] == "killed"
    assert ends["term"].user_attrs["lightningtune:detail"] == "interrupted by SIGTERM"
    for act, said in (("kill", "was killed by SIGKILL"), ("exit", "ended with exit code 7")):
        assert ends[act].state.name == "FAIL"
        assert len(ends[act].intermediate_values) == 1
        assert ends[act].user_attrs["lightningtune:reason"] == "killed"
        detail = f"the trial's process {said}. It printed last: about to end"
        assert ends[act].user_attrs["lightningtune:detail"] == detail
        assert "about to end" in (optimizer.directory / f"trials/{ends[act].number:04d}/error.txt").read_text()


class KillsItsLoader(Line):
    """Kills the worker of its DataLoader once, in the process of the test."""

    killed = False

    def __init__(self, lr: float = 0.1):
        super().__init__(lr)
        self.others = {*multiprocessing.active_children()}

    def training_step(self, batch, batch_idx):
        if not KillsItsLoader.killed:
            KillsItsLoader.killed = True
            for worker in {*multiprocessing.active_children()} - self.others:
                os.kill(worker.pid, signal.SIGKILL)
        return super().training_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # torch leaves it where the worker ends
def test_a_trial_here_that_is_cut_short_is_run_again_and_counts_once(tune, monkeypatch):
    monkeypatch.setattr(KillsItsLoader, "killed", False)

    def loaded():
        return DataLoader(points(), batch_size=1, num_workers=1), DataLoader(points())

    optimizer = tune(model_class=KillsItsLoader, datamodule_class=loaded, isolate=False, n_trials=2, baseline=False)
    study = optimizer.optimize()
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert optimizer.results().counts == {"complete": 2}
    gc.collect()  # the file, while it is ignored


def test_a_trial_here_that_was_given_to_another_host_ends_nothing(tune):
    class GivenUp(L.Callback):
        def on_validation_end(self, trainer, pl_module):
            if not trainer.sanity_checking and not optimizer.study.trials[0].state.is_finished():
                optimizer.study.tell(0, state=optuna.trial.TrialState.FAIL)

    optimizer = tune(isolate=False, n_trials=2, baseline=False, callbacks=[GivenUp()])
    study = optimizer.optimize()
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]


def test_optunas_bar_is_shown_where_it_is_asked_for(tune, capsys):
    tune(isolate=False, n_trials=2, show_progress_bar=True).optimize()
    assert "2/2" in capsys.readouterr().err


@pytest.mark.slow
def test_a_trial_that_takes_too_long_ends_after_a_validation(tune):
    for how in ({"isolate": True}, {"isolate": False}):
        optimizer = tune(
            base_config={"trainer": {**CPU, "max_epochs": 100_000}},
            trial_timeout=0.2,
            n_trials=1,
            study_name=str(how["isolate"]),
            **how,
        )
        (trial,) = optimizer.optimize().trials
        assert trial.state.name == "FAIL"
        assert trial.user_attrs["lightningtune:reason"] == "timed_out"
        assert trial.user_attrs["lightningtune:detail"] == "took longer than trial_timeout=0.2 seconds"
        assert trial.intermediate_values


class Unlogged(Line):
    def validation_step(self, batch, batch_idx):
        self.log("valid_loss", 1.0)


def test_a_mistake_ends_the_study(tune):
    optimizer = tune(model_class=Unlogged, n_jobs=2)
    with pytest.raises(ConfigurationError, match="Did you mean 'valid_loss'"):
        optimizer.optimize()
    assert {trial.user_attrs["lightningtune:reason"] for trial in optimizer.study.trials} == {"refused"}


class Broken(Line):
    def training_step(self, batch, batch_idx):
        raise ValueError("shapes do not match")


@pytest.mark.slow
def test_failures_are_recorded_and_catch_is_optunas(tune):
    optimizer = tune(model_class=Broken, n_trials=10, n_jobs=2)
    study = optimizer.optimize()
    assert {trial.user_attrs["lightningtune:detail"] for trial in study.trials} == {"ValueError: shapes do not match"}
    assert len(study.trials) < 6
    assert "in training_step" in (optimizer.directory / "trials/0000/error.txt").read_text()
    with pytest.raises(ValueError, match="shapes do not match"):
        tune(model_class=Broken, catch=(), study_name="strict").optimize()


class Exits(Points):
    def prepare_data(self):
        sys.exit(3)


@pytest.mark.parametrize("how", [{"isolate": False}, pytest.param({"n_jobs": 2}, marks=pytest.mark.slow)], ids=str)
def test_data_that_cannot_be_prepared_leaves_no_trial_running(tune, how):
    study = tune(datamodule_class=Exits, **how).optimize()
    assert {trial.state.name for trial in study.trials} == {"FAIL"}
    assert {trial.user_attrs["lightningtune:detail"] for trial in study.trials} == {
        "TrialError: the training called sys.exit(3)"
    }


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


# --- several processes a trial -----------------------------------------------------------------------------------


class Ranks(L.Callback):
    """Writes down which parameters each rank has."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_start(self, trainer, pl_module):
        number = Path(trainer.default_root_dir).name
        Path(self.folder, f"{number} {trainer.global_rank} {trainer.world_size}").write_text(str(pl_module.lr))


SECOND_TASK = {"JOB_ID": "1", "JOB_NAME": "study", "NTASKS": "2", "PROCID": "1", "LOCALID": "1", "NODEID": "0"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "storage"),
    [
        ("ddp", "journal"),
        ("ddp_spawn", "memory"),
        ("ddp_fork", "journal"),
        ({"class_path": "DDPStrategy", "init_args": {"find_unused_parameters": True}}, "memory"),
    ],
)
@pytest.mark.filterwarnings("ignore:find_unused_parameters=True was specified")
def test_a_trial_of_several_processes_is_one_trial_in_a_task_of_slurms_too(
    tune, tmp_path, monkeypatch, strategy, storage
):
    for name, value in SECOND_TASK.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    (tmp_path / "ranks").mkdir()
    study = tune(
        base_config={"trainer": {**CPU, "strategy": strategy, "devices": 2}},
        callbacks=[Ranks(str(tmp_path / "ranks"))],
        isolate=False,
        n_trials=3,
        pruner=PruneOdd(),
        storage=None if storage == "journal" else optuna.storages.InMemoryStorage(),
    ).optimize()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert [len(trial.intermediate_values) for trial in study.trials] == [2, 1, 2]
    ranks = collections.defaultdict(set)
    for path in (tmp_path / "ranks").iterdir():
        number, rank, world = map(int, path.name.split())
        assert world == 2
        assert float(path.read_text()) == study.trials[number].params["lr"]
        ranks[number].add(rank)
    assert dict(ranks) == {0: {0, 1}, 1: {0, 1}, 2: {0, 1}}


@pytest.mark.slow
def test_a_trial_of_several_processes_is_pruned_by_any_of_them(tune):
    places = ["step", "step of rank 1"]
    study = tune(
        base_config={"trainer": {**CPU, "strategy": "ddp", "devices": 2}},
        model_class=PrunesItself,
        search_space={"at": ("categorical", places)},
        sampler=optuna.samplers.GridSampler({"at": places}),
        baseline=False,
        n_trials=2,
    ).optimize()
    assert {(t.state.name, t.user_attrs["lightningtune:detail"]) for t in study.trials} == {
        ("PRUNED", f"not worth it, says the {place}") for place in places
    }


@pytest.mark.slow
def test_a_trial_of_several_processes_is_refitted_as_one(tune):
    optimizer = tune(base_config={"trainer": {**CPU, "strategy": "ddp", "devices": 2}}, n_trials=1)
    study = optimizer.optimize()
    (refit,) = optimizer.refit()
    assert refit.score == tuple(study.trials[0].values)


# --- data once ---------------------------------------------------------------------------------------------------


class Prepared(Points):
    """Writes down each time it prepares or loads."""

    def __init__(self, folder: str, batch_size: int = 8, shuffle: bool = True):
        super().__init__(batch_size, shuffle)
        self.folder = folder

    def prepare_data(self):
        with Path(self.folder, "prepared").open("a") as file:
            file.write("once\n")

    def setup(self, stage):
        with Path(self.folder, "loaded").open("a") as file:
            file.write("once\n")
        self.data = points()

    def train_dataloader(self):
        return DataLoader(self.data, batch_size=self.batch_size)


class Keeps(Prepared):
    def __init__(self, folder: str, batch_size: int = 8):
        super().__init__(folder, batch_size)
        self.kept = {}

    def prepare_data(self):
        super().prepare_data()
        self.kept["raw"] = 1

    def setup(self, stage):
        super().setup(stage)
        assert self.kept["raw"] == 1


def count(path):
    return len(path.read_text().splitlines())


@pytest.mark.parametrize(
    "how", [{"isolate": False}, pytest.param({"isolate": True}, marks=pytest.mark.slow), {"n_jobs": 3}], ids=str
)
def test_data_is_prepared_once_for_a_study(tune, tmp_path, how):
    study = tune(
        base_config={"data": {"folder": str(tmp_path)}, "trainer": CPU},
        search_space={"lr": ("uniform", 0.1, 0.2), "batch_size": ("categorical", [4, 8, 16])},
        datamodule_class=Prepared,
        n_trials=5,
        **how,
    ).optimize()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 5
    assert count(tmp_path / "prepared") == 1
    assert count(tmp_path / "loaded") == 5


def test_what_is_kept_on_the_datamodule_is_prepared_in_each_trial(tune, tmp_path):
    config = {"data": {"folder": str(tmp_path)}, "trainer": CPU}
    tune(base_config=config, datamodule_class=Keeps, n_trials=3, isolate=False).optimize()
    assert count(tmp_path / "prepared") == 4, "once before, and in each trial"


class Big(Prepared):
    """Loads half a gigabyte, and trains on its first rows."""

    def setup(self, stage):
        super().setup(stage)
        self.big = torch.ones(125_000_000)

    def train_dataloader(self):
        assert self.big.sum() > 0, "every page is read"
        return super().train_dataloader()


class Memory(L.Callback):
    """Writes down what a trial's process has for itself alone, in bytes, once both run."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, trainer, pl_module):
        fields = dict(line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
        private = sum(int(fields[name].split()[0]) for name in ("Private_Clean", "Private_Dirty"))
        Path(self.folder, f"memory {os.getpid()}").write_text(str(private * 1024))


@pytest.mark.slow
def test_loaded_data_is_shared_by_all_trials(tune, tmp_path):
    config = {"data": {"folder": str(tmp_path)}, "trainer": CPU}
    space = {"lr": ("uniform", 0.1, 0.2), "batch_size": ("categorical", [4, 8, 16])}
    study = tune(
        base_config=config,
        search_space=space,
        datamodule_class=Big,
        n_trials=20,
        n_jobs=4,
        pruner=optuna.pruners.NopPruner(),
        share_data=True,
        callbacks=[Memory(str(tmp_path))],
    ).optimize()
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}
    assert (count(tmp_path / "loaded"), count(tmp_path / "prepared")) == (1, 1)
    private = sorted(int(path.read_text()) for path in tmp_path.glob("memory *"))
    data = 500_000_000
    assert data + 4 * private[-1] < 2 * data, "four at a time and the server have less than twice the data"


def test_shared_data_in_this_process_is_loaded_once_too(tune, tmp_path):
    config = {"data": {"folder": str(tmp_path)}, "trainer": CPU}
    tune(base_config=config, datamodule_class=Prepared, share_data=True, isolate=False).optimize()
    assert (count(tmp_path / "loaded"), count(tmp_path / "prepared")) == (1, 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {
                "search_space": {
                    "data.shuffle": ("categorical", [True, False]),
                    "data.folder": ("categorical", ["a", "b"]),
                }
            },
            "share_data loads the data once.*data=",
        ),
        (
            {"datamodule_class": lambda: (DataLoader(points()), DataLoader(points()))},
            "share_data takes a LightningData",
        ),
    ],
)
def test_data_that_cannot_be_shared_is_refused(tune, wrong, message):
    with pytest.raises(ConfigurationError, match=message):
        tune(**{"datamodule_class": Prepared, "base_config": {"trainer": CPU}, "share_data": True, **wrong}).optimize()


# --- nothing is left ---------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_jobs": 0}, "n_jobs must be an integer from 1"),
        ({"n_jobs": -2}, "n_jobs must be an integer from 1"),
        ({"n_jobs": "2"}, "n_jobs must be an integer from 1"),
        ({"isolate": 1}, "isolate must be True or False"),
        ({"share_data": "yes"}, "share_data must be True or False"),
        ({"trial_timeout": "1h"}, "trial_timeout must be a number of seconds"),
        ({"devices_per_trial": 2}, "trials run on the CPU here"),
        ({"trials_per_device": 2}, "trials run on the CPU here"),
        ({"njobs": 2}, "Did you mean 'n_jobs'"),
        ({"show_progress_bar": True}, "show_progress_bar is for trials in this process"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_written(tune, tmp_path, wrong, message):
    with pytest.raises(ConfigurationError, match=message):
        tune(**wrong)
    assert not list(tmp_path.iterdir())
