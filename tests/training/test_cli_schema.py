import clis
import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from nets import Line, Points

from lightningtune import ConfigurationError
from lightningtune.files import dump_yaml
from lightningtune.training.lightning_cli import CliSchema, read_cli_config

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
