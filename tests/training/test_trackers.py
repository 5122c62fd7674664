"""The loggers of one trial: fresh, told the parameters, closed with the true state; and they never fail it."""

import json
import shutil
from pathlib import Path

import clis
import loggers
import pytest
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from nets import Line, Points
from tracked import LOSS, PARAMS, Breaks, Stops, fit, study_of

from lightningtune.contract import Notice, SilentReporter, StopReason, TrialSpec
from lightningtune.training.lightning_cli import CliBlueprint, CliSchema, read_cli_config
from lightningtune.training.run import train


class Watches(Line):
    """Has a logger, and uses it as users do."""

    def on_train_epoch_end(self):
        for logger in self.loggers:
            logger.experiment.add_something(self.current_epoch)
            logger.experiment.config.update({"a": 1})
            logger.experiment.summary["best"] = 1
            logger.experiment.summary["steps"] += 1
            with logger.experiment.start_run() as run, Path(run.dir, "notes.txt").open("a") as notes:
                notes.write(f"{run.summary['best']:.2f}")
            if logger.experiment.summary.get("best") or [*logger.experiment.history()] or run.summary["best"] > 1:
                raise AssertionError("there is something")


class Places(Line):
    """Writes where its logger does."""

    def on_fit_start(self):
        for place in (self.trainer.log_dir, self.logger.log_dir, self.logger.root_dir):
            Path(place or self.trainer.default_root_dir, "mine.txt").write_text("")


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "mine" / "trials" / "0007"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def told():
    loggers.TOLD.clear()
    yield loggers.TOLD
    loggers.TOLD.clear()


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return read


def hparams(folder):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = events(folder).summary_metadata
    content = {tag: HParamsPluginData.FromString(found[tag].plugin_data.content) for tag in found if "_hparams_" in tag}
    start = content["_hparams_/session_start_info"].session_start_info.hparams
    metrics = [info.name.tag for info in content["_hparams_/experiment"].experiment.metric_infos]
    return {name: value.number_value or value.string_value for name, value in start.items()}, metrics


@pytest.mark.parametrize("stop", [None, StopReason.PRUNED, StopReason.INTERRUPTED])
def test_tensorboard_has_a_run_with_the_parameters_the_score_and_the_state(folder, stop):
    outcome = fit(folder, "TensorBoardLogger", reporter=stop and Stops(stop))
    read = events(folder)
    values = [event.value for event in read.Scalars("val_loss")]
    assert len(values) == (3 if stop is None else 2)
    state = "completed" if stop is None else stop.value
    assert hparams(folder) == ({**PARAMS, "lightningtune.state": state}, ["score/val_loss"])
    assert [event.value for event in read.Scalars("score/val_loss")] == [pytest.approx(min(values))]
    assert "hp_metric" not in read.Tags()["scalars"]
    assert outcome.notices == ()


def test_a_tensorboard_run_goes_on_with_the_trial(folder, tmp_path):
    copy, new = tmp_path / "mine/trials/0003", tmp_path / "mine/trials/0009"

    class Copies(SilentReporter):
        def report(self, values, step):
            if step == 2:
                shutil.copytree(folder, copy)

    fit(folder, "TensorBoardLogger", reporter=Copies(), max_epochs=4)
    fit(new, "TensorBoardLogger", checkpoint=copy / "last.ckpt", max_epochs=4)
    for tag in ("val_loss", "epoch", "score/val_loss"):
        whole, resumed = ([(e.step, e.value) for e in events(at).Scalars(tag)] for at in (folder, new))
        assert whole == resumed


def test_what_the_user_says_of_a_logger_holds(folder, tmp_path):
    logs = str(tmp_path / "logs")
    own = {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": {"save_dir": logs, "name": "own"}}
    fit(folder, [own, {"class_path": "CSVLogger", "init_args": {"save_dir": logs}}], max_epochs=1)
    assert [*(tmp_path / "logs/own/0007").glob("events.*")]
    assert (tmp_path / "logs/mine/0007/metrics.csv").exists()


def test_true_is_what_lightning_has_for_it_in_the_trials_folder(folder):
    fit(folder, True, max_epochs=1)
    assert [*folder.glob("events.*")]


@pytest.mark.parametrize(
    ("model", "reporter", "status"),
    [
        (Line, None, "success"),
        (Line, Stops(StopReason.PRUNED), "success"),
        (Line, Stops(StopReason.INTERRUPTED), "failed"),
        (Line, Stops(StopReason.TIMED_OUT), "failed"),
        (Breaks, None, "failed"),
    ],
)
def test_a_logger_is_closed_once_with_the_true_state(folder, told, model, reporter, status):
    fit(folder, {"class_path": "loggers.Records"}, model, reporter)
    place, methods = {entry[0] for entry in told}, [entry[1] for entry in told]
    assert place == {str(folder)}
    assert [entry[2] for entry in told if entry[1] == "finalize"] == [status]
    assert methods[0] == "made"
    assert methods[-1] == "finalize"
    assert ("log_hyperparams", {"tuned": PARAMS}) in [entry[1:] for entry in told]


@pytest.mark.parametrize(
    "at", ["made", "experiment", "log_metrics", "log_hyperparams", "log_graph", "save", "finalize"]
)
def test_a_logger_that_fails_is_told_of_once_and_fails_no_trial(folder, told, at):
    outcome = fit(folder, [{"class_path": "loggers.Fails", "init_args": {"at": at}}, {"class_path": "CSVLogger"}])
    assert outcome.reason is StopReason.COMPLETED
    what = "Fails cannot be made" if at == "made" else f"Fails failed in {at}"
    (notice,) = outcome.notices
    assert str(notice).startswith(f"{what}: ConnectionError: no route to the server. The trial goes on")
    assert "val_loss" in (folder / "metrics.csv").read_text()


def test_what_a_model_does_with_a_logger_that_is_not_there_does_nothing(folder, told):
    for at in ("made", "experiment"):
        outcome = fit(folder, {"class_path": "loggers.Fails", "init_args": {"at": at}}, Watches, max_epochs=1)
        assert outcome.reason is StopReason.COMPLETED


@pytest.mark.parametrize("at", ["save_dir", "name", "version", "log_dir", "root_dir"])
def test_a_logger_that_cannot_say_where_it_writes_is_left_out(folder, told, at):
    block = {"class_path": "loggers.Fails", "init_args": {"at": at}}
    outcome = fit(folder, block, Places, callbacks=[{"class_path": "ModelCheckpoint"}])
    assert outcome.reason is StopReason.COMPLETED
    failed = Notice(f"Fails failed in {at}", "ConnectionError: no route to the server. The trial goes on without it.")
    assert outcome.notices == (failed,)
    assert (folder / "mine.txt").exists()
    assert [*(folder / "checkpoints").glob("*.ckpt")]


def test_a_logger_of_which_one_method_keeps_failing_is_left_alone(folder):
    seen = []

    class Sees(Line):
        def on_train_start(self):
            seen.append(self.logger)

    block = {"class_path": "loggers.Fails", "init_args": {"at": "log_metrics"}}
    assert fit(folder, block, Sees, max_epochs=5).reason is StopReason.COMPLETED
    assert seen[0].calls == 3


def test_a_logger_is_still_of_its_class(folder):
    seen = []

    class Sees(Line):
        def on_train_start(self):
            seen.append(self.logger)

    fit(folder, "TensorBoardLogger", Sees, max_epochs=1)
    (logger,) = seen
    assert isinstance(logger, TensorBoardLogger)
    assert type(logger) is TensorBoardLogger
    assert logger.experiment.log_dir.rstrip("/") == str(folder)


def test_no_run_is_remembered_of_loggers_that_have_none(folder):
    fit(folder, [{"class_path": "CSVLogger"}, {"class_path": "loggers.Records"}], max_epochs=1)
    assert not (folder / "trackers.json").exists()


def test_a_broken_note_of_runs_is_no_note(folder, tmp_path):
    before = tmp_path / "before"
    before.mkdir()
    for text in ("{", "[]", json.dumps({"WandbLogger 1": 3})):
        (before / "trackers.json").write_text(text)
        assert fit(folder, {"class_path": "CSVLogger"}, checkpoint=before / "last.ckpt").reason is StopReason.COMPLETED


def test_the_loggers_of_a_lightning_cli_are_named_and_guarded_too(folder, told, tmp_path):
    own = {"class_path": "TensorBoardLogger", "init_args": {"save_dir": str(tmp_path / "logs")}}
    given = [own, {"class_path": "loggers.Fails", "init_args": {"at": "made"}}, {"class_path": "loggers.Records"}]
    schema = CliSchema.of(clis.plain)
    config = read_cli_config(schema, {"trainer": {"accelerator": "cpu", "max_epochs": 1, "logger": given}})
    spec = TrialSpec(7, {**config, "seed_everything": 1}, folder, LOSS, study="mine", params=PARAMS)
    outcome = train(spec, CliBlueprint(schema, config), SilentReporter())
    assert outcome.reason is StopReason.COMPLETED
    assert len(outcome.notices) == 1
    assert hparams(tmp_path / "logs/mine/0007")[0]["lightningtune.state"] == "completed"
    assert (str(folder), "finalize", "success") in told


def test_a_cli_that_gives_the_logger_itself(folder, told):
    def construct():
        LightningCLI(Line, Points, trainer_defaults={"logger": {"class_path": "loggers.Records"}})

    schema = CliSchema.of(construct)
    config = read_cli_config(schema, {"trainer": {"accelerator": "cpu", "max_epochs": 1}})
    spec = TrialSpec(7, {**config, "seed_everything": 1}, folder, LOSS, study="mine", params=PARAMS)
    train(spec, CliBlueprint(schema, config), SilentReporter())
    assert (str(folder), "finalize", "success") in told


def test_csv_needs_no_save_dir(folder):
    assert fit(folder, {"class_path": "CSVLogger"}, max_epochs=1).notices == ()
    assert isinstance(CSVLogger(folder), CSVLogger)
    assert (folder / "metrics.csv").exists()


def test_optuna_integrations_callback_works(tmp_path):
    """It needs TensorFlow, which is none of our packages: where that is, TensorBoard imports it for each trial."""
    pytest.importorskip("tensorflow")
    from optuna_integration import TensorBoardCallback
    from tensorboard.util.tensor_util import make_ndarray

    with pytest.warns(FutureWarning, match="deprecated"):
        tells = TensorBoardCallback(str(tmp_path / "told"), "val_loss")
    study = study_of(tmp_path, "TensorBoardLogger", [tells]).optimize()
    for trial in study.trials:
        read = events(tmp_path / "told" / f"trial-{trial.number}")
        (told_of,) = read.Tensors("val_loss")
        assert make_ndarray(told_of.tensor_proto) == pytest.approx(trial.value)
        assert [*events(tmp_path / f"mine/trials/{trial.number:04d}").Scalars("score/val_loss")]
