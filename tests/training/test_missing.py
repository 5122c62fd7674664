"""What is said of a metric that has no value, in real fits."""

import pytest
from fits import BATCHES, Scripted, TrainMetricWithValidation, TrainOnly, data, trainer

from lightningtune.contract import Objective, SilentReporter
from lightningtune.errors import MetricError
from lightningtune.training.callback import TrialCallback


def fit(model, monitor, *loaders, **given):
    watcher = TrialCallback(Objective((monitor,), ("min",)), SilentReporter())
    trainer(watcher, **given).fit(model, *loaders)
    return watcher


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
@pytest.mark.parametrize("monitor", ["val_loss", "train_los", "value"])
@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no `validation_step`")
def test_where_no_validation_runs_the_reason_is_given(model, given, why, monitor):
    built, epochs = model(), given.get("max_epochs", 2)
    given = {"max_epochs": epochs, **given}
    if monitor == "val_loss":  # no epoch of training will log that
        with pytest.raises(MetricError) as caught:
            fit(built, monitor, data(), data(), **given)
        error = caught.value
    else:
        error = fit(built, monitor, data(), data(), **given).fit_error
    hint = "" if monitor == "value" else " Did you mean 'train_loss'?"
    assert str(error) == f"No validation ran ({why}), so '{monitor}' has no value. Training logged: train_loss.{hint}"
    assert built.global_step == (1 if monitor == "val_loss" else epochs) * BATCHES


def test_where_nothing_is_given_to_validate_with_that_is_the_reason():
    with pytest.raises(MetricError, match=r"No validation ran \(there is no dataloader for it\), so 'val_loss' has"):
        fit(Scripted(), "val_loss", data())
