"""`TuneCallback` in real fits: what is reported, what the score is, and which mistakes are refused."""

import contextlib
import logging
import sys

import optuna
import pytest
from fits import (
    BATCHES,
    Manual,
    PruneAt,
    Scripted,
    StatusLogger,
    TrainMetricWithValidation,
    TrainOnly,
    Watch,
    data,
    run,
    trainer,
)
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lightningtune import ConfigurationError, TuneCallback
from lightningtune.errors import MetricError

# --- what is reported --------------------------------------------------------------------------------------------


def test_every_validation_of_the_fit_is_a_step():
    trial, _ = run()
    assert trial.intermediate_values == {0: 5.0, 1: 4.0, 2: 3.0, 3: 2.0, 4: 1.0}


def test_neither_the_sanity_check_nor_validate_is_reported():
    trial, tune = run(
        num_sanity_val_steps=2,
        max_epochs=2,
        after=lambda fit: fit.validate(fit.lightning_module, data(), verbose=False),
    )
    assert trial.intermediate_values == {0: 5.0, 1: 4.0}
    assert tune.score == 4.0


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        ({"val_check_interval": 0.5, "max_epochs": 2}, 4),
        ({"val_check_interval": 2, "check_val_every_n_epoch": None, "max_epochs": 2}, 4),
        ({"val_check_interval": 6, "check_val_every_n_epoch": None, "max_epochs": 3}, 2),
        ({"check_val_every_n_epoch": 2, "max_epochs": 5}, 2),
        ({"limit_val_batches": 1, "max_epochs": 2}, 2),
        ({"accumulate_grad_batches": 3, "max_epochs": 2}, 2),
        ({"max_steps": 6, "max_epochs": -1, "val_check_interval": 3, "check_val_every_n_epoch": None}, 2),
    ],
)
def test_validations_are_counted_however_often_they_come(given, steps):
    assert list(run(**given)[0].intermediate_values) == list(range(steps))


def test_manual_optimization_is_reported():
    assert len(run(Manual())[0].intermediate_values) == 5


@pytest.mark.parametrize("where", ["step", "hook"])
@pytest.mark.parametrize(
    ("model", "given"),
    [
        (TrainOnly, {}),
        (TrainMetricWithValidation, {}),
        (TrainMetricWithValidation, {"val_check_interval": 0.5}),
        (TrainMetricWithValidation, {"val_check_interval": 3}),
    ],
)
def test_a_training_metric_is_reported_once_an_epoch(where, model, given):
    loaders = (data(), data()) if model is TrainMetricWithValidation else (data(),)
    trial, _ = run(model(where), tune={"monitor": "train_loss"}, loaders=loaders, max_epochs=3, **given)
    assert trial.intermediate_values == {0: 0.0, 1: 1.0, 2: 2.0}


def test_a_training_metric_prunes_too():
    trial, _ = run(TrainOnly("hook"), PruneAt(1), tune={"monitor": "train_loss"}, loaders=(data(),))
    assert trial.state.name == "PRUNED"
    assert trial.intermediate_values == {0: 0.0, 1: 1.0}


@pytest.mark.parametrize("where", ["step", "hook"])
@pytest.mark.parametrize(("every", "epochs"), [(2, 4), (9, 3)])
def test_a_training_metric_is_never_read_an_epoch_late(where, every, epochs):
    trial, _ = run(
        TrainMetricWithValidation(where),
        tune={"monitor": "train_loss"},
        max_epochs=epochs,
        check_val_every_n_epoch=every,
    )
    assert trial.intermediate_values == {epoch: float(epoch) for epoch in range(epochs)}


@pytest.mark.parametrize("pruner", [PruneAt(1), PruneAt(99)], ids=["pruned", "complete"])
def test_the_trainer_is_left_as_it_was(pruner, tmp_path):
    study = optuna.create_study(pruner=pruner)
    trial = study.ask()
    logger = StatusLogger(tmp_path)
    given = [TuneCallback(trial), Watch(), EarlyStopping("val_loss"), ModelCheckpoint(tmp_path / "kept")]
    fit = trainer(*given, logger=logger, log_every_n_steps=1)
    before = list(fit.callbacks)
    with contextlib.suppress(optuna.TrialPruned):
        fit.fit(Scripted(), data(), data())
    assert fit.callbacks == before
    assert fit.loggers == [logger]
    assert fit.state.status == "finished"
    assert fit.state.stage is None


# --- the score ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "direction", "expected"),
    [
        ("best", "minimize", 1.0),
        ("best", "maximize", 3.0),
        ("last", "minimize", 2.0),
        (lambda v: sum(v), "minimize", 6.0),
    ],
)
def test_the_score_is_the_best_the_last_or_a_function(score, direction, expected):
    trial, tune = run(Scripted([3.0, 1.0, 2.0]), direction=direction, tune={"score": score}, max_epochs=3)
    assert trial.value == tune.score == expected


def test_there_is_no_score_before_a_fit_and_none_of_a_pruned_trial():
    study = optuna.create_study()
    with pytest.raises(MetricError, match="no value of val_loss was reported"):
        TuneCallback(study.ask()).score  # noqa: B018
    _, tune = run(pruner=PruneAt(0))
    with pytest.raises(optuna.TrialPruned):
        tune.score  # noqa: B018


def test_several_metrics_come_back_as_a_tuple_of_one_validation(caplog):
    class Two(Scripted):
        def on_validation_epoch_end(self):
            self.log("size", float(10 + self.validations))
            super().on_validation_epoch_end()

    study = optuna.create_study(directions=["minimize", "maximize"], pruner=PruneAt(0))

    def objective(trial):
        tune = TuneCallback(trial, monitor=["val_loss", "size"])
        trainer(tune, max_epochs=3).fit(Two([3.0, 1.0, 2.0]), data(), data())
        return tune.score

    with caplog.at_level(logging.WARNING, "lightningtune"):
        study.optimize(objective, n_trials=3)
    assert [trial.values for trial in study.trials] == [[1.0, 11.0]] * 3
    assert caplog.text.count("several objectives") == 1


@pytest.mark.parametrize("frozen", [False, True])
def test_a_trial_that_is_evaluated_again_has_a_score_too(frozen):
    trial = run()[0] if frozen else optuna.trial.FixedTrial({})
    tune = TuneCallback(trial, mode="min")
    trainer(tune).fit(Scripted(), data(), data())
    assert tune.score == 1.0
    with pytest.raises(MetricError, match="no study to take the mode from; pass mode='min' or mode='max'"):
        TuneCallback(trial)


# --- mistakes ----------------------------------------------------------------------------------------------------


def test_a_metric_that_is_never_logged_is_an_error_after_the_first_validation():
    model = Scripted()
    with pytest.raises(MetricError, match="'val_los' was not logged. Logged: val_loss. Did you mean 'val_loss'"):
        run(model, tune={"monitor": "val_los"})
    assert model.validations == 1


def test_a_metric_that_is_missing_within_an_epoch_is_an_error_at_its_end():
    model = Scripted()
    with pytest.raises(MetricError, match="'val_los' was not logged. Logged: val_loss. Did you mean 'val_loss'"):
        run(model, tune={"monitor": "val_los"}, val_check_interval=1)
    assert model.global_step == BATCHES


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "max"}, "contradicts the study's direction"),
        ({"mode": "maximize"}, "mode must be one of"),
        ({"score": "lst"}, "Did you mean 'last'"),
        ({"non_finite": "pruned"}, "Did you mean 'prune'"),
        ({"monitor": ""}, "A metric is given by its name"),
        ({"monitor": ["a", "b"]}, "one objective, but monitor names 2"),
    ],
)
def test_a_mistake_is_refused_at_once(given, message):
    with pytest.raises(MetricError, match=message):
        TuneCallback(optuna.create_study().ask(), **given)


def test_what_is_no_trial_is_refused():
    with pytest.raises(ConfigurationError, match="takes the trial"):
        TuneCallback("val_loss")


@pytest.mark.parametrize("other", [EarlyStopping, ModelCheckpoint])
def test_another_mode_on_the_same_metric_is_refused(other):
    with pytest.raises(MetricError, match=rf"{other.__name__}\(monitor='val_loss', mode='max'\) contradicts"):
        run(callbacks=[other(monitor="val_loss", mode="max")])


def test_a_refused_fit_leaves_the_trainer_and_ends_no_trial():
    study = optuna.create_study()
    trial = study.ask()
    fit = trainer(TuneCallback(trial), EarlyStopping("val_loss", mode="max"))
    before = list(fit.callbacks)
    with pytest.raises(MetricError):
        fit.fit(Scripted(), data(), data())
    assert fit.callbacks == before
    assert study.trials[0].state.name == "RUNNING", "the study says how a trial that raises ends"


def test_a_metric_that_a_trial_of_several_lacks_is_named():
    study = optuna.create_study(directions=["minimize", "maximize"])
    tune = TuneCallback(study.ask(), monitor=["val_loss", "val_acc"])
    with pytest.raises(MetricError, match="'val_acc' was not logged. Logged: val_loss"):
        trainer(tune).fit(Scripted(), data(), data())


def test_a_script_of_the_other_lightning_is_refused():
    pytest.importorskip("pytorch_lightning")
    scope = {"trial": optuna.create_study().ask()}
    with pytest.raises(ConfigurationError, match="Import lightning.pytorch instead"):
        exec("import pytorch_lightning as pl\nfrom lightningtune import TuneCallback\nTuneCallback(trial)", scope)


def test_an_error_of_the_model_is_its_own():
    class Broken(Scripted):
        def training_step(self, batch, batch_idx):
            raise ValueError("mine")

    watch = Watch()
    with pytest.raises(ValueError, match="mine"):
        run(Broken(), callbacks=[watch])
    assert watch.seen == ["on_exception ValueError"]


def test_an_exit_of_the_model_fails_the_trial_and_keeps_its_code():
    class Exits(Scripted):
        def training_step(self, batch, batch_idx):
            sys.exit()

    study = optuna.create_study()
    with pytest.raises(SystemExit) as caught:
        study.optimize(lambda trial: trainer(TuneCallback(trial)).fit(Exits(), data(), data()), n_trials=1)
    assert caught.value.code is None
    assert study.trials[0].state.name == "FAIL"
    assert study.trials[0].user_attrs["lightningtune:detail"] == "the training called sys.exit(None)"


# --- beside optuna-integration -----------------------------------------------------------------------------------


def test_it_is_a_drop_in_where_the_other_has_no_defect():
    from optuna_integration import PyTorchLightningPruningCallback

    def study_of(make):
        study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=1))

        def objective(trial):
            start = [3.0, 9.0, 1.0][trial.number]
            fit = trainer(make(trial), num_sanity_val_steps=0)
            fit.fit(Scripted([start - i / 10 for i in range(5)]), data(), data())
            return fit.callback_metrics["val_loss"].item()

        study.optimize(objective, n_trials=3)
        return [(trial.state, trial.value, trial.intermediate_values) for trial in study.trials]

    ours = study_of(TuneCallback)
    assert ours == study_of(lambda trial: PyTorchLightningPruningCallback(trial, "val_loss"))
    assert [state.name for state, *_ in ours] == ["COMPLETE", "PRUNED", "COMPLETE"]
