"""Whole studies through the facade, with real Trainers and real files."""

import logging
import os
import signal

import lightning as L
import optuna
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser
from nets import Line

from lightningtune import NoResultError, TrialError
from lightningtune.study.tally import count_finished

LR = {"lr": ("loguniform", 1e-3, 1.0)}
QUICK = {"trainer": {"max_epochs": 2, "accelerator": "cpu"}}


class CountFits(L.Callback):
    fits = 0

    def on_fit_start(self, trainer, pl_module):
        self.fits += 1
        assert self.fits == 1, "each trial gets a fresh copy"


def test_optimize_returns_the_optuna_study_and_uses_what_is_injected(tune, tmp_path):
    sampler, pruner = optuna.samplers.RandomSampler(seed=1), optuna.pruners.NopPruner()
    storage = optuna.storages.InMemoryStorage()
    study = tune(sampler=sampler, pruner=pruner, storage=storage, study_name="mine").optimize()
    assert isinstance(study, optuna.Study)
    assert study.sampler is sampler
    assert study.pruner is pruner
    assert optuna.load_study(study_name="mine", storage=storage).best_value == study.best_value
    assert not (tmp_path / "mine" / "journal.log").exists()


def test_the_folder_holds_what_ran(tune, tmp_path):
    study = tune(study_name="s").optimize()
    root = tmp_path / "s"
    assert sorted(p.name for p in root.iterdir()) == ["best", "journal.log", "report.html", "study.yaml", "trials"]
    for trial in study.trials:
        config = yaml.safe_load((root / f"trials/{trial.number:04d}/config.yaml").read_text())
        assert config["model"]["lr"] == trial.params["lr"]
        assert "val_loss" in (root / f"trials/{trial.number:04d}/metrics.csv").read_text()
    with_weights = sorted(p.relative_to(root).as_posix() for p in root.glob("trials/*/*.ckpt"))
    best = f"trials/{study.best_trial.number:04d}"
    assert with_weights == [f"{best}/best.ckpt"]
    assert (root / "best/config.yaml").read_text() == (root / best / "config.yaml").read_text()
    assert (root / "best/model.ckpt").read_bytes() == (root / best / "best.ckpt").read_bytes()


@pytest.mark.parametrize(("top_k", "kept"), [(1, 1), (2, 2), (5, 3)])
def test_the_weights_of_the_top_k_trials_are_kept(tune, top_k, kept):
    optimizer = tune(save_top_k=top_k)
    study = optimizer.optimize()
    expected = sorted(study.trials, key=lambda t: t.value)[:kept]
    found = {int(p.parent.name) for p in optimizer.directory.glob("trials/*/best.ckpt")}
    assert found == {t.number for t in expected}
    assert len(list(optimizer.directory.glob("trials/*/config.yaml"))) == 3


def test_no_checkpoint_is_written_when_none_is_wanted(tune):
    optimizer = tune(save_checkpoints=False)
    optimizer.optimize()
    assert not list(optimizer.directory.rglob("*.ckpt"))
    with pytest.raises(TrialError, match="save_checkpoints=False"):
        optimizer.best_model()


def test_the_score_is_the_best_value_unless_asked_otherwise(tune):
    class Worsens(Line):
        def on_validation_epoch_end(self):
            self.log("val_loss", float(self.current_epoch))

        def validation_step(self, batch, batch_idx): ...

    config = {"trainer": {"max_epochs": 3, "accelerator": "cpu"}}
    values = {
        name: tune(base_config=config, model_class=Worsens, score=score, study_name=name, n_trials=1)
        .optimize()
        .best_value
        for name, score in {"best": "best", "last": "last", "mean": lambda values: sum(values) / len(values)}.items()
    }
    assert values == {"best": 0.0, "last": 2.0, "mean": 1.0}


def test_the_best_config_runs_as_it_is(tune, tmp_path):
    optimizer = tune(search_space={**LR, "trainer.gradient_clip_val": ("categorical", [0.5, 1.0])})
    study = optimizer.optimize()
    again = tune(base_config=optimizer.get_best_config(), n_trials=1, study_name="again").optimize()
    assert again.trials[0].value == study.best_value
    assert optimizer.get_best_config(1)["model"]["lr"] == study.trials[1].params["lr"]


def test_refit_trains_the_best_config_again_for_each_seed(tune):
    optimizer = tune()
    study = optimizer.optimize()
    same, *_ = optimizer.refit()
    assert same.score == (study.best_value,)
    longer = optimizer.refit(max_epochs=4, seeds=[1, 2])
    assert [refit.seed for refit in longer] == [1, 2]
    assert longer[0].score != longer[1].score
    assert longer[0].checkpoint.exists()
    assert yaml.safe_load((longer[0].directory / "config.yaml").read_text())["trainer"]["max_epochs"] == 4
    assert len(study.trials) == 3


def test_n_trials_is_the_total_and_a_larger_one_extends(tune):
    assert len(tune(n_trials=2).optimize().trials) == 2
    assert len(tune(n_trials=2).optimize().trials) == 2
    longer = tune(n_trials=5).optimize()
    assert len(longer.trials) == 5
    assert len({trial.params["lr"] for trial in longer.trials}) == 5, "a continued sampler does not repeat its points"


def test_the_same_seed_gives_the_same_study(tune):
    def outcome(name, seed):
        study = tune(study_name=name, seed=seed, n_trials=5).optimize()
        return [(trial.params, trial.value, trial.intermediate_values) for trial in study.trials]

    assert outcome("one", 7) == outcome("two", 7)
    assert outcome("three", 8) != outcome("one", 7)


def test_a_study_leaves_the_environment_as_it_was(tune):
    before = dict(os.environ)
    tune(n_trials=1).optimize()
    assert dict(os.environ) == before


def test_a_study_does_not_disturb_its_caller(tune):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    levels = [logging.getLogger(name).level for name in ("lightning.pytorch", "optuna")]
    handler = signal.getsignal(signal.SIGINT)
    tune().optimize()
    assert torch.equal(before, torch.get_rng_state())
    assert levels == [logging.getLogger(name).level for name in ("lightning.pytorch", "optuna")]
    assert signal.getsignal(signal.SIGINT) is handler


def test_optuna_callbacks_are_called_and_lightning_callbacks_copied(tune):
    seen = []
    mine = CountFits()
    tune(callbacks=[lambda study, trial: seen.append(trial.number), mine]).optimize()
    assert seen == [0, 1, 2]
    assert mine.fits == 0


def test_an_optuna_callback_may_stop_the_study(tune):
    study = tune(callbacks=[lambda study, trial: study.stop()]).optimize()
    assert len(study.trials) == 1


def test_timeout_ends_the_study(tune):
    assert count_finished(tune(timeout=0.0).optimize()) == 0


@pytest.mark.parametrize("storage", ["sqlite", "path", "object"])
def test_any_storage_works(tune, tmp_path, storage):
    given = {
        "sqlite": f"sqlite:///{tmp_path}/study.db",
        "path": tmp_path / "elsewhere" / "study.log",
        "object": optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/other.db"),
    }[storage]
    assert len(tune(storage=given).optimize().trials) == 3
    assert len(tune(storage=given, n_trials=4).optimize().trials) == 4


def test_several_objectives_keep_the_pareto_front(tune):
    optimizer = tune(
        search_space={"width": ("categorical", [1, 4, 16]), "lr": ("loguniform", 1e-3, 1.0)},
        metric=["val_loss", "size"],
        direction=["minimize", "minimize"],
        n_trials=6,
    )
    study = optimizer.optimize()
    front = {trial.number for trial in study.best_trials}
    assert {int(p.parent.name) for p in optimizer.directory.glob("trials/*/best.ckpt")} == front
    assert {trial.number for trial in optimizer.results().best_trials} == front
    assert not (optimizer.directory / "best").exists(), "none of them is the best"
    for trial in study.trials:
        assert trial.values[1] == 4 * trial.params["width"] + 1
    if len(front) > 1:
        with pytest.raises(NoResultError, match="objectives"):
            optimizer.best_model()
    assert optimizer.best_model(min(front)) is not None


def test_the_only_one_on_a_front_is_the_best(tune):
    optimizer = tune(metric=["val_loss", "val_acc"], direction=["minimize", "maximize"])
    study = optimizer.optimize()
    assert [trial.number for trial in study.best_trials] == [optimizer.results().best.number]
    assert optimizer.best_model().lr == study.best_trials[0].params["lr"]


class Look(L.Callback):
    def __init__(self):
        self.seen = []

    def on_fit_start(self, trainer, pl_module):
        bar = trainer.progress_bar_callback is not None
        self.seen.append((bar, trainer.num_sanity_val_steps, trainer.default_root_dir, len(trainer.loggers)))

    def __deepcopy__(self, memo):
        return self


def test_user_settings_win(tune, tmp_path):
    mine = {"enable_progress_bar": True, "num_sanity_val_steps": 1, "default_root_dir": str(tmp_path), "logger": False}
    look = Look()
    study = tune(base_config={"trainer": {**QUICK["trainer"], **mine}}, n_trials=1, callbacks=[look]).optimize()
    assert look.seen == [(True, 1, str(tmp_path / study.study_name / "0000"), 0)]


def test_a_whole_cli_config_leaves_the_defaults_as_they_are(tune, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(L.Trainer, "trainer")
    trainer = yaml.safe_load(parser.dump(parser.get_defaults(), skip_unset=False))["trainer"]
    assert trainer["logger"] is None
    optimizer = tune(base_config={"trainer": {**trainer, **QUICK["trainer"]}}, n_trials=2)
    optimizer.optimize()
    assert len([*optimizer.directory.glob("trials/*/metrics.csv")]) == 2
    assert not (tmp_path / "lightning_logs").exists()
    assert "Params" not in capfd.readouterr().out


def test_callbacks_of_the_user_work_beside_ours(tune):
    callbacks = [EarlyStopping("val_loss", patience=1), ModelCheckpoint(filename="mine", monitor="val_loss")]
    optimizer = tune(callbacks=callbacks)
    study = optimizer.optimize()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    mine = [path.relative_to(optimizer.directory).parts[1] for path in optimizer.directory.rglob("mine.ckpt")]
    assert mine == [f"{study.best_trial.number:04d}"]


def test_verbose_prints_each_trial_and_what_was_found(tune, capsys):
    optimizer = tune(verbose=True)
    study = optimizer.optimize()
    out = capsys.readouterr().out
    assert "minimize val_loss, 3 trials." in out
    assert sum("complete val_loss" in line for line in out.splitlines()) == 3
    assert f"Best: trial {study.best_trial.number}  val_loss = {study.best_value:.6g}" in out
    assert "Untuned defaults: val_loss = " in out
    assert str(optimizer.directory / "best" / "model.ckpt") in out


def test_quiet_is_silent(tune, capfd):
    tune(verbose=False).optimize()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("isolate", [False, True])
def test_the_view_gives_way_to_a_progress_bar_where_that_is_drawn_too(tune, monkeypatch, isolate):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    config = {"trainer": {**QUICK["trainer"], "enable_progress_bar": True}}
    assert tune(base_config=config, isolate=isolate)._view.console.is_interactive == isolate
    assert tune(isolate=isolate)._view.console.is_interactive
