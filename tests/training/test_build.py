import functools
import typing

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from nets import Line, Points, loaders, points
from torch import nn

from lightningtune import ConfigurationError
from lightningtune.config.schema import Schema
from lightningtune.training.build import Blueprint

CPU = {"accelerator": "cpu", "max_epochs": 1}


class Nested(L.LightningModule):
    def __init__(self, act: nn.Module, widths: tuple[int, ...] = (1,), fixed: nn.Module = nn.ReLU()):  # noqa: B008
        super().__init__()
        self.act, self.widths, self.fixed = act, widths, fixed


def build(tmp_path, config, model=Line, data=Points, callbacks=()):
    config = {"trainer": CPU, **config}
    return Blueprint(Schema(model, data, L.Trainer), config).build(config, tmp_path, callbacks, L.Callback())


def test_a_plain_config_gives_typed_values(tmp_path):
    fit = build(tmp_path, {"model": {"lr": "1e-3", "width": 3}, "data": {"batch_size": 2}})
    assert (fit.model.lr, fit.model.hparams.width) == (0.001, 3)
    assert fit.data["datamodule"].batch_size == 2


class Texts(Line):
    def __init__(self, anything: typing.Any = None, untyped=None, mixed: int | str = 1, number: int = 1):
        super().__init__()
        self.got = anything, untyped, mixed, number


@pytest.mark.parametrize("text", ["1", "1e5", "true", "null", "[1]", "007"])
def test_text_stays_text_where_the_annotation_lets_it(tmp_path, text):
    values = dict.fromkeys(("anything", "untyped", "mixed"), text)
    assert build(tmp_path, {"model": {**values, "number": "4"}}, Texts).model.got == (text, text, text, 4)
    block = {"class_path": f"{Texts.__module__}.Texts", "init_args": values}
    assert build(tmp_path, {"model": {"act": {"class_path": "torch.nn.ELU"}, "widths": [1]}}, Nested).model.widths
    assert build(tmp_path, {"model": block}, Line).model.got == (text, text, text, 1)


@pytest.mark.parametrize("model", [lambda **kwargs: Line(**kwargs), functools.partial(Line, act="elu")])
def test_a_callable_may_take_anything(tmp_path, model):
    fit = build(tmp_path, {"model": {"lr": 0.5}, "data": {"batch_size": 2}}, model, lambda **kwargs: Points(**kwargs))
    assert (fit.model.lr, fit.data["datamodule"].batch_size) == (0.5, 2)


def test_nested_blocks_are_built(tmp_path):
    config = {"model": {"act": {"class_path": "torch.nn.ELU", "init_args": {"alpha": 2.0}}, "widths": [3, 4]}}
    fit = build(tmp_path, config, Nested)
    assert isinstance(fit.model.act, nn.ELU)
    assert fit.model.act.alpha == 2.0
    assert fit.model.widths == (3, 4)
    assert isinstance(fit.model.fixed, nn.ReLU)


def test_the_cli_form_needs_no_class_but_respects_one(tmp_path):
    block = {"model": {"class_path": "nets.Line", "init_args": {"lr": 0.5}}, "data": {"class_path": "nets.Points"}}
    assert build(tmp_path, block, None, None).model.lr == 0.5
    assert type(build(tmp_path, block, L.LightningModule, L.LightningDataModule).model) is Line
    with pytest.raises(ConfigurationError, match="nets.Line"):
        build(tmp_path, block, Nested)


def test_each_build_has_values_of_its_own(tmp_path):
    class Grows(Line):
        def __init__(self, widths: list[int]):
            super().__init__()
            widths.append(9)
            self.widths = widths

    config = {"model": {"widths": [1, 2]}, "data": {"batch_size": 2}, "trainer": CPU}
    blueprint = Blueprint(Schema(Grows, Points, L.Trainer), config)
    built = [blueprint.build(config, tmp_path, (), L.Callback()) for _ in range(2)]
    assert [fit.model.widths for fit in built] == [[1, 2, 9]] * 2
    assert built[0].data["datamodule"] is not built[1].data["datamodule"]


def test_the_config_is_left_as_it_was(tmp_path):
    stop = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "val_loss"}}
    config = {"model": {"lr": 0.5}, "trainer": {**CPU, "callbacks": [stop]}}
    build(tmp_path, config)
    assert config["trainer"]["callbacks"] == [
        {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "val_loss"}}
    ]


def test_trials_are_quick_and_quiet_unless_asked_otherwise(tmp_path):
    trainer = build(tmp_path, {}).trainer
    assert trainer.progress_bar_callback is None
    assert trainer.num_sanity_val_steps == 0
    assert trainer.checkpoint_callbacks == []
    assert isinstance(trainer.logger, CSVLogger)
    loud = build(tmp_path, {"trainer": {**CPU, "enable_progress_bar": True, "logger": False}}).trainer
    assert loud.progress_bar_callback is not None
    assert loud.loggers == []


def test_callbacks_come_from_the_config_and_from_the_user(tmp_path):
    stop = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "val_loss"}}
    checkpoint = ModelCheckpoint(monitor="val_loss")
    trainer = build(tmp_path, {"trainer": {**CPU, "callbacks": [stop]}}, callbacks=(checkpoint,)).trainer
    assert [type(callback) for callback in trainer.early_stopping_callbacks] == [EarlyStopping]
    assert trainer.checkpoint_callbacks == [checkpoint]


BOTH = ["train_dataloaders", "val_dataloaders"]
ONE, OTHER = loaders()


@pytest.mark.parametrize(
    ("data", "given"),
    [
        (loaders, BOTH),
        (lambda: ONE, {"train_dataloaders": ONE}),
        (functools.partial(loaders, batch_size=2), BOTH),
        (lambda: {"val": OTHER, "train": ONE}, {"train_dataloaders": ONE, "val_dataloaders": OTHER}),
        (lambda: {"val_dataloaders": OTHER}, {"val_dataloaders": OTHER}),
        (lambda: ({"a": ONE}, [ONE, OTHER]), {"train_dataloaders": {"a": ONE}, "val_dataloaders": [ONE, OTHER]}),
        (lambda: {"train": {"a": ONE}}, {"train_dataloaders": {"a": ONE}}),
        (lambda: (range(3), None), {"train_dataloaders": range(3), "val_dataloaders": None}),
    ],
)
def test_data_may_be_any_loaders(tmp_path, data, given):
    built = build(tmp_path, {}, data=data).data
    assert (list(built) if isinstance(given, list) else built) == given


class OwnLoaders(Line):
    def train_dataloader(self):
        return loaders()[0]


def test_a_model_may_bring_its_data(tmp_path):
    assert build(tmp_path, {}, OwnLoaders, data=None).data == {}
    with pytest.raises(ConfigurationError, match="There is no data: .*Line has no train_dataloader"):
        build(tmp_path, {}, data=None)


def test_an_object_bound_to_a_callable_is_not_parsed(tmp_path):
    def model(dataset: torch.utils.data.Dataset, lr: float = 0.1):
        assert len(dataset) == 16
        return Line(lr)

    bound = functools.partial(model, dataset=points())
    assert build(tmp_path, {"model": {"lr": 0.3}}, bound).model.lr == 0.3


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (lambda: 3, Points, "must build a LightningModule, but built int"),
        (lambda: nn.Linear(1, 1), Points, "must build a LightningModule, but built Linear"),
        (lambda: torch.compile(nn.Linear(1, 1), backend="eager"), Points, "but built OptimizedModule"),
        (Line, lambda: (1, 2, 3), "must build a LightningDataModule"),
        (Line, lambda: None, "must build a LightningDataModule"),
        (Line, lambda: "train", "must build a LightningDataModule"),
        (Line, lambda: {"train": ONE, "test": OTHER}, "'train', 'test'; its keys must be 'train' and 'val'"),
        (Line, lambda: {"a": ONE, "b": OTHER}, "To train on several dataloaders at a time"),
        (Line, dict, "a dict of nothing"),
    ],
)
def test_a_callable_that_builds_something_else_is_refused(tmp_path, model, data, message):
    with pytest.raises(ConfigurationError, match=message):
        build(tmp_path, {}, model, data)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model": {"lr": "fast"}}, "model.lr.*float"),
        ({"model": {"lrr": 1}}, "lrr"),
        ({"model": {"class_path": "nets.Line", "init_args": {"lrr": 1}}}, "lrr"),
        ({"trainer": {**CPU, "max_epochs": "many"}}, "max_epochs"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_in_one_line(tmp_path, config, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        build(tmp_path, config)
    assert "\n" not in str(caught.value)
