"""One trial with trackers, as the host would have it trained; and whole studies with them."""

import lightning as L
from nets import Line, Points

from lightningtune import OptunaDrivenOptimizer
from lightningtune.config.schema import Schema
from lightningtune.contract import Objective, SilentReporter, Stop, TrialSpec
from lightningtune.training.build import Blueprint
from lightningtune.training.run import train

PARAMS = {"model.lr": 0.1, "act": "relu"}
LOSS = Objective(("val_loss",), ("min",))


class Stops(SilentReporter):
    """Stops a trial at its second validation."""

    def __init__(self, reason):
        self.reason = reason

    def report(self, values, step):
        return Stop(self.reason, "told to stop") if step == 1 else None


class Breaks(Line):
    def on_train_epoch_end(self):
        raise RuntimeError("it broke")


def fit(folder, logger, model=Line, reporter=None, checkpoint=None, number=7, **trainer):
    config = {
        "seed_everything": 1,
        "trainer": {"accelerator": "cpu", "max_epochs": 3, "log_every_n_steps": 1, "logger": logger, **trainer},
    }
    spec = TrialSpec(number, config, folder, LOSS, study="mine", params=PARAMS, checkpoint=checkpoint)
    return train(spec, Blueprint(Schema(model, Points, L.Trainer), config), reporter or SilentReporter())


SPACE = {"model.lr": ("loguniform", 1e-3, 1e-1)}


def study_of(tmp_path, logger, callbacks=(), **options):
    """Return a study of two short trials."""
    trainer = {"accelerator": "cpu", "max_epochs": 2, "log_every_n_steps": 1, "logger": logger}
    given = {"n_trials": 2, "seed": 1, "verbose": False, **options}
    return OptunaDrivenOptimizer(
        {"trainer": {**trainer, **given.pop("trainer", {})}},
        SPACE,
        Line,
        Points,
        study_name=given.pop("study_name", "mine"),
        experiment_dir=tmp_path,
        callbacks=callbacks,
        **given,
    )
