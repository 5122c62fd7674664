"""The data's randomness is the study's, the training's is the trial's."""

import copy
import pickle
import random
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningCLI
from nets import Line, Points, points
from torch.utils.data import DataLoader, TensorDataset, random_split

from lightningtune import OptunaDrivenOptimizer
from lightningtune.study.comparison import Agreement
from lightningtune.study.reporter import PROVENANCE
from lightningtune.training.data import data_seeded, seed_hooks

CPU = {"max_epochs": 2, "accelerator": "cpu"}


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def note(folder, name, *seen):
    with Path(folder, name).open("a") as file:
        print(*seen, file=file)


class Splits(L.LightningDataModule):
    """Draws wherever data is made."""

    def __init__(self, folder: str):
        super().__init__()
        self.folder, self.noise = folder, draw()

    def prepare_data(self):
        draw()

    def setup(self, stage):
        rows = TensorDataset(torch.randn(20, 2))
        self.train, self.val = random_split(rows, [0.8, 0.2])
        note(self.folder, "data", self.noise, [*self.val.indices], float(rows.tensors[0].sum()), draw())

    def train_dataloader(self):
        note(self.folder, "loaders", draw())
        return DataLoader(self.train, 4, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, 4)


class Notes(Line):
    def __init__(self, folder: str, lr: float = 0.1):
        super().__init__(lr)
        self.folder = folder

    def on_train_start(self):
        if self.trainer.is_global_zero:
            note(self.folder, "trainings", float(self.net[0].weight.detach().sum()), draw())


class HasData(Notes):
    def __init__(self, folder: str, lr: float = 0.1):
        super().__init__(folder, lr)
        self.data = {}

    def setup(self, stage):
        self.data["own"] = data = Splits(self.folder)
        data.setup(stage)

    def train_dataloader(self):
        return self.data["own"].train_dataloader()

    def val_dataloader(self):
        return self.data["own"].val_dataloader()


def loaders(folder: str):
    data = Splits(folder)
    data.setup("fit")
    return data.train_dataloader(), data.val_dataloader()


def with_functions(folder: str):
    """Return a datamodule as `LightningDataModule.from_datasets` makes it."""
    data, made = Splits(folder), L.LightningDataModule()
    data.setup("fit")
    made.train_dataloader, made.val_dataloader = lambda: data.train_dataloader(), lambda: data.val_dataloader()
    return made


def of_cli():
    LightningCLI(Notes, Splits)


def of_own_cli():
    LightningCLI(Notes, Splits, load_from_checkpoint_support=False)


@pytest.fixture
def tune(tmp_path):
    def build(trainer=None, data=Splits, model=Notes, **changed):
        own = {"folder": str(tmp_path)}
        config = {"trainer": {**CPU, **(trainer or {})}, "model": own, **changed.pop("config", {})}
        config |= {} if data is None else {"data": own}
        classes = {} if "cli" in changed else {"model_class": model, "datamodule_class": data}
        given = {"n_trials": 2, "experiment_dir": tmp_path, "verbose": False, "seed": 1, **classes}
        return OptunaDrivenOptimizer(config, {"lr": ("uniform", 0.01, 0.1)}, **{**given, **changed})

    return build


def lines(tmp_path, name):
    return (tmp_path / name).read_text().splitlines()


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"config": {"seed_everything": 42}},
        {"share_data": True},
        {"data": loaders},
        {"data": with_functions, "trainer": {"reload_dataloaders_every_n_epochs": 3}},
        {"data": None, "model": HasData},
        {"cli": of_cli},
        pytest.param({"cli": of_own_cli}, marks=pytest.mark.slow),
        pytest.param({"n_jobs": 2, "share_data": True}, marks=pytest.mark.slow),
        pytest.param({"trainer": {"devices": 2, "strategy": "ddp"}}, marks=pytest.mark.slow),
    ],
)
def test_all_trials_have_one_validation_set_and_each_its_own_training(tune, tmp_path, how):
    study = tune(**how).optimize()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2
    assert len({*lines(tmp_path, "data")}) == 1
    assert len({*lines(tmp_path, "loaders")}) == 1
    assert len({*lines(tmp_path, "trainings")}) == (1 if "config" in how else 2)


def test_a_replay_a_refit_and_a_second_run_have_the_same_data(tune, tmp_path):
    first = tune(n_trials=1)
    first.optimize()
    first.refit(seeds=[7])
    assert first.replay(0, tolerance=0.0).agreement is Agreement.IDENTICAL
    more = tune()
    study = more.optimize()
    assert (len(lines(tmp_path, "data")), len({*lines(tmp_path, "data")})) == (4, 1)
    assert len({*lines(tmp_path, "trainings")}) == 3
    kept = yaml.safe_load((more.directory / "study.yaml").read_text())["data_seed"]
    assert [trial.user_attrs[PROVENANCE]["data_seed"] for trial in study.trials] == [kept] * 2


def test_a_trial_from_before_there_was_a_seed_is_replayed_as_it_was(tune, tmp_path, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr("lightningtune.study.opening.data_seed", lambda study, number=None: None)
        study = tune().optimize()
    assert len({*lines(tmp_path, "data")}) == 2
    assert study.trials[0].user_attrs[PROVENANCE]["data_seed"] is None
    assert tune().replay(1, tolerance=0.0).agreement is Agreement.IDENTICAL
    assert len({*lines(tmp_path, "data")}) == 2


def test_dataloaders_that_are_made_anew_draw_anew(tune, tmp_path):
    tune(trainer={"reload_dataloaders_every_n_epochs": 1}).optimize()
    first, second, *others = lines(tmp_path, "loaders")
    assert first != second
    assert others == [first, second]


def test_what_the_data_draws_leaves_the_trials_state_alone():
    states = []
    for count in (0, 3):
        L.seed_everything(5, verbose=False)
        with data_seeded(1, "setup"):
            found = [draw() for _ in range(count)]
        states.append(draw())
        assert len({*found}) == count
    assert states[0] == states[1]
    with pytest.raises(ZeroDivisionError), data_seeded(1, "setup"):
        draw(), 1 / 0
    L.seed_everything(5, verbose=False)
    assert draw() == states[0]
    with data_seeded(None, "setup"):
        assert draw() != states[0]


def test_a_datamodule_with_seeded_hooks_is_copied_and_pickled(tmp_path):
    data = Splits(str(tmp_path))
    seed_hooks(data, 3)
    for other in (data, copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        other.setup("fit")
        assert other.setup.__wrapped__.__self__ is other
    assert len({*lines(tmp_path, "data")}) == 1
    assert len(data.train_dataloader()) == 4


def test_hooks_that_are_not_overridden_stay_lightnings():
    data = Points()
    seed_hooks(data, 3)
    assert {*vars(data)} & {"setup", "prepare_data", "train_dataloader", "val_dataloader", "test_dataloader"} == {
        "train_dataloader",
        "val_dataloader",
    }
    assert len(points()) == 16
