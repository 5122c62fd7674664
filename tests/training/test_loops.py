"""How far a fit is, and how it ends early."""

import math

import lightning as L
import pytest
from fits import BATCHES, Scripted, StatusLogger, Watch, data, trainer
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.profilers import PassThroughProfiler

from lightningtune.training.loops import FitProgress, get_callbacks, raise_at_end_of_fit, reraise_at_end_of_fit


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


def play(max_epochs, max_steps, batches, accumulate, interval, every):
    """Run through a fit as Lightning does; yield what a validation sees and the batches that are done."""
    steps = done = 0
    for epoch in range(max_epochs):
        for batch in range(1, batches + 1):
            done += 1
            steps += batch % accumulate == 0 or batch == batches
            within, of_epoch = (done, True) if every is None else (batch, (epoch + 1) % every == 0)
            if of_epoch and within % interval == 0:
                yield done, epoch, batch, steps
            if steps >= max_steps:
                yield done, None, None, None
                return
    yield done, None, None, None


fits = st.fixed_dictionaries(
    {
        "max_epochs": st.integers(1, 5),
        "max_steps": st.one_of(st.integers(1, 30), st.just(math.inf)),
        "batches": st.integers(1, 7),
        "accumulate": st.integers(1, 8),
        "interval": st.integers(1, 9),
        "every": st.one_of(st.none(), st.integers(1, 3)),
    }
)


@given(fits)
def test_the_last_validation_is_the_one_after_which_none_comes(fit):
    if fit["every"] is not None:
        fit["interval"] = min(fit["interval"], fit["batches"])  # Lightning refuses the others
    *validations, (end, *_) = play(**fit)
    for i, (done, epoch, batch, steps) in enumerate(validations):
        progress = FitProgress(
            epoch=epoch,
            max_epochs=fit["max_epochs"],
            batch=batch,
            batches=fit["batches"],
            steps_left=fit["max_steps"] - steps,
            batches_per_step=fit["accumulate"],
            interval=fit["interval"],
            every_n_epochs=fit["every"],
        )
        assert progress.is_last_validation == (i == len(validations) - 1), (fit, progress)
        assert progress.batches_left == end - done
        if i + 1 < len(validations):
            assert progress.batches_to_next_validation == validations[i + 1][0] - done


@pytest.mark.parametrize(
    "fit",
    [
        {"max_epochs": 3, "max_steps": math.inf, "accumulate": 1, "interval": 4, "every": 1},
        {"max_epochs": 5, "max_steps": math.inf, "accumulate": 3, "interval": 2, "every": 2},
        {"max_epochs": 3, "max_steps": math.inf, "accumulate": 1, "interval": 3, "every": 1},
        {"max_epochs": 3, "max_steps": math.inf, "accumulate": 2, "interval": 3, "every": None},
        {"max_epochs": 4, "max_steps": 5, "accumulate": 3, "interval": 1, "every": 1},
        {"max_epochs": 9, "max_steps": 10, "accumulate": 1, "interval": 5, "every": None},
    ],
)
def test_lightning_plays_by_the_same_rule(fit):
    class Note(L.Callback):
        def on_validation_end(self, trainer, pl_module):
            loop = trainer.fit_loop
            seen.append((loop.total_batch_idx + 1, trainer.current_epoch, loop.batch_idx + 1, trainer.global_step))

    seen = []
    *validations, _ = play(batches=BATCHES, **fit)
    trainer(
        Note(),
        num_sanity_val_steps=0,
        max_epochs=fit["max_epochs"],
        max_steps=-1 if math.isinf(fit["max_steps"]) else fit["max_steps"],
        accumulate_grad_batches=fit["accumulate"],
        val_check_interval=fit["interval"],
        check_val_every_n_epoch=fit["every"],
    ).fit(Scripted(), data(), data())
    assert seen == validations


def progress(**given):
    known = {
        "epoch": 0,
        "max_epochs": math.inf,
        "batch": 10,
        "batches": 10,
        "steps_left": math.inf,
        "batches_per_step": 1,
        "interval": 10,
        "every_n_epochs": 1,
    }
    return FitProgress(**{**known, **given})


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"every_n_epochs": None},
        {"every_n_epochs": 3, "epoch": 2},
        {"batches": math.inf, "interval": 5, "every_n_epochs": None},  # an endless loader, within its first epoch
        {"batches": math.inf, "interval": 5, "steps_left": 5},
        {"batches": math.inf, "interval": math.inf, "max_epochs": 2},
        {"interval": math.inf, "max_epochs": 2},  # a loader without a length, at the end of an epoch
    ],
)
def test_where_bounds_are_unknown_more_is_to_come(given):
    assert not progress(**given).is_last_validation


@pytest.mark.parametrize(
    "given",
    [
        {"max_epochs": 1},
        {"steps_left": 0},
        {"steps_left": 9},
        {"batches": math.inf, "interval": 5, "steps_left": 4},
        {"batches": math.inf, "interval": 5, "steps_left": 2, "batches_per_step": 2},
        {"interval": math.inf, "max_epochs": 1},
    ],
)
def test_where_a_bound_comes_first_nothing_is_to_come(given):
    assert progress(**given).is_last_validation
