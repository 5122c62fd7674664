"""What is said of a metric that has no value, in real fits."""

import logging

import pytest
from fits import BATCHES, Scripted, TrainMetricWithValidation, TrainOnly, data, trainer

from lightningtune.contract import Objective, SilentReporter
from lightningtune.errors import MetricError
from lightningtune.training import missing
from lightningtune.training.callback import TrialCallback


def fit(model, monitor, *loaders, **given):
    watcher = TrialCallback(Objective((monitor,), ("min",)), SilentReporter())
    trainer(watcher, **given).fit(model, *loaders)


@pytest.mark.parametrize(
    ("model", "given", "why"),
    [
        (TrainMetricWithValidation, {"limit_val_batches": 0}, "limit_val_batches is 0"),
        (TrainMetricWithValidation, {"limit_val_batches": 0.0}, "limit_val_batches is 0"),
        (
            TrainMetricWithValidation,
            {"check_val_every_n_epoch": 9, "max_epochs": 3},
            "check_val_every_n_epoch=9 is more than max_epochs=3",
        ),
        (TrainOnly, {}, "TrainOnly has no validation_step"),
    ],
)
@pytest.mark.parametrize("monitor", ["val_loss", "train_los"])
@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no `validation_step`")
def test_where_no_validation_runs_the_reason_is_given_after_the_first_epoch(model, given, why, monitor):
    built = model()
    with pytest.raises(MetricError) as caught:
        fit(built, monitor, data(), data(), **given)
    assert str(caught.value) == (
        f"No validation ran ({why}), so '{monitor}' has no value. "
        "Training logged: train_loss. Did you mean 'train_loss'?"
    )
    assert built.global_step == BATCHES


def test_where_nothing_is_given_to_validate_with_that_is_the_reason():
    with pytest.raises(MetricError, match=r"No validation ran \(there is no dataloader for it\), so 'val_loss' has"):
        fit(Scripted(), "val_loss", data())


def test_where_validation_ran_the_metric_was_not_logged():
    with pytest.raises(MetricError) as caught:
        fit(Scripted(), "val_los", data(), data())
    assert str(caught.value) == "The metric 'val_los' was not logged. Logged: val_loss. Did you mean 'val_loss'?"


def test_a_metric_that_is_waited_for_is_told_of_once(caplog, monkeypatch):
    monkeypatch.setattr(missing, "_NOTICED", set())
    with caplog.at_level(logging.WARNING, "lightningtune"):
        for _ in range(2):
            fit(TrainMetricWithValidation(), "train_loss", data(), data(), val_check_interval=0.5, max_epochs=2)
    assert [record.getMessage() for record in caplog.records if record.name == "lightningtune.training.missing"] == [
        "No 'train_loss' so far; this training epoch has to log it. Logged: val_acc."
    ]
