import enum
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from lightningtune.training.messages import one_line, refusal


class Kind(enum.Enum):
    small = 1
    large = 2


class Net(LightningModule):
    def __init__(
        self,
        lr: float = 0.1,
        act: Literal["relu", "gelu"] = "relu",
        kind: Kind = Kind.small,
        pair: tuple[int, float] = (1, 2.0),
        opt: dict[str, int | str] | None = None,
        inner: nn.Module | None = None,
    ):
        super().__init__()


@pytest.fixture(scope="module")
def parsers():
    plain, named = ArgumentParser(exit_on_error=False), ArgumentParser(exit_on_error=False)
    for name, target in (("trainer", Trainer), ("model", Net)):
        plain.add_class_arguments(target, name, instantiate=False, fail_untyped=False, sub_configs=True)
    named.add_subclass_arguments(LightningModule, "model", fail_untyped=False, required=True)
    return plain, named


def refused(parser, config):
    with pytest.raises(Exception, match=r".") as caught:
        parser.parse_object(config)
    return refusal(caught.value)


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ({"max_epochs": "ten"}, "trainer.max_epochs: expected int or None, but got 'ten'."),
        ({"limit_val_batches": "all"}, "trainer.limit_val_batches: expected int, float or None, but got 'all'."),
        ({"logger": 3}, "trainer.logger: expected Logger, list, bool or None, but got 3."),
        ({"logger": [3]}, "trainer.logger: expected Logger, but got 3."),
        (
            {"logger": {"class_path": "CSVLogger", "init_args": {"save_dir": 3}}},
            "trainer.logger.init_args.save_dir: expected str or Path, but got 3.",
        ),
        (
            {"callbacks": [{"class_path": "EarlyStopping", "init_args": {"monitor": "x", "patience": "long"}}]},
            "trainer.callbacks.init_args.patience: expected int, but got long.",
        ),
        (
            {"strategy": {"class_path": "DDPStrategy", "init_args": {"find": 1}}},
            "trainer.strategy.init_args: Option 'find' is not accepted.",
        ),
        ({"max_time": 3.5}, "trainer.max_time: expected str, timedelta, dict or None, but got 3.5."),
        ({"max_epoch": 1}, "Group 'trainer' does not accept option 'max_epoch'"),
    ],
)
def test_of_a_trainers_argument_it_is_said_what_is_expected(parsers, trainer, said):
    assert refused(parsers[0], {"trainer": trainer, "model": {}}) == said


@pytest.mark.parametrize(
    ("arguments", "path", "said"),
    [
        ({"lr": "high"}, "lr", "expected float, but got high."),
        ({"act": "tanh"}, "act", "expected 'relu' or 'gelu', but got tanh."),
        ({"kind": "huge"}, "kind", "expected small or large, but got huge."),
        ({"pair": [1]}, "pair", "Expected a tuple with 2 elements. Got value: [1]."),
        ({"opt": {"a": [1]}}, "opt", "expected int or str, but got [1]."),
        ({"inner": 3}, "inner", "expected Module or None, but got 3."),
        (
            {"inner": {"class_path": "torch.nn.Linear", "init_args": {"in_features": "a", "out_features": 2}}},
            "inner.init_args.in_features",
            "expected int, but got a.",
        ),
        (
            {"inner": {"class_path": "torch.nn.Linear", "init_args": {"in_features": 1}}},
            "inner.init_args",
            "the following arguments are required: out_features.",
        ),
    ],
)
def test_of_a_models_argument_too_however_the_model_is_named(parsers, arguments, path, said):
    plain, named = parsers
    assert refused(plain, {"model": arguments}) == f"model.{path}: {said}"
    block = {"class_path": f"{__name__}.Net", "init_args": arguments}
    assert refused(named, {"model": block}) == f"model.init_args.{path}: {said}"


def test_a_value_that_would_fill_a_page_is_cut(parsers):
    said = refused(parsers[0], {"trainer": {"max_epochs": {f"key_{i}": i for i in range(99)}}, "model": {}})
    assert said.startswith("trainer.max_epochs: expected int or None, but got {'key_0': 0,")
    assert len(said) < 200


@given(st.lists(st.sampled_from(['Parser key "a":', "- Expected a <class 'int'>", "Errors:", "  ", "x: y", "\n"])))
def test_what_is_not_understood_is_returned_as_it_is(parts):
    error = ValueError("".join(parts))
    said = refusal(error)
    assert said == one_line(error) or said.startswith("a")


def test_a_message_of_several_lines_becomes_one():
    assert one_line(ValueError("It is\n  not so.")) == "It is not so."
    assert refusal(OSError(2, "No such file", str(Path("a")))) == "[Errno 2] No such file: 'a'"
