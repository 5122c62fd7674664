"""An exception that leaves ``Trainer.fit`` after everything that a good end brings with it."""

import lightning as L
import pytest
from fits import Scripted, StatusLogger, Watch, data, trainer
from lightning.pytorch.profilers import PassThroughProfiler

from lightningtune.training.loops import get_callbacks, raise_at_end_of_fit, reraise_at_end_of_fit


class EndError(Exception):
    pass


class Ender(L.Callback):
    """Ends the fit in an error, as the functions ask it to be done."""

    def __init__(self):
        self.error = EndError("the end")

    def on_fit_end(self, trainer, pl_module):
        raise_at_end_of_fit(trainer, self, self.error)

    def on_exception(self, trainer, pl_module, exception):
        if exception is self.error:
            reraise_at_end_of_fit(trainer, exception)


class Describes(PassThroughProfiler):
    described = 0

    def describe(self):
        self.described += 1


@pytest.mark.parametrize("first", [True, False])
def test_the_error_is_the_last_thing_that_happens(tmp_path, first):
    watch, ender, logger, profiler = Watch(), Ender(), StatusLogger(tmp_path), Describes()
    callbacks = [ender, watch] if first else [watch, ender]
    run = trainer(*callbacks, logger=logger, profiler=profiler, max_epochs=1, log_every_n_steps=1)
    with pytest.raises(EndError, match="the end") as caught:
        run.fit(Scripted(), data(), data())
    assert caught.value is ender.error
    assert watch.seen == ["on_train_end", "on_fit_end", "teardown"]
    assert logger.statuses == ("success",)
    assert profiler.described == 1
    assert run.loggers == [logger]
    assert (run.state.status, run.state.stage) == ("finished", None)


def test_it_works_without_a_logger():
    run = trainer(Ender(), max_epochs=1)
    with pytest.raises(EndError):
        run.fit(Scripted(), data(), data())
    assert run.loggers == []


def test_the_same_trainer_can_fit_again():
    ender = Ender()
    run = trainer(ender, max_epochs=1)
    with pytest.raises(EndError):
        run.fit(Scripted(), data(), data())
    run.callbacks = [callback for callback in get_callbacks(run) if callback is not ender]
    run.fit_loop.max_epochs = 2
    model = Scripted()
    run.fit(model, data(), data())
    assert model.validations == 1
    assert run.state.status == "finished"


def test_an_error_in_between_is_not_hidden(tmp_path):
    class Broken(L.Callback):
        def teardown(self, *_, **__):
            raise ValueError("cannot upload")

    watch, logger = Watch(), StatusLogger(tmp_path)
    run = trainer(Ender(), watch, Broken(), logger=logger, max_epochs=1, log_every_n_steps=1)
    with pytest.raises(ValueError, match="cannot upload"):
        run.fit(Scripted(), data(), data())
    assert watch.seen[-1] == "on_exception ValueError"
    assert logger.statuses == ("failed",)
    assert run.loggers == [logger]
