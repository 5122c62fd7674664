"""`TuneCallback` in real fits: what is reported, what the score is, and which mistakes are refused."""

import contextlib
import copy
import gc
import logging
import pickle
import sys

import optuna
import pytest
import torch
from fits import (
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


# --- several fits, and copies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("one_callback", [True, False])
def test_steps_go_on_from_fit_to_fit_and_the_score_is_that_of_the_latest(one_callback):
    study = optuna.create_study()
    trial = study.ask()
    made = [TuneCallback(trial)] * 3 if one_callback else [TuneCallback(trial) for _ in range(3)]
    scores = []
    for fold, tune in enumerate(made):
        trainer(tune, max_epochs=2).fit(Scripted([3.0 + fold, 2.0 + fold]), data(), data())
        scores.append(tune.score)
    assert study.trials[0].intermediate_values == dict(enumerate([3.0, 2.0, 4.0, 3.0, 5.0, 4.0]))
    assert scores == [2.0, 3.0, 4.0]


def test_the_first_step_may_be_given_so_that_folds_of_different_lengths_are_compared():
    study = optuna.create_study(pruner=PruneAt(99))
    trial = study.ask()
    for fold in range(2):
        tune = TuneCallback(trial, step_offset=fold * 10)
        trainer(tune, max_epochs=2 - fold).fit(Scripted(), data(), data())
    assert list(study.trials[0].intermediate_values) == [0, 1, 10]
    with pytest.raises(ConfigurationError, match="step_offset=3, but the trial already has values up to step 10"):
        trainer(TuneCallback(trial, step_offset=3)).fit(Scripted(), data(), data())
    with pytest.raises(ConfigurationError, match="step_offset cannot be negative but got -1"):
        TuneCallback(trial, step_offset=-1)


def test_two_callbacks_in_one_fit_are_refused():
    trial = optuna.create_study().ask()
    with pytest.raises(ConfigurationError, match="several TuneCallbacks, and a fit has one"):
        trainer(TuneCallback(trial), TuneCallback(trial, "size")).fit(Scripted(), data(), data())


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda tune: pickle.loads(pickle.dumps(tune))])
def test_a_copy_reports_to_the_trial_and_the_original_knows_the_score(copied):
    study = optuna.create_study(pruner=PruneAt(1))
    tune = TuneCallback(study.ask())
    with pytest.raises(optuna.TrialPruned):
        trainer(copied(tune)).fit(Scripted(), data(), data())
    assert study.trials[0].intermediate_values == {0: 5.0, 1: 4.0}
    with pytest.raises(optuna.TrialPruned):
        tune.check_pruned()


def test_a_pickled_callback_whose_original_is_gone_reports_to_a_stored_trial_and_to_no_other(tmp_path):
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    stored = optuna.create_study(storage=optuna.storages.JournalStorage(backend))
    pickled = [pickle.dumps(TuneCallback(study.ask())) for study in (stored, optuna.create_study())]
    gc.collect()
    kept, lost = map(pickle.loads, pickled)
    trainer(kept, max_epochs=1).fit(Scripted(), data(), data())
    assert kept.score == 5.0
    assert stored.trials[0].intermediate_values == {0: 5.0}
    with pytest.raises(ConfigurationError, match="cannot report to a study in memory"):
        trainer(lost, max_epochs=1).fit(Scripted(), data(), data())


# --- the best checkpoint -----------------------------------------------------------------------------------------


def of_epoch(path):
    return torch.load(path, weights_only=False)["epoch"]


def test_the_best_checkpoint_is_that_of_the_trainer_s_model_checkpoint(tmp_path):
    ours = ModelCheckpoint(tmp_path / "ours", monitor="val_loss")
    other = ModelCheckpoint(tmp_path / "other", monitor="size", mode="max")

    class Two(Scripted):
        def on_validation_epoch_end(self):
            self.log("size", float(self.validations))
            super().on_validation_epoch_end()

    def best(*callbacks):
        _, tune = run(Two([2.0, 1.0, 3.0]), callbacks=callbacks, max_epochs=3)
        return tune.best_model_path

    assert best(other, ours) == ours.best_model_path
    assert of_epoch(ours.best_model_path) == 1
    other = ModelCheckpoint(tmp_path / "alone", monitor="size", mode="max")
    assert best(other) == other.best_model_path, "best by its own monitor"
    assert best() == ""


def test_a_folder_may_be_given_in_which_the_checkpoint_of_the_score_is_kept(tmp_path):
    trial = optuna.create_study().ask()
    tune = TuneCallback(trial, "costly", mode="min", save_best=tmp_path)

    class Late(Scripted):
        def on_validation_epoch_end(self):
            if self.current_epoch in (1, 2):
                self.log("costly", float(self.current_epoch))

    for folder, epochs, kept in (("trial_0000", 5, 1), ("trial_0000-v1", 2, 1)):
        trainer(tune, max_epochs=epochs).fit(Late(), data(), data())
        assert tune.best_model_path == str(tmp_path / folder / "best.ckpt")
        assert of_epoch(tune.best_model_path) == kept
        assert [path.name for path in (tmp_path / folder).iterdir()] == ["best.ckpt"]


# --- mistakes ----------------------------------------------------------------------------------------------------


def test_a_metric_that_is_never_logged_is_an_error_at_the_end_of_the_fit_and_a_notice_before(caplog):
    watch, study = Watch(), optuna.create_study()
    for _ in range(2):
        tune = TuneCallback(study.ask(), monitor="val_los")
        with pytest.raises(MetricError, match="'val_los' was not logged. Logged: val_loss. Did you mean 'val_loss'"):
            trainer(watch, tune, max_epochs=2).fit(Scripted(), data(), data())
        with pytest.raises(MetricError, match="'val_los' was not logged"):
            tune.score  # noqa: B018
    assert watch.seen == ["on_train_end", "on_fit_end", "teardown"] * 2
    assert caplog.text.count("'val_los' was not logged by the first validation") == 1


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
    assert study.trials[0].user_attrs["lightningtune:detail"] == "TrialError: the training called sys.exit(None)"


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
