"""Whole studies whose trials run in processes of their own, with real processes."""

import collections
import gc
import os
import threading
from pathlib import Path

import lightning as L
import optuna
import pytest
import torch
from nets import Line, Points, PrunesItself, points
from torch.utils.data import DataLoader

from lightningtune import ConfigurationError

CPU = {"accelerator": "cpu", "max_epochs": 2}


def found(study):
    return [(trial.params, trial.values, trial.state.name) for trial in study.trials]


@pytest.mark.parametrize(
    "storage", [None, *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("memory", "sqlite"))]
)
def test_isolated_parallel_and_in_process_trials_are_the_same(tune_isolated, tmp_path, storage):
    def run(name, **how):
        kinds = {"memory": optuna.storages.InMemoryStorage(), "sqlite": f"sqlite:///{tmp_path}/{name}.db"}
        optimizer = tune_isolated(study_name=name, **({"storage": kinds[storage]} if storage else {}), **how)
        study = optimizer.optimize()
        assert isinstance(study, optuna.Study)
        assert optimizer.best_model().hparams.lr == study.best_params["lr"]
        return found(study)

    here = run("here", isolate=False)
    assert len(here) == 4
    assert run("apart") == here
    assert run("beside", n_jobs=3) == here


@pytest.mark.slow
def test_a_seeded_tpe_finds_the_same_apart_as_here(tune_isolated):
    options = {"sampler": None, "n_trials": 14, "pruner": optuna.pruners.NopPruner()}
    here = tune_isolated(study_name="here", isolate=False, **options).optimize()
    apart = tune_isolated(study_name="apart", **options).optimize()
    assert found(apart) == found(here)
    assert len({trial.params["lr"] for trial in here.trials}) == 14


@pytest.mark.slow
def test_n_trials_is_the_total_and_every_trial_is_placed(tune_isolated):
    optimizer = tune_isolated(n_jobs=2, n_trials=3)
    optimizer.optimize()
    study = tune_isolated(n_jobs=2, n_trials=5).optimize()
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3, 4]
    cores = sorted(os.sched_getaffinity(0))
    for trial in study.trials:
        placed = trial.user_attrs["lightningtune:placement"]
        assert (placed["devices"], placed["threads"]) == ([], min(torch.get_num_threads(), max(1, len(cores) // 2)))
        assert {*placed["cores"]} < {*cores} or len(cores) == 1
    assert {path.name for path in (optimizer.directory / "trials").iterdir()} == {f"{n:04d}" for n in range(5)}


@pytest.mark.slow
def test_n_jobs_of_minus_one_fits_the_machine(tune_isolated):
    study = tune_isolated(n_jobs=-1).optimize()
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
def test_a_trial_keeps_to_its_cores_and_so_do_its_workers(tune_isolated, tmp_path):
    (tmp_path / "placed").mkdir()
    study = tune_isolated(n_jobs=2, callbacks=[Placed(str(tmp_path / "placed"))]).optimize()
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
def test_trials_run_at_the_same_time(tune_isolated, tmp_path):
    (tmp_path / "meet").mkdir()
    study = tune_isolated(n_jobs=2, n_trials=2, callbacks=[Meets(str(tmp_path / "meet"))]).optimize()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]


class PruneOdd(optuna.pruners.BasePruner):
    def prune(self, study, trial):
        assert threading.current_thread().name.startswith("lightningtune-trial")
        return trial.number % 2 == 1


def test_pruner_and_callbacks_live_in_the_host(tune_isolated):
    seen = []
    optimizer = tune_isolated(n_jobs=2, pruner=PruneOdd(), callbacks=[lambda study, trial: seen.append(os.getpid())])
    study = optimizer.optimize()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED"] * 2
    assert seen == [os.getpid()] * 4
    assert len(list(optimizer.directory.glob("trials/*/best.ckpt"))) == 1


@pytest.mark.slow
def test_an_optuna_callback_may_stop_the_study(tune_isolated):
    study = tune_isolated(n_trials=50, callbacks=[lambda study, trial: study.stop()]).optimize()
    assert len(study.trials) == 1


def test_what_cannot_travel_is_named(tune_isolated):
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
            tune_isolated(**wrong).optimize()


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
    tune_isolated, tmp_path, monkeypatch, strategy, storage
):
    for name, value in SECOND_TASK.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    (tmp_path / "ranks").mkdir()
    study = tune_isolated(
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
def test_a_trial_of_several_processes_is_pruned_by_any_of_them(tune_isolated):
    places = ["step", "step of rank 1"]
    study = tune_isolated(
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
def test_a_trial_of_several_processes_is_refitted_as_one(tune_isolated):
    optimizer = tune_isolated(base_config={"trainer": {**CPU, "strategy": "ddp", "devices": 2}}, n_trials=1)
    study = optimizer.optimize()
    (refit,) = optimizer.refit()
    assert refit.score == tuple(study.trials[0].values)


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
def test_a_mistake_is_refused_before_anything_is_written(tune_isolated, tmp_path, wrong, message):
    with pytest.raises(ConfigurationError, match=message):
        tune_isolated(**wrong)
    assert not list(tmp_path.iterdir())
