"""``pytorch_lightning`` beside ``lightning.pytorch`` is refused, wherever it was made."""

import lightning as L
import pytest
from fits import Scripted, data, trainer

from lightningtune.contract import Objective, SilentReporter
from lightningtune.errors import ConfigurationError
from lightningtune.training.callback import TrialCallback

pl = pytest.importorskip("pytorch_lightning")

MESSAGE = "'{}' comes from pytorch_lightning, whose classes do not mix with those of lightning.pytorch"


def watcher():
    return TrialCallback(Objective(("val_loss",), ("min",)), SilentReporter())


class Stopper(pl.callbacks.EarlyStopping):
    pass


class Half(Scripted, pl.core.hooks.ModelHooks):
    pass


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return data()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("other", [pl.callbacks.EarlyStopping, Stopper])
def test_a_callback_that_was_made_elsewhere_is_refused(other, first):
    callbacks = [other("val_loss"), watcher()]
    with pytest.raises(ConfigurationError, match=MESSAGE.format(other.__name__)):
        trainer(*callbacks[:: 1 if first else -1]).fit(Scripted(), data(), data())


def test_a_logger_is_refused(tmp_path):
    run = trainer(watcher(), logger=[L.pytorch.loggers.CSVLogger(tmp_path), pl.loggers.CSVLogger(tmp_path)])
    with pytest.raises(ConfigurationError, match=MESSAGE.format("CSVLogger")):
        run.fit(Scripted(), data(), data())


def test_a_model_that_is_partly_of_the_other_is_refused():
    with pytest.raises(ConfigurationError, match=MESSAGE.format("Half")):
        trainer(watcher()).fit(Half(), data(), data())


def test_the_other_trainer_is_refused():
    class Other(pl.LightningModule):
        def training_step(self, batch, batch_idx): ...

        def configure_optimizers(self): ...

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    with pytest.raises(ConfigurationError, match="Other is trained by the Trainer of pytorch_light.*use plain Optuna"):
        pl.Trainer(callbacks=[watcher()], max_epochs=1, **quiet).fit(Other(), data())


def test_without_a_mixture_a_fit_is_left_alone():
    trainer(watcher(), max_epochs=1).fit(Scripted(), data(), data())
