"""What the facade refuses, or tells, before anything is trained."""

import shutil

import lightning as L
import optuna
import pytest
from lightning.pytorch.callbacks import EarlyStopping
from nets import Line, Points, loaders

from lightningtune import ConfigurationError
from lightningtune.contract import Objective, SilentReporter
from lightningtune.training.callback import TrialCallback

LR = {"lr": ("loguniform", 1e-3, 1.0)}
CLIP = {"trainer.gradient_clip_val": ("uniform", 0.1, 1.0)}
QUICK = {"trainer": {"max_epochs": 2, "accelerator": "cpu"}}


class Broken(Line):
    def training_step(self, batch, batch_idx):
        raise ValueError("shapes do not match")


class Uncopied(L.Callback):
    def __deepcopy__(self, memo):
        raise TypeError("there is one of me")


def test_a_changed_direction_metric_or_seed_is_refused(tune):
    tune().optimize()
    for change, message in (
        ({"direction": "maximize"}, "exists with direction"),
        ({"metric": "val_acc"}, "exists with metric"),
        ({"seed": 5}, "exists with seed"),
        ({"load_if_exists": False}, "exists already"),
        ({"search_space": {"lr": ("categorical", [0.1, 0.2])}}, "exists with 'lr' as FloatDistribution"),
        ({"search_space": {"lr": ("uniform", 1e-3, 1.0)}}, "exists with 'lr' as FloatDistribution"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            tune(**change).optimize()


def test_what_has_changed_since_the_last_run_is_told(tune, capsys):
    tune(n_trials=1, verbose=True).optimize()
    tune(n_trials=2, verbose=True).optimize()
    assert "Changed since" not in capsys.readouterr().out
    changed = {
        "base_config": {"trainer": {"max_epochs": 1, "accelerator": "cpu"}},
        "pruner": optuna.pruners.NopPruner(),
    }
    optimizer = tune(n_trials=3, verbose=True, **changed)
    optimizer.optimize()
    assert capsys.readouterr().out.startswith(
        "Changed since the last run, for the trials that follow: base_config.trainer.max_epochs 2 → 1; "
        "pruner MedianPruner → NopPruner.\n"
    )
    tune(n_trials=3, verbose=True).optimize()
    assert capsys.readouterr().out.startswith("Changed since the last run, but no trial is left to run: ")
    (optimizer.directory / "study.yaml").write_text("{")
    tune(n_trials=4, verbose=True).optimize()
    assert "Changed since" not in capsys.readouterr().out


class Other(Line):
    pass


@pytest.mark.parametrize("is_stored_elsewhere", [False, True])
def test_a_study_of_another_model_data_or_space_is_refused_though_it_is_over(tune, tmp_path, is_stored_elsewhere):
    storage = optuna.storages.InMemoryStorage() if is_stored_elsewhere else None
    optimizer = tune(n_trials=1, storage=storage)
    optimizer.optimize()
    if is_stored_elsewhere:
        shutil.rmtree(optimizer.directory)
    with_subclass = {**QUICK, "model": {"class_path": f"{__name__}.Other"}}
    for change, message in (
        (
            {"model_class": Other},
            rf"exists with model_class=nets\.Line, but model_class={__name__}\.Other is asked for",
        ),
        ({"base_config": with_subclass}, rf"but model_class={__name__}\.Other is asked for"),
        ({"datamodule_class": loaders}, r"datamodule_class=nets\.Points, but datamodule_class=nets\.loaders is"),
        ({"search_space": {"width": ("int", 2, 4)}}, "with the parameter lr, but the parameter width is asked for"),
        ({"search_space": {**LR, "width": ("int", 2, 4)}}, "but the parameters lr, width is asked for"),
        ({"search_space": lambda trial: {"width": trial.suggest_int("width", 2, 4)}}, "but the parameter width is"),
    ):
        other = tune(n_trials=1, storage=storage, **change)
        for ask in (other.optimize, other.results, other.best_model):
            with pytest.raises(ConfigurationError, match=message) as refused:
                ask()
        elsewhere = " --storage URL" if is_stored_elsewhere else ""
        assert f"remove the stored study with 'lightningtune rm{elsewhere} {tmp_path}/optuna_study'." in str(
            refused.value
        )
    assert len(tune(n_trials=2, storage=storage).optimize().trials) == 2


def test_a_study_in_which_nothing_worked_may_become_another(tune):
    tune(model_class=Broken, n_trials=1).optimize()
    study = tune(search_space={"width": ("int", 2, 4)}, n_trials=1).optimize()
    assert study.best_params.keys() == {"width"}
    with pytest.raises(ConfigurationError, match="exists with the parameter width"):
        tune().optimize()


def test_the_parameters_of_a_function_may_change_in_part_and_that_is_told(tune, capsys):
    def space(trial, last="width"):
        if trial.suggest_float("lr", 1e-3, 1.0) > 0.5:
            trial.suggest_int(last, 2, 4)

    tune(search_space=space, n_trials=1, verbose=True).optimize()
    tune(search_space=space, n_trials=2, verbose=True).optimize()
    assert "Changed since" not in capsys.readouterr().out
    tune(search_space=lambda trial: space(trial, "explode_at"), n_trials=3, verbose=True).optimize()
    out = capsys.readouterr().out
    assert "parameters ['lr', 'width'] → ['explode_at', 'lr']" in out.splitlines()[0]


def test_a_wider_range_goes_on(tune):
    tune().optimize()
    study = tune(search_space={"lr": ("loguniform", 1e-4, 5.0)}, n_trials=5).optimize()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 5


def test_a_folder_that_cannot_be_made_is_named(tune, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="file/optuna_study' cannot be made"):
        tune(experiment_dir=tmp_path / "file").optimize()


def build(lr: float, width: int = 2):
    return Line(lr, width)


SLURM = {"class_path": "lightning.pytorch.plugins.environments.SLURMEnvironment"}
SPAWNS = {"class_path": "DDPStrategy", "init_args": {"start_method": "spawn"}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_nodes": 2, "strategy": "ddp"}, "a trial trains on one machine, but num_nodes is 2"),
        ({"strategy": SPAWNS}, "DDPStrategy starts processes in a way of its own"),
        ({"plugins": [SLURM]}, "SLURMEnvironment says that a launcher starts the processes"),
        ({"strategy": {"class_path": "DDPStrategy", "init_args": {"cluster_environment": SLURM}}}, "SLURMEnvironment"),
        ({"barebones": True}, "barebones"),
        ({"check_val_every_n_epoch": 5, "max_epochs": 2}, "val_loss"),
    ],
)
def test_settings_that_break_the_contract_are_refused(tune, settings, message):
    with pytest.raises(ConfigurationError, match=message):
        tune(base_config={"trainer": {**QUICK["trainer"], **settings}}).optimize()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"search_space": {"lrr": ("int", 1, 2)}}, "Did you mean 'lr'"),
        ({"search_space": {"model.learning_rate": ("uniform", 0, 1)}}, "Did you mean 'model.lr'"),
        ({"search_space": {"width": ("uniform", 1, 2)}}, "'width'=1.0 does not fit"),
        ({"search_space": {"act": ("categorical", ["relu", [1]])}}, "'act'=.* does not fit"),
        ({"search_space": lambda trial: trial.suggest_float("lrr", 0, 1) and None}, "Did you mean 'lr'"),
        ({"search_space": lambda trial: 1 / 0}, "raised ZeroDivisionError"),
        ({"search_space": None}, "nothing to tune"),
        ({"search_space": 3}, "A search space is"),
        ({"search_space": {"lr": (1e-3, 1e-1)}}, r"Did you mean \('uniform', 0.001, 0.1\)"),
        ({"search_space": {"act": ["relu", "gelu"]}}, r"Did you mean \('categorical', \['relu', 'gelu'\]\)"),
        ({"base_config": {"trainr": {}}}, "Did you mean 'trainer'"),
        ({"base_config": {"trainer": {"max_epoch": 3}}}, "Did you mean 'trainer.max_epochs'"),
        ({"base_config": {"trainer": {"max_epochs": "many"}}}, "^The config is not valid. trainer.max_epochs: "),
        ({"base_config": {"model": {"widht": 3}}}, "Did you mean 'model.width'"),
        (
            {"base_config": {"model": {"class_path": "nets.Line", "init_arg": {}}}, "model_class": None},
            "'model.init_arg' may not stand beside class_path. Did you mean 'init_args'?",
        ),
        (
            {"base_config": {"model": {"class_path": "nets.Line", "width": 3}}, "model_class": None},
            "'model.width' may not stand beside class_path. Arguments belong into 'model.init_args'.",
        ),
        (
            {"base_config": {"model": {"clas_path": "nets.Line"}}, "model_class": None, "search_space": CLIP},
            "There is 'clas_path'. Did you mean 'class_path'?",
        ),
        (
            {"base_config": {"model": {"class_path": "nets.Lin"}}, "model_class": None},
            "'nets' has no 'Lin'. Did you mean 'Line'",
        ),
        ({"base_config": "missing.yaml"}, "missing.yaml.* does not exist"),
        ({"base_config": 3}, "base_config must be"),
        ({"model_class": None}, "model_class"),
        ({"model_class": Points}, "must derive from"),
        ({"model_class": Line()}, "must be a class"),
        ({"datamodule_class": Line}, "must derive from"),
        ({"sampler": "tpe"}, r"sampler must be .* Did you mean optuna\.samplers\.TPESampler\(\)\?"),
        ({"datamodule_class": []}, "Dataloaders are returned by a function"),
        ({"sampler": optuna.samplers.TPESampler}, r"Did you mean TPESampler\(\)"),
        ({"pruner": "median"}, "pruner must be"),
        ({"direction": "max"}, "Did you mean 'maximize'"),
        ({"direction": ["minimize", "maximize"]}, "metric names 1"),
        ({"direction": None}, "direction must be"),
        ({"metric": ""}, "A metric is given by its name, several by different ones, but got ''"),
        ({"metric": None}, "A metric is given by its name"),
        ({"n_trials": 0}, "n_trials must be an integer from 1"),
        ({"n_trials": None}, "n_trials must be an integer from 1"),
        ({"n_trials": 2.5}, "n_trials"),
        ({"seed": -1}, "seed"),
        ({"save_top_k": 0}, "save_top_k"),
        ({"score": "lats"}, "Did you mean 'last'"),
        ({"non_finite": "stop"}, "non_finite must be one of"),
        ({"study_name": "a/b"}, "study_name"),
        ({"study_name": 3}, "study_name"),
        ({"experiment_dir": 3}, "experiment_dir"),
        ({"baseline": "yes"}, "baseline must be"),
        ({"baseline": {"lrr": 0.1}}, "no value for 'lr'. 'lrr' is given. Did you mean 'lr'"),
        (
            {"baseline": {"lr": 5}, "search_space": lambda trial: {1: None}[trial.suggest_int("lr", 1, 1)]},
            "KeyError: 5",
        ),
        (
            {"sampler": optuna.samplers.GridSampler({"model.lr": [0.1]})},
            "GridSampler cannot sample this search space: The parameter name, lr, is not found",
        ),
        ({"baseline": {"model.lr": 0.1}}, "no value for 'lr'. 'model.lr' is given. Did you mean 'lr'"),
        ({"baseline": {"lr": "high"}}, "baseline: lr='high' is not a number"),
        ({"callbacks": [lambda: None]}, "callbacks takes"),
        ({"callbacks": [TrialCallback(Objective(("a",), ("min",)), SilentReporter())]}, "for an objective of your own"),
        ({"timeout": -1}, "timeout must be"),
        ({"timeout": "1h"}, "timeout must be"),
        ({"catch": 3}, "catch must be"),
        ({"load_if_exists": "no"}, "load_if_exists must be"),
        ({"callbacks": [3]}, "callbacks takes"),
        ({"callbacks": [EarlyStopping("val_loss", mode="max")]}, "Did you mean mode='min'"),
        ({"callbacks": [Uncopied()]}, "copy of Uncopied, which cannot be copied"),
        ({"base_config": {"trainer": {"callbacks": [EarlyStopping("val_loss")]}}}, r"Pass objects as callbacks="),
        ({"base_config": {"model": {"class_path": "nets.Line"}}, "model_class": loaders}, "Leave one out"),
        ({"storage": 3}, "storage must be"),
        ({"save_checkpoints": "no"}, "save_checkpoints must be True or False"),
        ({"verbose": 2}, "verbose must be True or False"),
        ({"callbacks": EarlyStopping("val_loss")}, "must be a list"),
        ({"storge": "sqlite:///x.db"}, "Did you mean 'storage'"),
        ({"n_trial": 3}, "Did you mean 'n_trials'"),
        ({"n_jobs": 0}, "n_jobs"),
        ({"trial_timeout": -1}, "trial_timeout"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_a_mistake_is_refused_before_anything_is_written(tune, tmp_path, wrong, message):
    with pytest.raises(ConfigurationError, match=message):
        tune(**wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"base_config": {"trainer": {"accelerator": "gpuu"}}}, "trainer: .*gpuu.*Available names"),
        ({"base_config": {"trainer": {"accelerator": "tpu"}}}, "trainer: "),
        ({"base_config": {"trainer": {"strategy": "dpp", "accelerator": "cpu"}}}, "trainer: .*dpp"),
        ({"datamodule_class": None}, "There is no data"),
        ({"datamodule_class": lambda: 3}, "datamodule_class must build"),
        ({"base_config": {"trainer": {"barebones": True}}}, "barebones"),
    ],
)
def test_what_only_building_shows_is_refused_before_the_first_epoch(tune, wrong, message):
    optimizer = tune(**wrong)
    with pytest.raises(ConfigurationError, match=message):
        optimizer.optimize()
    assert optimizer.results().counts in ({}, {"fail": 1, "waiting": 1}, {"fail": 1})


@pytest.mark.parametrize("seeds", ["x", -1, [1, "a"], 1.0, [1, 1]])
def test_a_refit_takes_seeds_and_nothing_else(tune, seeds):
    optimizer = tune(n_trials=1)
    optimizer.optimize()
    with pytest.raises(ConfigurationError, match=r"seeds\[\d\] must be an integer|a seed twice"):
        optimizer.refit(seeds=seeds)


def test_a_class_of_the_other_lightning_is_refused(tune):
    pytorch_lightning = pytest.importorskip("pytorch_lightning")

    class Other(pytorch_lightning.LightningModule):
        pass

    with pytest.raises(ConfigurationError, match="Import lightning.pytorch instead"):
        tune(model_class=Other)
