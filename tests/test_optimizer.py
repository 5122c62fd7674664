"""Whole studies through the facade, with real Trainers and real files."""

import functools
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import typing
import weakref
from pathlib import Path

import lightning as L
import optuna
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import CombinedLoader
from nets import Line, Points, PrunesItself, loaders, points
from reported import needs_optuna_5

from lightningtune import ConfigurationError, NoResultError, OptunaDrivenOptimizer, TrialError, tunable
from lightningtune.contract import Objective, SilentReporter
from lightningtune.study.comparison import Agreement
from lightningtune.study.tally import count_finished
from lightningtune.training.callback import TrialCallback

LR = {"lr": ("loguniform", 1e-3, 1.0)}
CLIP = {"trainer.gradient_clip_val": ("uniform", 0.1, 1.0)}
QUICK = {"trainer": {"max_epochs": 2, "accelerator": "cpu"}}


@pytest.fixture
def tune(tmp_path):
    """Build an optimizer with small defaults, each of which a test may replace."""

    def build(**changed):
        given = {
            "base_config": QUICK,
            "search_space": LR,
            "model_class": Line,
            "datamodule_class": Points,
            "n_trials": 3,
            "experiment_dir": tmp_path,
            "verbose": False,
            "seed": 0,
        }
        return OptunaDrivenOptimizer(**{**given, **changed})

    return build


class CountFits(L.Callback):
    fits = 0

    def on_fit_start(self, trainer, pl_module):
        self.fits += 1
        assert self.fits == 1, "each trial gets a fresh copy"


class OutOfMemory(Line):
    def training_step(self, batch, batch_idx):
        if self.lr != 0.1:  # the baseline fits
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return super().training_step(batch, batch_idx)


class Broken(Line):
    def training_step(self, batch, batch_idx):
        raise ValueError("shapes do not match")


class Unlogged(Line):
    def validation_step(self, batch, batch_idx):
        self.log("valid_loss", 1.0)


class FromData(Line):
    @classmethod
    def from_dataset(cls, dataset, lr: float = 0.1, **kwargs):
        assert len(dataset) == 16
        return cls(lr=lr, **kwargs)


class Uncopied(L.Callback):
    def __deepcopy__(self, memo):
        raise TypeError("there is one of me")


class PruneAfterFirst(optuna.pruners.BasePruner):
    def prune(self, study, trial):
        return trial.number > 0


# --- what comes back ---------------------------------------------------------------------------------------------


def test_optimize_returns_the_optuna_study_and_uses_what_is_injected(tune, tmp_path):
    sampler, pruner = optuna.samplers.RandomSampler(seed=1), optuna.pruners.NopPruner()
    storage = optuna.storages.InMemoryStorage()
    study = tune(sampler=sampler, pruner=pruner, storage=storage, study_name="mine").optimize()
    assert isinstance(study, optuna.Study)
    assert study.sampler is sampler
    assert study.pruner is pruner
    assert optuna.load_study(study_name="mine", storage=storage).best_value == study.best_value
    assert not (tmp_path / "mine" / "journal.log").exists()


def test_the_folder_holds_what_ran(tune, tmp_path):
    study = tune(study_name="s").optimize()
    root = tmp_path / "s"
    assert sorted(p.name for p in root.iterdir()) == ["best", "journal.log", "report.html", "study.yaml", "trials"]
    for trial in study.trials:
        config = yaml.safe_load((root / f"trials/{trial.number:04d}/config.yaml").read_text())
        assert config["model"]["lr"] == trial.params["lr"]
        assert "val_loss" in (root / f"trials/{trial.number:04d}/metrics.csv").read_text()
    with_weights = sorted(p.relative_to(root).as_posix() for p in root.glob("trials/*/*.ckpt"))
    best = f"trials/{study.best_trial.number:04d}"
    assert with_weights == [f"{best}/best.ckpt"]
    assert (root / "best/config.yaml").read_text() == (root / best / "config.yaml").read_text()
    assert (root / "best/model.ckpt").read_bytes() == (root / best / "best.ckpt").read_bytes()


@pytest.mark.parametrize(("top_k", "kept"), [(1, 1), (2, 2), (5, 3)])
def test_the_weights_of_the_top_k_trials_are_kept(tune, top_k, kept):
    optimizer = tune(save_top_k=top_k)
    study = optimizer.optimize()
    expected = sorted(study.trials, key=lambda t: t.value)[:kept]
    found = {int(p.parent.name) for p in optimizer.directory.glob("trials/*/best.ckpt")}
    assert found == {t.number for t in expected}
    assert len(list(optimizer.directory.glob("trials/*/config.yaml"))) == 3


def test_no_checkpoint_is_written_when_none_is_wanted(tune):
    optimizer = tune(save_checkpoints=False)
    optimizer.optimize()
    assert not list(optimizer.directory.rglob("*.ckpt"))
    with pytest.raises(TrialError, match="save_checkpoints=False"):
        optimizer.best_model()


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


def test_the_score_is_the_best_value_unless_asked_otherwise(tune):
    class Worsens(Line):
        def on_validation_epoch_end(self):
            self.log("val_loss", float(self.current_epoch))

        def validation_step(self, batch, batch_idx): ...

    config = {"trainer": {"max_epochs": 3, "accelerator": "cpu"}}
    values = {
        name: tune(base_config=config, model_class=Worsens, score=score, study_name=name, n_trials=1)
        .optimize()
        .best_value
        for name, score in {"best": "best", "last": "last", "mean": lambda values: sum(values) / len(values)}.items()
    }
    assert values == {"best": 0.0, "last": 2.0, "mean": 1.0}


def test_the_best_config_runs_as_it_is(tune, tmp_path):
    optimizer = tune(search_space={**LR, "trainer.gradient_clip_val": ("categorical", [0.5, 1.0])})
    study = optimizer.optimize()
    again = tune(base_config=optimizer.get_best_config(), n_trials=1, study_name="again").optimize()
    assert again.trials[0].value == study.best_value
    assert optimizer.get_best_config(1)["model"]["lr"] == study.trials[1].params["lr"]


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


def test_refit_trains_the_best_config_again_for_each_seed(tune):
    optimizer = tune()
    study = optimizer.optimize()
    same, *_ = optimizer.refit()
    assert same.score == (study.best_value,)
    longer = optimizer.refit(max_epochs=4, seeds=[1, 2])
    assert [refit.seed for refit in longer] == [1, 2]
    assert longer[0].score != longer[1].score
    assert longer[0].checkpoint.exists()
    assert yaml.safe_load((longer[0].directory / "config.yaml").read_text())["trainer"]["max_epochs"] == 4
    assert len(study.trials) == 3


# --- the study as a whole ----------------------------------------------------------------------------------------


def test_n_trials_is_the_total_and_a_larger_one_extends(tune):
    assert len(tune(n_trials=2).optimize().trials) == 2
    assert len(tune(n_trials=2).optimize().trials) == 2
    longer = tune(n_trials=5).optimize()
    assert len(longer.trials) == 5
    assert len({trial.params["lr"] for trial in longer.trials}) == 5, "a continued sampler does not repeat its points"


def test_the_same_seed_gives_the_same_study(tune):
    def outcome(name, seed):
        study = tune(study_name=name, seed=seed, n_trials=5).optimize()
        return [(trial.params, trial.value, trial.intermediate_values) for trial in study.trials]

    assert outcome("one", 7) == outcome("two", 7)
    assert outcome("three", 8) != outcome("one", 7)


def test_a_study_leaves_the_environment_as_it_was(tune):
    before = dict(os.environ)
    tune(n_trials=1).optimize()
    assert dict(os.environ) == before


def test_a_study_does_not_disturb_its_caller(tune):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    levels = [logging.getLogger(name).level for name in ("lightning.pytorch", "optuna")]
    handler = signal.getsignal(signal.SIGINT)
    tune().optimize()
    assert torch.equal(before, torch.get_rng_state())
    assert levels == [logging.getLogger(name).level for name in ("lightning.pytorch", "optuna")]
    assert signal.getsignal(signal.SIGINT) is handler


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


def test_optuna_callbacks_are_called_and_lightning_callbacks_copied(tune):
    seen = []
    mine = CountFits()
    tune(callbacks=[lambda study, trial: seen.append(trial.number), mine]).optimize()
    assert seen == [0, 1, 2]
    assert mine.fits == 0


def test_an_optuna_callback_may_stop_the_study(tune):
    study = tune(callbacks=[lambda study, trial: study.stop()]).optimize()
    assert len(study.trials) == 1


def test_timeout_ends_the_study(tune):
    assert count_finished(tune(timeout=0.0).optimize()) == 0


@pytest.mark.parametrize("storage", ["sqlite", "path", "object"])
def test_any_storage_works(tune, tmp_path, storage):
    given = {
        "sqlite": f"sqlite:///{tmp_path}/study.db",
        "path": tmp_path / "elsewhere" / "study.log",
        "object": optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/other.db"),
    }[storage]
    assert len(tune(storage=given).optimize().trials) == 3
    assert len(tune(storage=given, n_trials=4).optimize().trials) == 4


def test_several_objectives_keep_the_pareto_front(tune):
    optimizer = tune(
        search_space={"width": ("categorical", [1, 4, 16]), "lr": ("loguniform", 1e-3, 1.0)},
        metric=["val_loss", "size"],
        direction=["minimize", "minimize"],
        n_trials=6,
    )
    study = optimizer.optimize()
    front = {trial.number for trial in study.best_trials}
    assert {int(p.parent.name) for p in optimizer.directory.glob("trials/*/best.ckpt")} == front
    assert {trial.number for trial in optimizer.results().best_trials} == front
    assert not (optimizer.directory / "best").exists(), "none of them is the best"
    for trial in study.trials:
        assert trial.values[1] == 4 * trial.params["width"] + 1
    if len(front) > 1:
        with pytest.raises(NoResultError, match="objectives"):
            optimizer.best_model()
    assert optimizer.best_model(min(front)) is not None


def test_the_only_one_on_a_front_is_the_best(tune):
    optimizer = tune(metric=["val_loss", "val_acc"], direction=["minimize", "maximize"])
    study = optimizer.optimize()
    assert [trial.number for trial in study.best_trials] == [optimizer.results().best.number]
    assert optimizer.best_model().lr == study.best_trials[0].params["lr"]


# --- the baseline ------------------------------------------------------------------------------------------------


def test_the_untuned_defaults_are_the_first_trial(tune):
    optimizer = tune(search_space={**LR, "data.batch_size": ("int", 4, 16)})
    study = optimizer.optimize()
    assert study.trials[0].params == {"lr": 0.1, "data.batch_size": 8}
    results = optimizer.results()
    assert results.baseline.number == 0
    assert results.improvement == pytest.approx(results.baseline.value - study.best_value)
    assert results.improvement >= 0


def test_a_default_outside_its_range_is_tried_all_the_same(tune):
    assert tune(search_space={"lr": ("uniform", 0.2, 0.5)}).optimize().trials[0].params == {"lr": 0.1}


def test_the_base_config_is_the_baseline(tune):
    config = {**QUICK, "model": {"lr": 0.5}}
    assert tune(base_config=config).optimize().trials[0].params == {"lr": 0.5}


def test_the_baseline_can_be_left_out_or_given(tune):
    assert tune(baseline=False, study_name="none").optimize().trials[0].params != {"lr": 0.1}
    given = tune(baseline={"lr": 0.25}, study_name="given")
    assert given.optimize().trials[0].params == {"lr": 0.25}
    assert given.results().baseline.number == 0
    with pytest.raises(ConfigurationError, match="lrr"):
        tune(baseline={"lr": 0.25, "lrr": 1}, study_name="wrong")


def test_a_baseline_may_be_given_by_its_values(tune):
    space = {"width": ("categorical", [[4], [8]])}
    build = {"model_class": lambda width=(4,): Line(width=width[0]), "search_space": space, "n_trials": 1}
    assert tune(**build, baseline={"width": [8]}).optimize().trials[0].params == {"width": "[8]"}


def test_defaults_outside_the_space_are_told_of(tune, capsys):
    tune(search_space={"lr": ("uniform", 0.5, 1.0)}, n_trials=1, verbose=True).optimize()
    said = " ".join(capsys.readouterr().out.split())
    assert "lie outside the search space, and are tried first all the same: lr=0.1 (uniform 0.5 … 1.0)" in said


def prunes_the_defaults(trial):
    if trial.suggest_float("lr", 0.01, 0.2) == 0.1:
        raise optuna.TrialPruned


def test_a_function_that_does_not_take_the_defaults_goes_on_without(tune, capsys):
    study = tune(search_space=prunes_the_defaults, verbose=True).optimize()
    assert len(study.trials) == 3
    assert "not tried first: the search space raises TrialPruned for them. See baseline=." in capsys.readouterr().out


def test_defaults_that_are_no_point_of_the_space_are_told_of(tune, capsys):
    optimizer = tune(search_space={"act": ("categorical", ["gelu", "tanh"])}, verbose=True)
    assert optimizer.optimize().trials[0].params["act"] in {"gelu", "tanh"}
    assert "act='relu' is not among its choices" in " ".join(capsys.readouterr().out.split())


def depth_decides(trial):
    depth = trial.suggest_int("depth", 1, 2)
    return {"model.width": trial.suggest_int(f"width_{depth}", 2, 8)}


def test_what_is_queued_and_not_in_the_space_is_refused_or_told_of(tune, caplog):
    optimizer = tune(baseline=False, n_trials=1)
    optimizer.study.enqueue_trial({"learning_rate": 0.01})
    with pytest.raises(
        ConfigurationError, match=r"'learning_rate' is no parameter .* Did you mean 'lr'\? It has: lr\."
    ):
        optimizer.optimize()
    optimizer = tune(baseline=False, n_trials=2, study_name="function", search_space=depth_decides)
    optimizer.study.enqueue_trial({"depth": 1, "width_1": 2, "width_2": 8})
    optimizer.study.enqueue_trial({"depth": 2, "width_2": 9})
    assert [trial.params for trial in optimizer.optimize().trials] == [
        {"depth": 1, "width_1": 2},
        {"depth": 2, "width_2": 9},
    ]
    assert [record.getMessage() for record in caplog.records if "queued" in record.getMessage()] == [
        "Trial 0: 'width_2' was queued, and is ignored: the space does not suggest it here.",
        "Trial 1: width_2=9 was queued, and is tried outside its range (int 2 … 8).",
    ]


# --- ways to say what to build -----------------------------------------------------------------------------------


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


def test_the_space_comes_from_decorated_classes(tune):
    @tunable(search_space=LR)
    class Net(Line):
        pass

    @tunable(search_space={"batch_size": ("int", 4, 8)})
    class Data(Points):
        pass

    study = tune(model_class=Net, datamodule_class=Data, search_space=None).optimize()
    assert set(study.trials[0].params) == {"lr", "batch_size"}


def test_a_function_is_a_space_and_its_helper_choices_reach_no_config(tune):
    def space(trial):
        big = trial.suggest_categorical("big", [True, False])
        return {"model.width": 8 if big else trial.suggest_int("small_width", 1, 3), "model.lr": 0.2}

    optimizer = tune(search_space=space, n_trials=4)
    study = optimizer.optimize()
    for trial in study.trials:
        width = optimizer.get_best_config(trial.number)["model"]["width"]
        assert width == (8 if trial.params["big"] else trial.params["small_width"])


@needs_optuna_5
def test_constraints_stated_in_the_space_hold(tune):
    def space(trial):
        lr = trial.suggest_float("lr", 1e-3, 1.0, log=True)
        trial.set_constraint("not the best", 1.0 if lr == 0.1 else -1.0)

    optimizer = tune(search_space=space, n_trials=4)
    study = optimizer.optimize()
    assert study.trials[0].params["lr"] == 0.1
    assert optimizer.results().best.number == study.best_trial.number != 0


# --- the user's trainer settings ---------------------------------------------------------------------------------


class Look(L.Callback):
    def __init__(self):
        self.seen = []

    def on_fit_start(self, trainer, pl_module):
        bar = trainer.progress_bar_callback is not None
        self.seen.append((bar, trainer.num_sanity_val_steps, trainer.default_root_dir, len(trainer.loggers)))

    def __deepcopy__(self, memo):
        return self


def test_user_settings_win(tune, tmp_path):
    mine = {"enable_progress_bar": True, "num_sanity_val_steps": 1, "default_root_dir": str(tmp_path), "logger": False}
    look = Look()
    study = tune(base_config={"trainer": {**QUICK["trainer"], **mine}}, n_trials=1, callbacks=[look]).optimize()
    assert look.seen == [(True, 1, str(tmp_path / study.study_name / "0000"), 0)]


def test_a_whole_cli_config_leaves_the_defaults_as_they_are(tune, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(L.Trainer, "trainer")
    trainer = yaml.safe_load(parser.dump(parser.get_defaults(), skip_unset=False))["trainer"]
    assert trainer["logger"] is None
    optimizer = tune(base_config={"trainer": {**trainer, **QUICK["trainer"]}}, n_trials=2)
    optimizer.optimize()
    assert len([*optimizer.directory.glob("trials/*/metrics.csv")]) == 2
    assert not (tmp_path / "lightning_logs").exists()
    assert "Params" not in capfd.readouterr().out


def test_callbacks_of_the_user_work_beside_ours(tune):
    callbacks = [EarlyStopping("val_loss", patience=1), ModelCheckpoint(filename="mine", monitor="val_loss")]
    optimizer = tune(callbacks=callbacks)
    study = optimizer.optimize()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    mine = [path.relative_to(optimizer.directory).parts[1] for path in optimizer.directory.rglob("mine.ckpt")]
    assert mine == [f"{study.best_trial.number:04d}"]


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


# --- failures ----------------------------------------------------------------------------------------------------


def test_a_failing_trial_is_recorded_and_the_study_goes_on(tune):
    optimizer = tune(
        search_space={"lr": ("categorical", [0.1, 9.5])},
        n_trials=8,
        sampler=optuna.samplers.RandomSampler(seed=0),
        max_failures=8,
    )
    study = optimizer.optimize()
    failed = [trial for trial in study.trials if trial.state.name == "FAIL"]
    assert failed
    assert all(trial.params["lr"] == 9.5 for trial in failed)
    for trial in failed:
        assert trial.user_attrs["lightningtune:detail"] == "RuntimeError: lr 9.500 is too high"
        text = (optimizer.directory / f"trials/{trial.number:04d}/error.txt").read_text()
        assert "in training_step" in text
    assert study.best_trial.state.name == "COMPLETE"


class PruningData(Points):
    def __init__(self, at: str = "nowhere"):
        super().__init__()
        self.at = at

    def setup(self, stage):
        if self.at == "data":
            raise optuna.TrialPruned("not worth it, says the data")


class PruningCallback(L.Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        pl_module.reach("callback")


@pytest.mark.parametrize("isolate", [False, True])
def test_a_trial_is_pruned_wherever_its_code_raises_the_signal(tune, isolate):
    places = ["nowhere", "model", "setup", "step", "callback", "data", "space"]

    def space(trial):
        at = trial.suggest_categorical("at", places)
        if at == "space":
            raise optuna.TrialPruned("not worth it, says the space")
        return {"model.at": at, "data.at": at}

    optimizer = tune(
        search_space=space,
        model_class=PrunesItself,
        datamodule_class=PruningData,
        callbacks=[PruningCallback()],
        sampler=optuna.samplers.GridSampler({"at": places}),
        baseline=False,
        n_trials=len(places),
        isolate=isolate,
    )
    study = optimizer.optimize()
    ended = {trial.params["at"]: trial for trial in study.trials}
    assert ended.pop("nowhere").state.name == "COMPLETE"
    assert {trial.state.name for trial in ended.values()} == {"PRUNED"}
    assert {trial.user_attrs["lightningtune:detail"] for trial in ended.values()} == {
        f"not worth it, says the {place}" for place in places[1:]
    }
    assert not list(optimizer.directory.glob("trials/*/error.txt"))


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("fixed", [False, True])
def test_a_study_whose_sampler_has_no_point_left_ends_and_trains_nothing_when_it_is_run_again(tune, fixed, capsys):
    def exhaustive():
        grid = optuna.samplers.GridSampler({"width": [2, 3]})
        whole = optuna.samplers.PartialFixedSampler({"width": 3}, optuna.samplers.BruteForceSampler(seed=1))
        return tune(
            search_space={"width": ("int", 2, 3)},
            sampler=whole if fixed else grid,
            n_trials=9,
            baseline=False,
            verbose=True,
        )

    for _ in range(2):
        study = exhaustive().optimize()
        assert {trial.params["width"] for trial in study.trials} == ({3} if fixed else {2, 3})
        assert len(study.trials) == 2 - fixed
        name = "PartialFixedSampler" if fixed else "GridSampler"
        said = f"{name} has tried all its points: the study ends with {2 - fixed} of 9 trials."
        assert capsys.readouterr().out.count(said) == 1


def test_a_space_may_stop_the_study(tune):
    def space(trial):
        if trial.number == 1 and trial.study.study_name == "ends":
            trial.study.stop()
        if trial.study.study_name != "ends":  # it is only tried
            trial.study.stop()
        return {"lr": trial.suggest_float("lr", 1e-3, 1.0)}

    study = tune(search_space=space, study_name="ends", n_trials=9).optimize()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2


def test_that_nothing_was_found_is_said_where_nothing_is_shown(tune, caplog):
    tune(model_class=Broken, n_trials=1).optimize()
    assert "No trial completed. Trials: 1 fail. Most frequent reason: ValueError: shapes do not match" in caplog.text


@needs_optuna_5
def test_a_study_without_a_feasible_trial_says_so(tune):
    def space(trial):
        trial.suggest_float("lr", 0.1, 0.2)
        trial.set_constraint("size", 1.0)

    optimizer = tune(search_space=space)
    optimizer.optimize()
    with pytest.raises(NoResultError, match="each that is complete violates a constraint. Trials: 3 complete"):
        optimizer.best_model()


def test_a_class_that_was_edited_since_is_named(tune):
    tune().optimize()

    class Edited(Line):
        __module__, __qualname__ = Line.__module__, Line.__qualname__

        def __init__(self, lr: float = 0.1):
            super().__init__(lr=lr, width=5)

    with pytest.raises(TrialError, match="The model's class is not what trial"):
        tune(model_class=Edited).best_model()


@tunable(search_space={"width": ("int", 2, 4)})
class NamedShort(Line):
    pass


@pytest.mark.parametrize(("space", "tuned"), [({"lr": ("loguniform", 1e-3, 1.0)}, "lr"), (None, "width")])
def test_a_class_may_be_named_without_its_module(tune, space, tuned):
    config = {**QUICK, "model": {"class_path": "NamedShort"}}
    study = tune(base_config=config, search_space=space, model_class=None, n_trials=1).optimize()
    assert [*study.best_params] == [tuned]


def test_a_callback_that_cannot_be_made_is_told_in_a_sentence(tune):
    stopping = {"class_path": "EarlyStopping", "init_args": {"monitor": "val_acc", "mode": "maximize"}}
    with pytest.raises(ConfigurationError, match=r"^The config is not valid\. trainer: `mode` can be min, max, got"):
        tune(base_config={"trainer": {**QUICK["trainer"], "callbacks": [stopping]}}).optimize()


def test_more_trials_are_asked_of_an_optimizer_that_has_run(tune):
    optimizer = tune(n_trials=1)
    assert len(optimizer.optimize().trials) == 1
    optimizer.n_trials = 2
    assert len(optimizer.optimize().trials) == optimizer.n_trials == 2
    with pytest.raises(ConfigurationError, match="n_trials must be an integer from 1, but got 0"):
        optimizer.n_trials = 0


def test_a_study_that_only_fails_ends_early_and_says_so(tune, caplog):
    optimizer = tune(model_class=Broken, n_trials=20)
    study = optimizer.optimize()
    assert len(study.trials) == 3
    assert "3 trials in a row failed alike. ValueError: shapes do not match. See" in caplog.text
    assert "a function of the trial can raise optuna.TrialPruned" in caplog.text
    results = optimizer.results()
    assert results.counts == {"fail": 3}
    for call in (optimizer.get_best_config, optimizer.best_model, optimizer.refit, lambda: results.best):
        with pytest.raises(NoResultError, match="No trial completed.*shapes do not match"):
            call()


def test_a_study_that_only_failed_starts_over_once_it_is_corrected(tune):
    tune(model_class=Broken, n_trials=2).optimize()
    optimizer = tune(n_trials=2)
    study = optimizer.optimize()
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert optimizer.results().baseline.number == 2


def test_out_of_memory_is_an_outcome_of_its_own(tune):
    study = tune(model_class=OutOfMemory, n_trials=6).optimize()
    assert len(study.trials) == 6, "running out of memory depends on the parameters: the study goes on"
    assert {trial.user_attrs["lightningtune:reason"] for trial in study.trials[1:]} == {"out_of_memory"}
    assert study.trials[0].state.name == "COMPLETE"


def test_catch_is_optunas(tune):
    with pytest.raises(ValueError, match="shapes do not match"):
        tune(model_class=Broken, catch=()).optimize()


def test_a_metric_that_is_not_logged_ends_the_study_at_once(tune):
    optimizer = tune(model_class=Unlogged)
    with pytest.raises(
        ConfigurationError, match=r"'val_loss' was not logged. Logged: valid_loss. Did you mean 'valid_loss'"
    ):
        optimizer.optimize()
    assert [trial.state.name for trial in optimizer.study.trials] == ["FAIL"]
    corrected = tune(model_class=Unlogged, metric="valid_loss")
    assert corrected.optimize().trials[1].user_attrs["lightningtune:baseline"] is True
    assert len(corrected.study.trials) == 4, "the refused trial does not count"
    assert corrected.results().improvement == 0


class StopsItself(Line):
    def on_train_batch_start(self, batch, batch_idx):
        if self.trainer.current_epoch == 0 and self.lr == 0.5:
            self.trainer.limit_val_batches, self.trainer.should_stop = 0, True


def test_a_mistake_of_one_trial_does_not_end_a_study_in_which_others_succeed(tune):
    study = tune(
        model_class=StopsItself,
        search_space={"lr": ("categorical", [0.1, 0.5])},
        n_trials=2,
        baseline={"lr": 0.1},
        callbacks=[lambda study, trial: study.enqueue_trial({"lr": 0.5})],
    ).optimize()
    assert [trial.state.name for trial in study.trials[:2]] == ["COMPLETE", "FAIL"]
    assert "MetricError" in study.trials[1].user_attrs["lightningtune:detail"]


def test_several_processes_that_share_a_study_stop_at_the_total(tune):
    first = tune(n_trials=3)

    def another_has_its_share(study, trial):
        if trial.number == 0:
            tune(n_trials=2).optimize()

    study = tune(n_trials=3, callbacks=[another_has_its_share]).optimize()
    assert len(study.trials) == 3
    assert first.results().counts == {"complete": 3}


def test_pruned_trials_leave_no_weights_and_no_score(tune):
    optimizer = tune(pruner=PruneAfterFirst())
    study = optimizer.optimize()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "PRUNED"]
    assert {p.parent.name for p in optimizer.directory.glob("trials/*/*.ckpt")} == {"0000"}
    assert (
        optimizer.results().trials[1].detail
        == f"pruned by PruneAfterFirst with {study.trials[1].value:.6g} at validation 1"
    )


def test_a_score_that_is_no_number_fails_its_trial(tune):
    study = tune(score=lambda values: math.nan, n_trials=1).optimize()
    assert study.trials[0].state.name == "FAIL"
    assert study.trials[0].user_attrs["lightningtune:reason"] == "non_finite"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_study_goes_on_where_it_was(tune, tmp_path, number, code):
    script = tmp_path / "study.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys, lightning as L
            from lightningtune import OptunaDrivenOptimizer
            from nets import Line, Points

            class Tell(L.Callback):
                def on_train_epoch_end(self, trainer, pl_module):
                    print("training", flush=True)

            n_trials, max_epochs = map(int, sys.argv[1:])
            OptunaDrivenOptimizer(
                {{"trainer": {{"max_epochs": max_epochs, "accelerator": "cpu"}}}}, {{"lr": ("loguniform", 1e-3, 1.0)}},
                Line, Points, n_trials=n_trials, experiment_dir={str(tmp_path)!r}, verbose=False, seed=0,
                callbacks=[Tell()],
            ).optimize()
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, script, "2", "2"], check=True, env=environment, cwd=tmp_path, capture_output=True)
    child = subprocess.Popen(
        [sys.executable, script, "3", "100000"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    with child:
        assert child.stdout.readline() == b"training\n"
        child.send_signal(number)
        child.stdout.read()
    assert child.returncode in {code, -number}
    stopped = tune(n_trials=4)
    assert [trial.state.name for trial in stopped.study.trials] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert stopped.results().trials[2].reason == "interrupted"
    assert stopped.study.trials[2].intermediate_values, "it reached a validation"
    assert (stopped.directory / "trials/0002/last.ckpt").exists()
    states = [trial.state.name for trial in stopped.optimize().trials]
    assert states.count("COMPLETE") + states.count("PRUNED") == 4


@pytest.mark.slow
def test_memory_does_not_grow_over_200_trials(tune):
    resident = []

    def look(study, trial):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)

    tune(n_trials=200, callbacks=[look], sampler=optuna.samplers.RandomSampler(seed=0)).optimize()
    assert resident[-1] - resident[50] < 20, f"grew from {resident[50]:.0f} to {resident[-1]:.0f} MiB"


# --- mistakes cost a second, not a night -------------------------------------------------------------------------


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
        ({"base_config": {"model": {"class_path": "nets.Lin"}}, "model_class": None}, "nets.Lin"),
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


# --- what is printed ---------------------------------------------------------------------------------------------


def test_verbose_prints_each_trial_and_what_was_found(tune, capsys):
    optimizer = tune(verbose=True)
    study = optimizer.optimize()
    out = capsys.readouterr().out
    assert "minimize val_loss, 3 trials." in out
    assert sum("complete val_loss" in line for line in out.splitlines()) == 3
    assert f"Best: trial {study.best_trial.number}  val_loss = {study.best_value:.6g}" in out
    assert "Untuned defaults: val_loss = " in out
    assert str(optimizer.directory / "best" / "model.ckpt") in out


def test_quiet_is_silent(tune, capfd):
    tune(verbose=False).optimize()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("isolate", [False, True])
def test_the_view_gives_way_to_a_progress_bar_where_that_is_drawn_too(tune, monkeypatch, isolate):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    config = {"trainer": {**QUICK["trainer"], "enable_progress_bar": True}}
    assert tune(base_config=config, isolate=isolate)._view.console.is_interactive == isolate
    assert tune(isolate=isolate)._view.console.is_interactive
