"""The weights that a trial starts from, and those that its training came to."""

import copy

import lightning as L
import pytest
import torch
from nets import Line, Points, loaders
from torch import nn

from lightningtune import OptunaDrivenOptimizer, TrialError
from lightningtune.config.schema import Schema
from lightningtune.contract import Objective, SilentReporter, StopReason, TrialSpec
from lightningtune.errors import SharedWeightsError
from lightningtune.training.build import Blueprint
from lightningtune.training.resumption import STATE, digest_training
from lightningtune.training.run import train
from lightningtune.training.weights import trained_model

CONFIG = {"seed_everything": 1, "model": {"lr": 0.1}, "trainer": {"max_epochs": 3}}


def load(path, config=CONFIG, score=(0.25,), model=Line, data=Points):
    return trained_model(Blueprint(Schema(model, data, L.Trainer), config), config, path, score)


@pytest.fixture
def save(tmp_path):
    def write(model, **kept):
        state = {"training": digest_training(CONFIG), "history": [(0.5,), (0.25,)], **kept}
        path = tmp_path / "best.ckpt"
        torch.save({"state_dict": model.state_dict(), STATE: state}, path)
        return path

    return write


def test_weights_are_taken_from_the_validation_that_gave_the_score(save):
    saved = Line()
    path, wider = save(saved), {**CONFIG, "trainer": {"max_epochs": 9}}
    for config, score in ((CONFIG, (0.25,)), (CONFIG, (0.25 + 1e-12,)), (wider, (0.25,)), (CONFIG, None)):
        assert torch.equal(load(path, config, score).net[0].weight, saved.net[0].weight)


@pytest.mark.parametrize(
    ("kept", "config", "score"),
    [({}, CONFIG, (0.5,)), ({}, {**CONFIG, "seed_everything": 2}, (0.25,)), ({"training": None}, CONFIG, (0.25,))],
)
def test_weights_of_another_validation_or_training_are_refused(save, kept, config, score):
    path = save(Line(), **kept)
    with pytest.raises(TrialError, match=f"'{path}' is not of the validation that gave the trial its score"):
        load(path, config, score)


class Counted(Points):
    classes = 3

    def setup(self, stage):
        self.seen = stage


class MadeInSetup(Line):
    def __init__(self, lr: float = 0.1):
        super().__init__(lr)
        self.calls = []

    def setup(self, stage):
        assert self.trainer.datamodule.seen == stage
        self.calls.append(stage)
        self.head = nn.Linear(2, self.trainer.datamodule.classes)


class MadeInConfigureModel(Line):
    def __init__(self, lr: float = 0.1):
        super().__init__(lr)
        self.head = None

    def configure_model(self):
        if self.head is None:
            self.head = nn.Linear(2, self.trainer.datamodule.classes)


class NotStrict(MadeInSetup):
    def __init__(self, lr: float = 0.1):
        super().__init__(lr)
        self.strict_loading = False


class Lazy(Line):
    def __init__(self, lr: float = 0.1):
        super().__init__(lr)
        self.head = nn.LazyLinear(3)


def compiled(lr: float = 0.1):
    model = Line(lr)
    model.head = nn.Linear(2, 3)
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize("model", [MadeInSetup, MadeInConfigureModel, NotStrict, Lazy, compiled])
def test_weights_of_layers_that_are_made_late_are_loaded(save, model):
    trained = Line()
    trained.head = nn.Linear(2, 3)
    loaded = load(save(trained), model=model, data=Counted)
    assert torch.equal(loaded.head.weight, trained.head.weight)
    assert torch.equal(loaded.net[0].weight, trained.net[0].weight)
    assert isinstance(loaded, Line)
    assert loaded.training
    assert getattr(loaded, "calls", ["fit"]) == ["fit"], "as a fit calls it"


def test_setup_is_not_called_where_the_weights_fit(save):
    class Fits(Line):
        def setup(self, stage):
            raise AssertionError

    assert load(save(Line()), model=Fits)


def test_what_setup_raises_is_named(save):
    trained = Line()
    trained.head = nn.Linear(2, 3)
    with pytest.raises(TrialError, match=r"need setup\(\) of the model: .*head.weight.* raised AttributeError: .*seen"):
        load(save(trained), model=MadeInSetup, data=loaders)


def test_weights_that_do_not_fit_a_model_that_is_set_up_are_refused(save):
    with pytest.raises(RuntimeError, match="size mismatch for net.0.weight"):
        load(save(Line(width=5)), model=MadeInSetup, data=Counted)


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


class LazyNet(Line):
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
    assert [run(tmp_path, model=LazyNet).reason for _ in range(2)] == [StopReason.COMPLETED] * 2


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
