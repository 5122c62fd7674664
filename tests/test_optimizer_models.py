"""What a study trains, and the model that comes back from it."""

import functools
import os
import subprocess
import sys
import textwrap
import typing
import weakref
from pathlib import Path

import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from nets import Line, Points, loaders, points

from lightningtune.study.comparison import Agreement

LR = {"lr": ("loguniform", 1e-3, 1.0)}
QUICK = {"trainer": {"max_epochs": 2, "accelerator": "cpu"}}


class FromData(Line):
    @classmethod
    def from_dataset(cls, dataset, lr: float = 0.1, **kwargs):
        assert len(dataset) == 16
        return cls(lr=lr, **kwargs)


class BuiltLate(Line):
    def __init__(self, lr: float = 0.1):
        super().__init__(lr)
        self.layer, self.told = None, None

    def configure_model(self):
        if self.layer is None:
            self.layer = torch.nn.Linear(1, 1)

    def on_save_checkpoint(self, checkpoint):
        checkpoint["told"] = "hello"

    def on_load_checkpoint(self, checkpoint):
        self.told = checkpoint["told"]


def test_the_best_model_is_loaded_as_lightning_loads_it(tune):
    optimizer = tune(model_class=BuiltLate, n_trials=1)
    optimizer.optimize()
    model = optimizer.best_model()
    saved = torch.load(optimizer.results().best.checkpoint, weights_only=False)["state_dict"]
    assert model.told == "hello"
    assert torch.equal(model.layer.weight, saved["layer.weight"])


def test_a_compiled_model_comes_back_without_the_compilation(tune):
    def data():
        train, val = loaders()
        return {"train": {"a": train}, "val": CombinedLoader([val, val], "sequential")}

    class Nested(Line):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch["a"], batch_idx)

        def validation_step(self, batch, batch_idx, dataloader_idx):
            if dataloader_idx == 0:
                self.log("val_loss", self.net(batch[0]).pow(2).mean(), add_dataloader_idx=False)

    plain = tune(model_class=Nested, datamodule_class=data, n_trials=1, study_name="plain")
    optimizer = tune(
        model_class=lambda lr=0.1: torch.compile(Nested(lr), backend="eager"), datamodule_class=data, n_trials=1
    )
    assert optimizer.optimize().best_value == pytest.approx(plain.optimize().best_value)
    model = optimizer.best_model()
    assert type(model) is Nested
    assert torch.equal(model.net[0].weight, plain.best_model().net[0].weight)
    assert optimizer.replay(0).agreement is Agreement.IDENTICAL
    assert plain.check().ok


class Leaves(Line):
    """Fails, and counts how many of its kind are still in memory when one is built."""

    alive: typing.ClassVar = weakref.WeakSet()
    most = 0

    def __init__(self, lr: float = 0.1):
        super().__init__(lr)
        Leaves.most = max(Leaves.most, len(Leaves.alive))
        Leaves.alive.add(self)

    def training_step(self, batch, batch_idx):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_failed_trial_leaves_nothing_in_memory(tune):
    tune(model_class=Leaves, max_failures=9).optimize()
    assert Leaves.most == 0
    assert len(Leaves.alive) == 0


class Built(Line):
    def __init__(self, act: torch.nn.Module, optimizer: typing.Any = None, lr: float = 0.1):
        super().__init__(lr)
        self.save_hyperparameters()
        self.act = act


ELU = {"class_path": "torch.nn.ELU", "init_args": {"alpha": 2.0}}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Lightning calls what jsonargparse deprecates
@pytest.mark.filterwarnings("ignore:Attribute 'act' is an instance of `nn.Module`")
@pytest.mark.parametrize("form", ["plain", "cli"])
def test_a_checkpoint_of_a_model_with_blocks_loads_with_weights_only(tune, form):
    block = {"class_path": f"{Built.__module__}.Built", "init_args": {"act": ELU}}
    if form == "cli":
        sys.modules.setdefault(Built.__module__, sys.modules[__name__])
    optimizer = tune(
        base_config={**QUICK, "model": {"act": ELU} if form == "plain" else block},
        model_class=Built if form == "plain" else None,
    )
    study = optimizer.optimize()
    path = optimizer.directory / "best" / "model.ckpt"
    model = Built.load_from_checkpoint(path, weights_only=True)
    assert (model.act.alpha, model.hparams.lr) == (2.0, study.best_params["lr"])
    saved = torch.load(path, weights_only=True)["hyper_parameters"]
    assert saved["act"] == ELU | {"init_args": {"alpha": 2.0, "inplace": False}}


def test_the_best_model_scores_what_the_study_says(tune):
    optimizer = tune()
    study = optimizer.optimize()
    model = optimizer.best_model()
    assert not model.training
    assert model.hparams.lr == study.best_params["lr"]
    with torch.no_grad():
        loss = model.net(points().tensors[0]).pow(2).mean().item()
    assert loss == pytest.approx(study.best_value, rel=1e-6)


@pytest.mark.slow
def test_lightning_cli_runs_the_best_config(tune, tmp_path):
    optimizer = tune()
    optimizer.optimize()
    script = tmp_path / "train.py"
    script.write_text(
        "from lightning.pytorch.cli import LightningCLI\nfrom nets import Line, Points\nLightningCLI(Line, Points)\n"
    )
    command = [
        sys.executable,
        script,
        "fit",
        "--config",
        optimizer.directory / "best/config.yaml",
        "--trainer.logger=false",
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, capture_output=True)


def build(lr: float, width: int = 2):
    return Line(lr, width)


@pytest.mark.parametrize(
    "model",
    [
        build,
        functools.partial(build, width=3),
        functools.partial(FromData.from_dataset, points()),
        lambda lr=0.1: Line(lr),
    ],
    ids=["function", "partial", "classmethod", "lambda"],
)
@pytest.mark.parametrize(
    "data", [Points, loaders, functools.partial(loaders, batch_size=4)], ids=["class", "loaders", "partial"]
)
def test_model_and_data_may_be_any_callable(tune, model, data):
    optimizer = tune(
        model_class=model, datamodule_class=data, search_space={**LR, "batch_size": ("int", 4, 8)}, n_trials=2
    )
    study = optimizer.optimize()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2
    assert optimizer.best_model().lr == optimizer.get_best_config()["model"]["lr"]


def test_names_that_kwargs_swallow_are_passed_on(tune):
    model = functools.partial(FromData.from_dataset, points())
    optimizer = tune(model_class=model, search_space={"model.width": ("int", 2, 5)}, n_trials=2)
    study = optimizer.optimize()
    assert optimizer.best_model().hparams.width == study.best_params["model.width"]


def test_a_lightning_cli_config_needs_no_classes(tune, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(
        textwrap.dedent(
            """
            seed_everything: 3
            model: {class_path: nets.Line, init_args: {width: 3}}
            data: {class_path: nets.Points}
            trainer:
              max_epochs: 2
              accelerator: cpu
              callbacks:
                - class_path: lightning.pytorch.callbacks.EarlyStopping
                  init_args: {monitor: val_loss, patience: 1}
            ckpt_path: null
            """
        )
    )
    space = {"model.init_args.lr": ("loguniform", 1e-3, 1.0), "trainer.callbacks.0.patience": ("int", 1, 3)}
    optimizer = tune(base_config=config, model_class=None, datamodule_class=None, search_space=space)
    study = optimizer.optimize()
    assert study.trials[0].params == {"model.init_args.lr": 0.1, "trainer.callbacks.0.patience": 1}
    best = optimizer.get_best_config()
    assert best["seed_everything"] == 3
    assert best["trainer"]["callbacks"][0]["init_args"]["patience"] == study.best_params["trainer.callbacks.0.patience"]
