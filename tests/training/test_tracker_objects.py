"""Loggers that are given as objects: each trial gets one of its own."""

import pytest
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from loggers import Records
from nets import Line, Points

from lightningtune import ConfigurationError, OptunaDrivenOptimizer
from lightningtune.training.tracker_objects import with_blocks

HOME = "lightning.pytorch.loggers"


def study(logger):
    return OptunaDrivenOptimizer({"trainer": {"logger": logger}}, {"lr": ("uniform", 0.1, 0.2)}, Line, Points)


class Named(TensorBoardLogger):
    """A user's own, made as Lightning's is."""


def block(logger):
    return with_blocks({"trainer": {"logger": logger}})["trainer"]["logger"]


def test_lightnings_loggers_are_written_as_blocks():
    own = {"save_dir": "logs", "name": "n", "version": "v", "prefix": "p"}
    assert block(CSVLogger("logs", "n", "v", "p", 3)) == {
        "class_path": f"{HOME}.CSVLogger",
        "init_args": {**own, "flush_logs_every_n_steps": 3},
    }
    assert block(TensorBoardLogger("logs", "n", "v", prefix="p", sub_dir="s", max_queue=2, more=1)) == {
        "class_path": f"{HOME}.TensorBoardLogger",
        "init_args": {**own, "sub_dir": "s", "max_queue": 2},
        "dict_kwargs": {"more": 1},
    }
    assert block([Named("logs"), True]) == [
        {"class_path": f"{Named.__module__}.Named", "init_args": {"save_dir": "logs"}},
        True,
    ]


def test_a_graph_can_be_asked_for():
    assert block(TensorBoardLogger("logs", log_graph=True))["init_args"] == {"save_dir": "logs", "log_graph": True}


def test_the_run_that_an_object_has_begun_is_left_out(tmp_path):
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"val_loss": 1.0})
    assert logger.version == 0
    assert block(logger)["init_args"] == {"save_dir": str(tmp_path)}


def test_a_run_that_an_object_names_is_refused():
    with pytest.raises(ConfigurationError, match="TensorBoardLogger is given version='x' for all of them"):
        study(TensorBoardLogger("logs", version="x"))


def test_what_is_no_logger_stays():
    for config in (None, "config.yaml", {}, {"trainer": 3}, {"trainer": {"logger": True}}):
        assert with_blocks(config) is config


class Local(Logger):
    name = version = None

    def __init__(self, client):
        super().__init__()

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params):
        pass


@pytest.mark.parametrize(
    ("logger", "why"),
    [
        (Local(object()), "it does not tell what it was made from"),
        (Records(), "it does not tell what it was made from"),
        (type("Hidden", (CSVLogger,), {})("logs"), "it does not tell what it was made from"),
        (TensorBoardLogger("logs", comment=object()), "object"),
    ],
)
def test_what_cannot_be_made_anew_is_refused_with_the_form_that_can(logger, why):
    with pytest.raises(ConfigurationError, match="each trial has a logger of its own") as refused:
        study(logger)
    assert why in str(refused.value)
    assert f".{type(logger).__name__}', 'init_args': {{...}}}}" in str(refused.value)
