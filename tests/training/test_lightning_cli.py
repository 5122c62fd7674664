"""Where paths lead in a LightningCLI's config, and trials of it, built and trained as the facade has them."""

import sys
from pathlib import Path

import clis
import pytest
import torch
import yaml
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningCLI
from nets import DiesOnce, Line, Points, PrunesItself
from tracked import LOSS

from lightningtune import ConfigurationError, OptunaDrivenOptimizer, tunable
from lightningtune.contract import SilentReporter, StopReason, TrialSpec
from lightningtune.files import dump_yaml
from lightningtune.study.comparison import Agreement
from lightningtune.study.reporter import REASON
from lightningtune.training.lightning_cli import CliBlueprint, CliSchema, read_cli_config
from lightningtune.training.process_state import quiet_lightning
from lightningtune.training.run import prepare_data, train

ADAM = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.1}}


@pytest.fixture(scope="module")
def linked():
    return CliSchema.of(clis.linked)


@pytest.fixture(scope="module")
def any_subclass():
    return CliSchema.of(clis.any_subclass)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("model.width", ("model", "width")),
        ("width", ("model", "width")),
        ("data.batch_size", ("data", "batch_size")),
        ("depth", ("depth",)),
        ("optimizer", ("optimizer",)),
        ("optimizer.lr", ("optimizer", "init_args", "lr")),
        ("optimizer.init_args.lr", ("optimizer", "init_args", "lr")),
        ("optimizer.class_path", ("optimizer", "class_path")),
        ("early_stopping.patience", ("early_stopping", "patience")),
        ("trainer.max_epochs", ("trainer", "max_epochs")),
    ],
)
def test_a_path_leads_into_every_part_of_the_config(linked, path, place):
    assert linked.locate({"optimizer": ADAM}, path) == place


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("model.widht", "leads nowhere in the config. Did you mean 'model.width'"),
        ("optimizer.lrr", "Did you mean 'optimizer.init_args.lr'"),
        ("early_stopping.patienc", "Did you mean 'early_stopping.patience'"),
        ("trainer.max_epoch", "Did you mean 'trainer.max_epochs'"),
        ("dept", "Did you mean 'depth'"),
        ("lr_scheduler.gamma", "leads nowhere"),
        ("model.batch_size", "LinkedCLI sets it from 'data.batch_size'. Tune that instead"),
        ("model.depth", "LinkedCLI sets it from 'depth'"),
    ],
)
def test_a_path_that_leads_nowhere_or_is_linked_is_refused(linked, path, said):
    with pytest.raises(ConfigurationError, match=said):
        linked.locate({"optimizer": ADAM}, path)


def test_defaults_are_the_clis(linked):
    assert linked.lookup({}, "early_stopping.monitor") == "val_loss"
    assert linked.lookup({}, "depth") == 2
    assert linked.lookup({"model": {"width": 3}}, "model.width") == 3


def test_values_are_merged_by_path_the_optimizer_first(linked):
    sgd = {"class_path": "torch.optim.SGD"}
    merged = linked.merge({"optimizer": ADAM}, {"optimizer.lr": 0.5, "optimizer": sgd, "depth": 4})
    assert merged == {"optimizer": {**sgd, "init_args": {"lr": 0.5}}, "depth": 4}


def test_a_config_is_read_with_the_clis_own_defaults(linked, tmp_path):
    file = tmp_path / "config.yaml"
    (tmp_path / "model.yaml").write_text("width: 8\n")
    text = {"optimizer": "Adam", "model": "model.yaml", "ckpt_path": None, "trainer": {"max_epochs": 9}}
    file.write_text(dump_yaml(text))
    config = {
        "seed_everything": True,
        "optimizer": {"class_path": "torch.optim.Adam"},
        "model": {"width": 8},
        "trainer": {"accelerator": "cpu", "max_epochs": 9},
    }
    assert read_cli_config(linked, file) == config
    file.write_text(dump_yaml({"fit": text}))
    assert read_cli_config(linked, str(file)) == config, "a config of the whole command"
    assert read_cli_config(CliSchema.of(clis.not_run), None) == {"seed_everything": 7}


def test_short_names_are_written_in_full(any_subclass):
    callbacks = [{"class_path": "EarlyStopping", "init_args": {"monitor": "val_loss"}}, "ModelSummary"]
    model = {"class_path": "nets.Line", "init_args": {"lr": 0.3}}
    config = read_cli_config(any_subclass, {"model": model, "data": "nets.Points", "trainer": {"callbacks": callbacks}})
    assert config["model"] == model
    assert config["data"] == {"class_path": "nets.Points"}
    assert [block["class_path"] for block in config["trainer"]["callbacks"]] == [
        "lightning.pytorch.callbacks.EarlyStopping",
        "lightning.pytorch.callbacks.ModelSummary",
    ]
    assert any_subclass.locate(config, "lr") == ("model", "init_args", "lr")
    assert any_subclass.locate(config, "trainer.callbacks.0.patience") == (
        "trainer",
        "callbacks",
        0,
        "init_args",
        "patience",
    )


def test_a_script_s_own_classes_keep_their_short_names(any_subclass):
    config = read_cli_config(any_subclass, {"model": "OnlyHere", "data": {"class_path": "nets.Points"}})
    assert config["model"] == {"class_path": "OnlyHere"}
    assert any_subclass.check(config)["model"]["class_path"] == "clis.OnlyHere"
    assert any_subclass.locate(config, "model.lr") == ("model", "init_args", "lr")
    with pytest.raises(ConfigurationError, match="Did you mean 'model.init_args.lr'"):
        any_subclass.locate(config, "model.lrr")


class TwoOptimizersCLI(LightningCLI):
    def add_arguments_to_parser(self, parser):
        parser.add_optimizer_args(torch.optim.Adam, "first", link_to="model.first")
        parser.add_optimizer_args((torch.optim.Optimizer,), "second", link_to="model.second")


class TwoOptimizers(Line):
    def __init__(self, first: dict, second: dict):
        super().__init__()


def test_an_optimizer_that_the_cli_adds_is_a_part_of_the_config():
    schema = CliSchema.of(lambda: TwoOptimizersCLI(TwoOptimizers, Points))
    config = read_cli_config(schema, {"second": {"class_path": "SGD", "init_args": {"lr": 0.1}}})
    assert config["second"]["class_path"] == "torch.optim.SGD"
    merged = schema.merge(config, {"first.lr": 0.5, "second.momentum": 0.9})
    assert (merged["first"], merged["second"]["init_args"]) == ({"lr": 0.5}, {"lr": 0.1, "momentum": 0.9})
    assert schema.check(merged)["model"]["first"]["init_args"]["lr"] == 0.5
    with pytest.raises(ConfigurationError, match="TwoOptimizersCLI sets it from 'second'"):
        schema.locate(config, "model.second")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"optimiser": ADAM}, "LinkedCLI has no section 'optimiser'. Did you mean 'optimizer'"),
        ({"ckpt_path": "a.ckpt"}, "has no section 'ckpt_path'"),
        ({"seed_everything": -1}, "seed_everything must be"),
        ({"model": "nowhere.yaml"}, "The file 'nowhere.yaml' does not exist"),
        ({"model": {"act": Line}}, "model.act: .*A class is written as {'class_path'"),
        (3, "must be a file's path or a mapping"),
    ],
)
def test_a_config_that_the_cli_would_not_take_is_refused(linked, config, said):
    with pytest.raises(ConfigurationError, match=said):
        read_cli_config(linked, config)


def test_the_parser_says_what_does_not_fit(linked):
    with pytest.raises(ConfigurationError, match="not valid.*widht"):
        linked.check({"model": {"widht": 3}})
    with pytest.raises(ConfigurationError, match="Adamm.*Did you mean 'Adam'"):
        linked.check({"model": {"width": 3}, "optimizer": {"class_path": "Adamm"}})
    with pytest.raises(ConfigurationError, match=r"not valid.*model\.width"):
        linked.check({"model": {"width": "wide"}})


CPU = {"accelerator": "cpu", "max_epochs": 1}
STEPS = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 1, "gamma": 0.5}}


def blueprint(cli, config=None, **options):
    schema = CliSchema.of(cli)
    return CliBlueprint(schema, read_cli_config(schema, config or {}), **options)


def build(tmp_path, cli, config=None, callbacks=()):
    made = blueprint(cli, config)
    with quiet_lightning():
        return made.build({**made.config, "seed_everything": 1}, tmp_path, callbacks, Callback())


def test_the_optimizer_and_the_scheduler_are_the_configs(tmp_path):
    fit = build(tmp_path, clis.linked, {"optimizer": ADAM, "lr_scheduler": STEPS, "trainer": {"max_epochs": 2}})
    with quiet_lightning():
        fit.run()
    assert isinstance(fit.trainer.optimizers[0], torch.optim.Adam)
    assert fit.trainer.optimizers[0].param_groups[0]["lr"] == 0.025
    assert [type(callback) for callback in fit.trainer.callbacks if isinstance(callback, EarlyStopping)]
    assert type(fit.trainer.callbacks[-1]) is Callback, "ours is the last but those that save"
    assert Path(fit.trainer.log_dir) == tmp_path
    assert not (tmp_path / "config.yaml").exists(), "the study writes it"


def test_what_the_user_says_of_the_trainer_holds(tmp_path):
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(tmp_path / "logs")}}
    trainer = {**CPU, "logger": logger, "num_sanity_val_steps": 3, "enable_progress_bar": True}
    fit = build(tmp_path, clis.plain, {"trainer": trainer}, (EarlyStopping("val_loss"),))
    assert fit.trainer.num_sanity_val_steps == 3
    assert fit.trainer.progress_bar_callback is not None
    with quiet_lightning():
        fit.run()
    assert len([*(tmp_path / "logs").rglob("config.yaml")]) == 1, "a logger's folder gets Lightning's file, as always"


def test_a_callback_that_saves_the_config_never_breaks_a_trial(tmp_path):
    (tmp_path / "config.yaml").write_text("the study's")
    for _ in range(2):
        fit = build(tmp_path, clis.noting)
        with quiet_lightning():
            fit.run()
    assert "max_epochs: 1" in fit.model.noted
    assert (tmp_path / "config.yaml").read_text() == "the study's"
    assert (tmp_path / "config_of_cli.yaml").exists()


@pytest.mark.parametrize(
    "logger",
    [
        True,
        {"class_path": "loggers.Records"},
        {"class_path": "loggers.Fails", "init_args": {"at": "made"}},
        [{"class_path": "loggers.Fails", "init_args": {"at": "made"}}],
        {"class_path": "loggers.Fails", "init_args": {"at": "save_dir"}},
        {"class_path": "loggers.Fails", "init_args": {"at": "nothing"}},
    ],
)
@pytest.mark.parametrize("cli", [clis.plain, clis.noting])
def test_the_config_of_a_trial_stays_whatever_its_logger_says(tmp_path, logger, cli):
    (tmp_path / "config.yaml").write_text("the study's")
    made = blueprint(cli, {"trainer": {**CPU, "logger": logger}})
    spec = TrialSpec(7, {**made.config, "seed_everything": 1}, tmp_path, LOSS)
    assert train(spec, made, SilentReporter()).reason is StopReason.COMPLETED
    assert (tmp_path / "config.yaml").read_text() == "the study's"


class OwnFit(LightningCLI):
    def fit(self, model, datamodule, ckpt_path, **kwargs):
        model.fitted = True
        self.trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, **kwargs)


class OwnTrainer(Trainer): ...


class TrainerByHand(LightningCLI):
    def instantiate_trainer(self, **kwargs):
        return Trainer(**CPU)


def test_methods_of_the_cli_are_the_users(tmp_path):
    fit = build(tmp_path, lambda: OwnFit(Line, Points, trainer_class=OwnTrainer), {"trainer": CPU})
    with quiet_lightning():
        fit.run()
    assert fit.model.fitted
    assert type(fit.trainer) is OwnTrainer
    with pytest.raises(ConfigurationError, match="TrainerByHand must build its Trainer by calling self.trainer_class"):
        build(tmp_path, lambda: TrainerByHand(Line, Points))


def barebones():
    LightningCLI(Line, Points, trainer_defaults={"barebones": True})


class NoData(LightningModule): ...


def test_what_no_trial_could_do_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="barebones"):
        build(tmp_path, barebones)
    with pytest.raises(ConfigurationError, match="NoData has no train_dataloader"):
        build(tmp_path, lambda: LightningCLI(NoData))
    with pytest.raises(ConfigurationError, match="share_data takes a LightningDataModule"):
        blueprint(lambda: LightningCLI(Line), share_data=True).load_data()
    elsewhere = blueprint(clis.plain, {"trainer": {"accelerator": "the moon"}})
    with pytest.raises(ConfigurationError, match="the moon"):
        elsewhere.check_trainer(elsewhere.config)


class Prepared(Points):
    prepared = 0

    def prepare_data(self):
        Prepared.prepared += 1


class DataLinkedCLI(LightningCLI):
    def add_arguments_to_parser(self, parser):
        parser.link_arguments("model.width", "data.batch_size")


def test_data_is_prepared_once_unless_links_may_change_it(tmp_path):
    made = blueprint(lambda: LightningCLI(Line, Prepared))
    assert made.has_preparation(made.config)
    assert prepare_data(made, TrialSpec(0, {**made.config, "trainer": CPU}, tmp_path, LOSS))
    assert Prepared.prepared == 1
    assert not blueprint(lambda: DataLinkedCLI(Line, Prepared)).has_preparation({})
    with pytest.raises(ConfigurationError, match="DataLinkedCLI links 'data.batch_size'"):
        blueprint(lambda: DataLinkedCLI(Line, Prepared), share_data=True)


def optimizer(tmp_path, cli=clis.linked, space=None, config=None, **options):
    options = {"n_trials": 3, "verbose": False, "seed": 1, "experiment_dir": tmp_path, **options}
    space = space or {"model.width": ("int", 2, 8), "optimizer.lr": ("loguniform", 1e-3, 1.0), "depth": ("int", 1, 5)}
    config = config if config is not None else {"optimizer": ADAM, "lr_scheduler": STEPS}
    return OptunaDrivenOptimizer(config, space, cli=cli, **options)


def test_a_trial_of_a_cli_is_pruned_by_its_model(tmp_path):
    study = optimizer(
        tmp_path, lambda: LightningCLI(PrunesItself, Points), {"at": ("categorical", ["model"])}, n_trials=1, config={}
    ).optimize()
    assert study.trials[0].state.name == "PRUNED"
    assert study.trials[0].user_attrs["lightningtune:detail"] == "not worth it, says the model"


def run_by_hand(cli, config, monkeypatch):
    """Run a CLI as ``python train.py fit --config`` does, and return its best ``val_loss``."""
    seen = []

    class Watch(Callback):
        def on_validation_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                seen.append(float(trainer.callback_metrics["val_loss"]))

    def fit(self, **kwargs):
        self.trainer.callbacks.append(Watch())
        self.trainer.fit(**kwargs)

    monkeypatch.setattr(LightningCLI, "fit", fit, raising=False)
    monkeypatch.setattr(clis.LinkedCLI, "after_fit", lambda self: None)
    monkeypatch.setattr(sys, "argv", ["train.py", "fit", "--config", str(config)])
    with quiet_lightning():
        cli()
    monkeypatch.undo()
    return min(seen)


@pytest.mark.slow
@pytest.mark.parametrize("cli", [clis.linked, clis.plain], ids=["linked", "plain"])
def test_a_study_whose_best_config_runs_as_it_is(tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    given = {} if cli is clis.linked else {"space": {"width": ("int", 2, 8)}, "config": {}}
    tuned = optimizer(tmp_path, cli, **given)
    study = tuned.optimize()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    best = tuned.directory / "best" / "config.yaml"
    assert run_by_hand(cli, best, monkeypatch) == study.best_value, "the same score with the same seed"
    assert yaml.safe_load(best.read_text()) == tuned.get_best_config()

    assert tuned.best_model().hparams.width == tuned.get_best_config()["model"]["width"]
    assert tuned.replay(study.best_trial.number).agreement is Agreement.IDENTICAL
    assert tuned.refit(max_epochs=1)[0].score is not None
    assert len(optimizer(tmp_path, cli, n_trials=4, **given).optimize().trials) == 4


@pytest.mark.slow
def test_trials_in_processes_of_their_own_come_to_the_same(tmp_path):
    here = optimizer(tmp_path, study_name="here").optimize()
    apart = optimizer(tmp_path, study_name="apart", isolate=True, share_data=True).optimize()
    assert [trial.values for trial in here.trials] == [trial.values for trial in apart.trials]


@tunable(search_space={"lr": ("loguniform", 1e-3, 1.0)})
class Declared(Line): ...


class OfDeclared(LightningCLI):
    def __init__(self):
        super().__init__(Declared, Points, trainer_defaults=CPU)


@pytest.mark.slow
def test_what_the_model_declares_is_searched_and_a_class_may_know_its_own(tmp_path):
    tuned = OptunaDrivenOptimizer(cli=OfDeclared, n_trials=2, verbose=False, experiment_dir=tmp_path)
    assert [trial.params.keys() for trial in tuned.optimize().trials] == [{"lr"}, {"lr"}]
    definition = yaml.safe_load((tuned.directory / "study.yaml").read_text())
    assert definition["cli"].endswith(".OfDeclared")
    assert definition["model_class"].endswith(".Declared")


@pytest.mark.slow
def test_a_trial_that_is_killed_goes_on_where_it_was(tmp_path):
    mark = tmp_path / "mark"
    tuned = OptunaDrivenOptimizer(
        {"model": {"mark": str(mark)}, "trainer": {"accelerator": "cpu", "max_epochs": 6}},
        {"lr": ("loguniform", 1e-3, 1e-2)},
        cli=lambda: LightningCLI(DiesOnce, Points),
        **{"n_trials": 1, "isolate": True, "verbose": False, "experiment_dir": tmp_path},
    )
    killed, successor = tuned.optimize().trials
    assert (killed.user_attrs[REASON], len(killed.intermediate_values)) == (StopReason.KILLED.value, 3)
    assert [*successor.intermediate_values] == [*range(6)]
    assert mark.exists()


@pytest.mark.slow
def test_a_plain_config_runs_through_a_cli_of_the_same_classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {"model": {"width": 4}, "data": {"batch_size": 4}, "trainer": {**CPU, "max_epochs": 2}}
    options = {"model_class": Line, "datamodule_class": Points, "n_trials": 2, "verbose": False, "seed": 1}
    tuned = OptunaDrivenOptimizer(config, {"lr": ("loguniform", 1e-3, 1.0)}, experiment_dir=tmp_path, **options)
    study = tuned.optimize()
    best = tuned.directory / "best" / "config.yaml"
    assert run_by_hand(clis.plain, best, monkeypatch) == study.best_value


@pytest.mark.parametrize(
    ("space", "config", "said"),
    [
        ({"model.widht": ("int", 1, 2)}, None, "Did you mean 'model.width'"),
        ({"model.depth": ("int", 1, 2)}, None, "LinkedCLI sets it from 'depth'"),
        ({"optimizer.lrr": ("uniform", 0.1, 1.0)}, None, "Did you mean 'optimizer.init_args.lr'"),
        ({"model.width": ("uniform", 0.1, 1.0)}, None, "'model.width'=0.1 does not fit"),
        ({"width": ("int", 1, 2)}, {"trainer": {"max_epoch": 1}}, "Did you mean 'trainer.max_epochs'"),
        ({"width": ("int", 1, 2)}, {"optimizer": {"class_path": "torch.optim.Adamm"}}, "Did you mean 'Adam'"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_epoch(tmp_path, space, config, said):
    with pytest.raises(ConfigurationError, match=said.replace(".", r"\.")):
        optimizer(tmp_path, space=space, config=config)


def test_the_classes_and_a_cli_are_not_both_given(tmp_path):
    with pytest.raises(ConfigurationError, match="model_class and cli both say what to train"):
        optimizer(tmp_path, model_class=Line)
