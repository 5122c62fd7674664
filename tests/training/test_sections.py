"""What a config names for loggers and callbacks, checked in a sentence."""

import pytest
from clis import plain
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from loggers import Records
from nets import Line, Points

from lightningtune.config.base import NOT_HYDRA
from lightningtune.config.importing import classes_by_name, find_class
from lightningtune.config.schema import Schema
from lightningtune.errors import InvalidConfigError
from lightningtune.training.build import Blueprint
from lightningtune.training.lightning_cli import CliBlueprint, CliSchema, read_cli_config
from lightningtune.training.sections import check_classes

WRONG = [
    (
        {"logger": "TensorBordLogger"},
        "trainer.logger: there is no 'TensorBordLogger'. Did you mean 'TensorBoardLogger'?",
    ),
    (
        {"logger": {"class_path": "TensorBordLogger"}},
        "trainer.logger: there is no 'TensorBordLogger'. Did you mean 'TensorBoardLogger'?",
    ),
    (
        {"logger": ["CSVLogger", "WandbLoger"]},
        "trainer.logger.1: there is no 'WandbLoger'. Did you mean 'WandbLogger'?",
    ),
    (
        {"logger": "lightning.pytorch.loggers.CSVLoger"},
        "trainer.logger: the module 'lightning.pytorch.loggers' has no 'CSVLoger'. Did you mean 'CSVLogger'?",
    ),
    (
        {"logger": "Quite"},
        "trainer.logger: there is no 'Quite'. A class of your own is named with its module, as 'package.Quite'.",
    ),
    (
        {"logger": "no.such.Quite"},
        "trainer.logger: there is no module 'no', which 'no.such.Quite' is to be in.",
    ),
    (
        {"logger": {"class_path": "TensorBoardLogger", "init_args": {"save_dr": "x"}}},
        "trainer.logger: TensorBoardLogger has no 'save_dr'. Did you mean 'save_dir'? It takes: save_dir, name, ",
    ),
    (
        {"logger": [{"class_path": "MLFlowLogger", "init_args": {"tracking_url": "x"}}]},
        "trainer.logger.0: MLFlowLogger has no 'tracking_url'. Did you mean 'tracking_uri'? It takes: ",
    ),
    (
        {"logger": {"class_path": "Records", "init_args": {"zzz": 1}}},
        "trainer.logger: Records has no 'zzz'. It takes: save_dir.",
    ),
    (
        {"logger": {"TensorBoardLogger": {"save_dir": "x"}}},
        "trainer.logger names no class_path. Write it as {'class_path': 'TensorBoardLogger', 'init_args': {...}}.",
    ),
    ({"callbacks": [{"_target_": "a.Stop"}]}, f"trainer.callbacks.0 names no class_path. {NOT_HYDRA}"),
    ({"callbacks": {"stop": {"_target_": "a.Stop"}}}, f"trainer.callbacks names no class_path. {NOT_HYDRA}"),
    ({"logger": {"clss_path": "CSVLogger"}}, "trainer.logger names no class_path. Did you mean 'class_path'?"),
    (
        {"callbacks": [{"class_path": "EarlyStoping"}]},
        "trainer.callbacks.0: there is no 'EarlyStoping'. Did you mean 'EarlyStopping'?",
    ),
    (
        {"callbacks": {"class_path": "EarlyStopping", "init_args": {"monitr": "x"}}},
        "trainer.callbacks: EarlyStopping has no 'monitr'. Did you mean 'monitor'? It takes: monitor, ",
    ),
]


@pytest.mark.parametrize(("trainer", "said"), WRONG)
def test_what_is_wrong_is_named_with_the_nearest_that_is_right(trainer, said):
    config = {"trainer": trainer}
    with pytest.raises(InvalidConfigError) as refused:
        Blueprint(Schema(Line, Points, Trainer), config).check(config)
    assert str(refused.value).startswith(said)


def test_a_lightning_cli_s_config_is_told_of_alike():
    schema = CliSchema.of(plain)
    config = read_cli_config(schema, {"trainer": {"logger": {"class_path": "TensorBordLogger"}}})
    with pytest.raises(
        InvalidConfigError, match=r"^trainer.logger: there is no .* Did you mean 'TensorBoardLogger'\?$"
    ):
        CliBlueprint(schema, config).check(config)


def test_what_is_right_and_what_is_for_jsonargparse_to_judge_passes(tmp_path):
    file = tmp_path / "logger.yaml"
    file.write_text("class_path: CSVLogger")
    for logger in (None, True, 3, [], "CSVLogger", str(file), "Records", {"init_args": {"save_dir": "x"}}):
        check_classes({"logger": logger, "callbacks": [{"class_path": "ModelCheckpoint"}]})
    check_classes({})


def test_a_class_is_found_with_its_module_and_without():
    assert find_class("loggers.Records", Logger) is find_class("Records", Logger) is Records
    assert find_class("LocalLogger", Logger) is None


def test_what_stands_within_a_class_is_for_jsonargparse_to_build():
    for name in ("loggers.Kinds.Inner", "loggers.Kinds.make"):
        check_classes({"logger": {"class_path": name, "init_args": {}}})
        with pytest.raises(InvalidConfigError, match="trainer.logger.init_args must be a mapping"):
            check_classes({"logger": {"class_path": name, "init_args": "not_even_a_mapping"}})


def test_why_a_module_cannot_be_imported_is_said(tmp_path, monkeypatch):
    (tmp_path / "broken_loggers.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        InvalidConfigError,
        match=r"importing 'broken_loggers\.L' raises ModuleNotFoundError: No module named 'not_",
    ):
        check_classes({"logger": "broken_loggers.L"})


def test_a_class_within_a_function_has_no_short_name():
    class LocalLogger(Records):
        pass

    assert LocalLogger not in classes_by_name(Logger).values()
