"""What is known of a training that has ended."""

import dataclasses
import sys

import lightning as L
import pytest
import torch
from nets import Line, Points

from lightningtune.config.schema import Schema
from lightningtune.contract import Objective, SilentReporter, TrialFacts, TrialSpec
from lightningtune.training.build import Blueprint
from lightningtune.training.run import collect_facts, train


def facts(folder, model=Line):
    config = {"seed_everything": 1, "trainer": {"accelerator": "cpu", "max_epochs": 2}}
    spec = TrialSpec(0, config, folder, Objective(("val_loss",), ("min",)))
    return train(spec, Blueprint(Schema(model, Points, L.Trainer), config), SilentReporter()).facts


class Large(Line):
    """Holds 200 MB for a moment."""

    def on_train_start(self):
        torch.ones(50_000_000)


class HalfFrozen(Line):
    def __init__(self):
        super().__init__()
        self.net[0].requires_grad_(False)
        self.lazy = torch.nn.LazyLinear(3)


class Fails(Line):
    def training_step(self, batch, batch_idx):
        raise ValueError("no")


class NeverBuilt(Line):
    def __init__(self):
        raise ValueError("no")


def test_a_training_tells_what_it_was_done_with(tmp_path):
    found = facts(tmp_path)
    assert found.device.startswith("cpu (")
    assert (found.threads, found.ranks) == (torch.get_num_threads(), 1)
    assert (found.parameters, found.trainable, found.device_memory) == (17, 17, None)


def test_frozen_parameters_and_those_that_never_came_to_be_are_not_trainable(tmp_path):
    found = facts(tmp_path, HalfFrozen)
    assert (found.parameters, found.trainable) == (17, 5)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_the_peak_of_memory_is_of_this_training_though_the_process_has_held_more(tmp_path):
    large, small = facts(tmp_path / "large", Large), facts(tmp_path / "small")
    assert large.memory - small.memory > 150_000_000


def test_a_training_that_failed_tells_as_much(tmp_path):
    assert facts(tmp_path, Fails).parameters == 17
    assert facts(tmp_path, NeverBuilt).device is None
    assert facts(tmp_path, NeverBuilt).threads == torch.get_num_threads()


def test_a_peak_that_the_process_had_before_is_not_taken_for_this_trainings():
    assert collect_facts(None, above=2**60) == TrialFacts(threads=torch.get_num_threads())


def test_facts_are_plain_values(tmp_path):
    assert all(isinstance(value, (str, int, type(None))) for value in dataclasses.asdict(facts(tmp_path)).values())
