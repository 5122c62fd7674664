import enum
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import pytest
import torch
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
        act: Literal["relu", "ge, lu"] = "relu",
        drop: Literal["a.b", 3] | None = None,
        kind: Kind = Kind.small,
        pair: tuple[int, float] = (1, 2.0),
        opt: dict[str, int | str] | None = None,
        root: Path = Path(),
        inner: nn.Module | None = None,
        optim: Callable[[Iterable], torch.optim.Optimizer] = torch.optim.SGD,
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


CSV = {"class_path": "CSVLogger", "init_args": {"save_dir": "x", "flush_logs_every_n_steps": "y"}}
LONG = {"class_path": "EarlyStopping", "init_args": {"monitor": "x", "patience": "long"}}


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ({"max_epochs": "ten"}, "trainer.max_epochs: expected int or None, but got ten."),
        ({"max_epochs": "ten\n"}, "trainer.max_epochs: expected int or None, but got ten."),
        ({"limit_val_batches": "all"}, "trainer.limit_val_batches: expected int, float or None, but got all."),
        ({"devices": [1, "a"]}, "trainer.devices: expected int, but got a."),
        ({"logger": 3}, "trainer.logger: expected Logger, Iterable[Logger], bool or None, but got 3."),
        ({"logger": [3]}, "trainer.logger: expected Logger, but got 3."),
        ({"logger": CSV}, "trainer.logger: flush_logs_every_n_steps of CSVLogger: expected int, but got y."),
        (
            {"logger": ["CSVLogger", CSV]},
            "trainer.logger: flush_logs_every_n_steps of CSVLogger: expected int, but got y.",
        ),
        ({"callbacks": [LONG]}, "trainer.callbacks: patience of EarlyStopping: expected int, but got long."),
        (
            {"strategy": {"class_path": "DDPStrategy", "init_args": {"find": 1}}},
            "trainer.strategy: DDPStrategy: Option 'find' is not accepted.",
        ),
        (
            {"strategy": {"class_path": "DDPStrateg"}},
            "trainer.strategy: expected the path of a class, such as package.module.Name, but got DDPStrateg.",
        ),
        ({"max_time": 3.5}, "trainer.max_time: expected str, timedelta, dict[str, int] or None, but got 3.5."),
        ({"max_epoch": 1}, "Group 'trainer' does not accept option 'max_epoch'"),
    ],
)
def test_of_a_trainers_argument_it_is_said_what_is_expected(parsers, trainer, said):
    assert refused(parsers[0], {"trainer": trainer, "model": {}}) == said


@pytest.mark.parametrize(
    ("arguments", "inner", "said"),
    [
        ({"lr": "high"}, "", "expected float, but got high."),
        ({"lr": ""}, "", "expected float, but got ''."),
        ({"act": "tanh"}, "", "expected Literal['relu', 'ge, lu'], but got tanh."),
        ({"drop": "x"}, "", "expected Literal['a.b', 3] or None, but got x."),
        ({"kind": "huge"}, "", "Expected a member of <enum 'Kind'>: {small,large}. Got value: huge."),
        ({"pair": [1]}, "", "Expected a tuple with 2 elements. Got value: [1]."),
        ({"root": 3}, "", "Not of type Path: expected str, bytes or os.PathLike object, not int."),
        ({"opt": {"a": [1]}}, "", "expected int or str, but got [1]."),
        ({"inner": 3}, "", "expected Module or None, but got 3."),
        ({"inner": "NoSuch"}, "", "expected Module or None, but got NoSuch."),
        ({"inner": {"class_path": "nosuch.X"}}, "X: ", "No module named 'nosuch'."),
        (
            {"inner": {"class_path": "torch.nn.Linear", "init_args": {"in_features": "a", "out_features": 2}}},
            "in_features of Linear: ",
            "expected int, but got a.",
        ),
        (
            {"inner": {"class_path": "torch.nn.Linear", "init_args": {"in_features": 1}}},
            "Linear: ",
            "the following arguments are required: out_features.",
        ),
    ],
)
def test_of_a_models_argument_too_however_the_model_is_named(parsers, arguments, inner, said):
    plain, named = parsers
    (argument,) = arguments
    assert refused(plain, {"model": arguments}) == f"model.{argument}: {inner}{said}"
    block = {"class_path": f"{__name__}.Net", "init_args": arguments}
    assert refused(named, {"model": block}) == f"model: {argument} of Net: {inner}{said}"


def test_an_argument_of_what_is_called_later_is_named_as_well(parsers):
    block = {"class_path": "torch.optim.SGD", "init_args": {"lr": "q"}}
    assert refused(parsers[0], {"model": {"optim": block}}) == "model.optim: lr: expected float or Tensor, but got q."


def test_a_value_that_would_fill_a_page_is_cut(parsers):
    many = {f"key_{i}": i for i in range(99)}
    of_several, of_one = (
        refused(parsers[0], config) for config in ({"trainer": {"max_epochs": many}}, {"model": {"lr": many}})
    )
    assert of_several.startswith("trainer.max_epochs: expected int or None, but got {'key_0': 0,")
    assert of_one.startswith("model.lr: expected float, but got {'key_0': 0,")
    assert max(len(of_several), len(of_one)) < 200


@given(st.lists(st.sampled_from(['Parser key "a":', "- Expected a <class 'int'>", "Errors:", "  ", "x: y", "\n"])))
def test_what_is_not_understood_is_returned_as_it_is(parts):
    error = ValueError("".join(parts))
    said = refusal(error)
    assert said == one_line(error) or said.startswith("a")


def test_a_message_of_several_lines_becomes_one():
    assert one_line(ValueError("It is\n  not so.")) == "It is not so."
    assert refusal(OSError(2, "No such file", str(Path("a")))) == "[Errno 2] No such file: 'a'"
