"""Data that is prepared once, and shared, for all trials of a host."""

import os
from pathlib import Path

import lightning as L
import optuna
import pytest
import torch
from nets import Points, points
from torch.utils.data import DataLoader

from lightningtune import ConfigurationError

CPU = {"accelerator": "cpu", "max_epochs": 2}


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
def test_data_is_prepared_once_for_a_study(tune_isolated, tmp_path, how):
    study = tune_isolated(
        base_config={"data": {"folder": str(tmp_path)}, "trainer": CPU},
        search_space={"lr": ("uniform", 0.1, 0.2), "batch_size": ("categorical", [4, 8, 16])},
        datamodule_class=Prepared,
        n_trials=5,
        **how,
    ).optimize()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 5
    assert count(tmp_path / "prepared") == 1
    assert count(tmp_path / "loaded") == 5


def test_what_is_kept_on_the_datamodule_is_prepared_in_each_trial(tune_isolated, tmp_path):
    config = {"data": {"folder": str(tmp_path)}, "trainer": CPU}
    tune_isolated(base_config=config, datamodule_class=Keeps, n_trials=3, isolate=False).optimize()
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
def test_loaded_data_is_shared_by_all_trials(tune_isolated, tmp_path):
    config = {"data": {"folder": str(tmp_path)}, "trainer": CPU}
    space = {"lr": ("uniform", 0.1, 0.2), "batch_size": ("categorical", [4, 8, 16])}
    study = tune_isolated(
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


def test_shared_data_in_this_process_is_loaded_once_too(tune_isolated, tmp_path):
    config = {"data": {"folder": str(tmp_path)}, "trainer": CPU}
    tune_isolated(base_config=config, datamodule_class=Prepared, share_data=True, isolate=False).optimize()
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
def test_data_that_cannot_be_shared_is_refused(tune_isolated, wrong, message):
    with pytest.raises(ConfigurationError, match=message):
        tune_isolated(
            **{"datamodule_class": Prepared, "base_config": {"trainer": CPU}, "share_data": True, **wrong}
        ).optimize()
