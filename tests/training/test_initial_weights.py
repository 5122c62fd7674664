"""Models of several trials that hold the same network, in real fits."""

import copy

import lightning as L
import pytest
import torch
from nets import Line, Points
from torch import nn

from lightningtune import OptunaDrivenOptimizer
from lightningtune.config.schema import Schema
from lightningtune.contract import Objective, SilentReporter, StopReason, TrialSpec
from lightningtune.errors import SharedWeightsError
from lightningtune.training.build import Blueprint
from lightningtune.training.run import train


class OfTheScript(Line):
    """Takes a network that was made before, in a way that ``how`` names."""

    shared: nn.Module

    def __init__(self, lr: float = 0.1, how: str = "as it is"):
        super().__init__(lr)
        self.how = how
        if how == "copied":
            self.net = copy.deepcopy(self.shared)
        elif how == "reset":
            nn.init.ones_(self.shared.weight)
            nn.init.zeros_(self.shared.bias)
        elif how == "frozen":
            self.shared.requires_grad_(False)
            self.net = nn.Sequential(self.shared, nn.Linear(1, 1))
        if how in ("as it is", "reset"):
            self.net = self.shared

    def configure_model(self):
        if self.how == "late":
            self.net = self.shared

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class FailsLate(OfTheScript):
    def on_train_epoch_end(self):
        raise RuntimeError("too late")


class Lazy(Line):
    def __init__(self):
        super().__init__()
        self.net = nn.LazyLinear(1)


@pytest.fixture(autouse=True)
def _shared(monkeypatch):
    monkeypatch.setattr(OfTheScript, "shared", nn.Linear(2, 1), raising=False)


def run(tmp_path, model=OfTheScript, **given):
    trainer = {"accelerator": "cpu", "max_epochs": 1, "logger": False, "num_sanity_val_steps": 0}
    config = {"seed_everything": 1, "model": given, "trainer": trainer}
    spec = TrialSpec(0, config, tmp_path, Objective(("val_loss",), ("min",)), save_checkpoints=False)
    return train(spec, Blueprint(Schema(model, Points, L.Trainer), config), SilentReporter())


@pytest.mark.parametrize("how", ["as it is", "late"])
def test_a_network_that_an_earlier_trial_has_trained_is_refused(tmp_path, how):
    assert run(tmp_path, how=how).reason is StopReason.COMPLETED
    with pytest.raises(SharedWeightsError, match=r"'net\.weight' of the model .* isolate=True"):
        run(tmp_path, how=how)


@pytest.mark.parametrize("how", ["copied", "reset", "frozen"])
def test_one_that_starts_as_in_the_trial_before_is_not(tmp_path, how):
    before = copy.deepcopy(OfTheScript.shared.state_dict())
    first, second = run(tmp_path, how=how), run(tmp_path, how=how)
    assert first.score == second.score
    assert second.reason is StopReason.COMPLETED
    assert torch.equal(before["weight"], OfTheScript.shared.weight) is (how != "reset")


def test_a_trial_that_fails_has_trained_too(tmp_path):
    assert run(tmp_path, model=FailsLate).reason is StopReason.FAILED
    with pytest.raises(SharedWeightsError):
        run(tmp_path)


def test_lazy_layers_are_new_in_each_trial(tmp_path):
    assert [run(tmp_path, model=Lazy).reason for _ in range(2)] == [StopReason.COMPLETED] * 2


@pytest.mark.parametrize(
    "isolate", [pytest.param(False, id="here"), pytest.param(True, id="apart", marks=pytest.mark.slow)]
)
def test_a_study_ends_at_the_second_trial_or_trains_each_in_a_process_of_its_own(tmp_path, isolate):
    optimizer = OptunaDrivenOptimizer(
        {"seed_everything": 1, "trainer": {"accelerator": "cpu", "max_epochs": 1, "logger": False}},
        {"lr": ("categorical", [0.1])},
        OfTheScript,
        Points,
        n_trials=3,
        experiment_dir=tmp_path,
        verbose=False,
        isolate=isolate,
    )
    if isolate:
        assert len({trial.value for trial in optimizer.optimize().trials}) == 1
        return
    with pytest.raises(SharedWeightsError, match="an earlier trial has already trained"):
        optimizer.optimize()
    assert [trial.state.name for trial in optimizer.study.trials] == ["COMPLETE", "FAIL"]
