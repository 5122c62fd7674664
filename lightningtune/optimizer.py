"""`OptunaDrivenOptimizer`: one call runs the whole study. The pieces live elsewhere; here they meet."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console

from lightningtune._version import __version__
from lightningtune.config.base import load_base_config
from lightningtune.config.overrides import Schema
from lightningtune.contract import NonFinitePolicy, ScorePolicy, StopReason, TrialOutcome, TrialSpec, Values
from lightningtune.errors import ConfigurationError, TrialError, did_you_mean
from lightningtune.preflight import baseline_point, check_point, check_space
from lightningtune.report.live import LiveView, WatchedReporter
from lightningtune.report.summary import summary
from lightningtune.search.distributions import NoDefault
from lightningtune.search.spaces import (
    SearchSpace,
    SearchSpaceLike,
    SimpleSearchSpace,
    as_search_space,
    combine,
)
from lightningtune.search.tunable import search_space_of
from lightningtune.signatures import import_class, signature_of
from lightningtune.study import definition
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.objective import direction_names, objective_of
from lightningtune.study.reporter import BASELINE, SEED, OptunaReporter, record_outcome
from lightningtune.study.results import StudyResults, best_numbers, collect_results, rank
from lightningtune.study.storage import open_storage
from lightningtune.training.build import Blueprint, refuse_foreign
from lightningtune.workers.inline import frozen_heap, run_inline

log = logging.getLogger(__name__)

_OPTUNA_KWARGS = ("storage", "load_if_exists", "timeout", "catch", "gc_after_trial", "show_progress_bar")


@dataclass(frozen=True)
class Refit:
    """One more training of the best config.

    Attributes:
        seed: what it was seeded with.
        score: one value for each metric.
        checkpoint: the checkpoint of its best validation.
        directory: its folder.
    """

    seed: int
    score: Values
    checkpoint: Path | None
    directory: Path


class OptunaDrivenOptimizer:
    """Tunes a LightningModule: samples, trains, prunes, keeps the best, and can be run again to go on.

    Args:
        base_config: a YAML or JSON file, or a mapping, with the sections ``model``, ``data`` and ``trainer``, in plain
            form or in LightningCLI's ``class_path`` and ``init_args``.
        search_space: a space, a mapping, a function of the trial, or a file; when not given, the spaces that
            ``@tunable`` declares on the model's and the datamodule's class.
        model_class: a LightningModule class, or any callable that builds one; may be left out where the config has a
            ``class_path``.
        datamodule_class: a LightningDataModule class, or any callable that builds one, or that returns dataloaders
            (to train on, or to train and validate on).
        sampler: an Optuna sampler, used as it is; TPE when not given.
        pruner: an Optuna pruner, used as it is; Optuna's default when not given.
        study_name: the study's name, and its folder's.
        direction: "minimize" or "maximize", one for each metric.
        n_trials: the study's total. Running again goes on up to it.
        metric: the metric to tune, as the model logs it; a list for several objectives.
        callbacks: Lightning callbacks, of which each trial gets a fresh copy, and Optuna callbacks, called after each
            trial.
        experiment_dir: where the study's folder lies; ``lightningtune_runs`` when not given.
        save_checkpoints: whether trials write checkpoints.
        verbose: whether a live view is printed.
        seed: seeds the sampler and each trial; drawn and kept on the study when not given.
        score: which of a trial's values is its score: "best", "last", or a function of all of them.
        non_finite: what NaN or infinity does to a trial: "prune", "fail" or "ignore".
        baseline: whether the untuned defaults are the first trial; or that point of the space, by parameter name, where
            it cannot be told from the defaults.
        save_top_k: of how many of the best trials the weights are kept.
        max_failures: how many trials in a row may fail the same way before the study ends.
        **optuna_kwargs: ``storage``, ``load_if_exists``, ``timeout``, ``catch``, ``gc_after_trial``,
            ``show_progress_bar``, as Optuna takes them.

    Raises:
        ConfigurationError: when anything is wrong that can be known before the first epoch.

    Example:
        ::

            optimizer = OptunaDrivenOptimizer(
                base_config={"trainer": {"max_epochs": 10}},
                search_space={"lr": ("loguniform", 1e-5, 1e-1)},
                model_class=Net,
                datamodule_class=Data,
                metric="val_acc",
                direction="maximize",
                n_trials=30,
            )
            study = optimizer.optimize()
            model = optimizer.best_model()
    """

    def __init__(
        self,
        base_config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        search_space: SearchSpaceLike | None = None,
        model_class: Callable[..., LightningModule] | None = None,
        datamodule_class: Callable[..., Any] | None = None,
        sampler: optuna.samplers.BaseSampler | None = None,
        pruner: optuna.pruners.BasePruner | None = None,
        study_name: str = "optuna_study",
        direction: str | Sequence[str] = "minimize",
        n_trials: int = 100,
        metric: str | Sequence[str] = "val_loss",
        callbacks: Sequence[Any] | None = None,
        experiment_dir: str | os.PathLike[str] | None = None,
        save_checkpoints: bool = True,
        verbose: bool = True,
        *,
        seed: int | None = None,
        score: ScorePolicy = "best",
        non_finite: NonFinitePolicy = "prune",
        baseline: bool | Mapping[str, Any] = True,
        save_top_k: int = 1,
        max_failures: int = 3,
        **optuna_kwargs: Any,
    ) -> None:
        _check_arguments(sampler, pruner, n_trials, seed, save_top_k, max_failures, optuna_kwargs)
        self._directions = direction_names(direction, metric)
        self._objective = objective_of(metric, None, self._directions, score, non_finite)
        self._directory = StudyDirectory.named(experiment_dir, study_name)
        self._study_name = study_name
        self._sampler, self._pruner = sampler, pruner
        self._n_trials, self._seed = n_trials, seed
        self._save_checkpoints, self._save_top_k, self._max_failures = (
            save_checkpoints,
            save_top_k,
            max_failures,
        )
        self._optuna = optuna_kwargs
        self._trainer_callbacks, self._study_callbacks = _sorted_callbacks(callbacks or ())
        for what, target in (("model_class", model_class), ("datamodule_class", datamodule_class)):
            if target is not None:
                refuse_foreign(what, target)
        self._config = load_base_config(base_config)
        self._schema = Schema(model_class, datamodule_class, Trainer)
        self._space = _space_of(search_space, self._schema, self._config)
        self._blueprint = Blueprint(self._schema, self._config)
        with definition.quiet_optuna():
            check_space(self._space, self._schema, self._config, self._blueprint)
        if isinstance(baseline, Mapping):
            check_point(self._space, baseline)
        self._baseline = baseline
        self._view = LiveView(self._objective.monitor, Console(highlight=False, quiet=not verbose))
        self._study: optuna.Study | None = None
        self._fatal: ConfigurationError | None = None

    @property
    def directory(self) -> Path:
        """The study's folder."""
        return self._directory.root

    @property
    def study(self) -> optuna.Study:
        """The Optuna study, opened when first asked for."""
        if self._study is None:
            storage = open_storage(self._optuna.get("storage"), self._directory.journal)
            with definition.quiet_optuna():
                self._study = definition.open_study(
                    self._study_name,
                    storage,
                    self._directions,
                    self._objective.monitor,
                    self._optuna.get("load_if_exists", True),
                    self._sampler,
                    self._pruner,
                    self._seed,
                )
        return self._study

    def optimize(self) -> optuna.Study:
        """Run the study up to ``n_trials`` trials in all, and return it.

        Raises:
            ConfigurationError: when a trial shows that none can succeed, for example since the metric is not logged.
            KeyboardInterrupt: on Ctrl-C; the running trial is recorded as failed, and running again goes on.
        """
        study = self.study
        self._prepare(study)
        done = definition.count_finished(study)
        left = max(self._n_trials - done, 0)
        self._view.begin(done, self._n_trials, self._headline(done, left))
        self._kept = self._directory.numbers_with_weights()
        self._fatal = None
        options = {key: self._optuna[key] for key in _OPTUNA_KWARGS[2:] if key in self._optuna}
        with self._view, definition.quiet_optuna(), frozen_heap():
            if left:
                study.optimize(
                    self._run_trial,
                    n_trials=left,
                    callbacks=[self._after_trial, *self._study_callbacks],
                    **{"catch": (Exception,), **options},
                )
        if self._fatal is not None:
            raise self._fatal
        self._view.end(summary(self.results(), self._directory))
        return study

    def results(self) -> StudyResults:
        """Return what the study has found so far, as frozen data."""
        return collect_results(self.study, self._objective.monitor, self._directory)

    def get_best_config(self, number: int | None = None) -> dict[str, Any]:
        """Return the config that the best trial, or trial ``number``, was trained with; it runs as it is.

        Raises:
            NoResultError: when there is no such trial.
        """
        return self._directory.read_config(self.results().choose(number))

    def best_model(self, number: int | None = None) -> LightningModule:
        """Build the model of the best trial, or of trial ``number``, and load its best weights, ready to evaluate.

        Raises:
            NoResultError: when there is no such trial.
            TrialError: when its weights were not kept.
        """
        import torch

        number = self.results().choose(number)
        checkpoint = self._directory.checkpoint(number)
        if checkpoint is None:
            raise TrialError(
                f"The weights of trial {number} are not kept: save_checkpoints={self._save_checkpoints}, "
                f"save_top_k={self._save_top_k}."
            )
        model = self._blueprint.build_model(self._directory.read_config(number))
        state = torch.load(checkpoint, map_location="cpu", weights_only=False)
        model.load_state_dict(state["state_dict"])
        return model.eval()

    def refit(
        self,
        max_epochs: int | None = None,
        seeds: int | Sequence[int] | None = None,
        number: int | None = None,
    ) -> tuple[Refit, ...]:
        """Train the best config again, without pruning.

        Args:
            max_epochs: trains longer, or shorter, than the trial did.
            seeds: one training for each; the trial's own seed when not given.
            number: another trial than the best.

        Raises:
            NoResultError: when there is no such trial.
            TrialError: when a training fails.
        """
        config = self.get_best_config(number)
        if max_epochs is not None:
            config = self._schema.merge(config, {"trainer.max_epochs": max_epochs})
        wanted = [config.get("seed_everything", 0)] if seeds is None else seeds
        return tuple(self._refit(config, seed) for seed in ([wanted] if isinstance(wanted, int) else wanted))

    def _run_trial(self, trial: optuna.Trial) -> Any:
        """The objective: sample, freeze, train, record."""
        self._view.trial_started(trial.number, bool(trial.user_attrs.get(BASELINE)))
        try:
            spec = self._freeze(trial, self._space.suggest(trial))
            reporter = WatchedReporter(OptunaReporter(trial), self._view, trial.number)
            outcome = run_inline(spec, self._blueprint, reporter)
        except ConfigurationError as error:
            self._fatal = error
            record_outcome(trial, TrialOutcome(StopReason.FAILED, detail=f"{type(error).__name__}: {error}"))
            trial.study.stop()
            raise
        self._outcome = outcome
        record_outcome(trial, outcome)
        if outcome.error is not None:
            self._directory.write_error(trial.number, outcome.traceback)
            if isinstance(outcome.error, SystemExit):  # Optuna does not see it, and would leave the trial running
                trial.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            raise outcome.error
        if outcome.score is None:
            raise optuna.TrialPruned(outcome.detail)
        return outcome.score[0] if len(outcome.score) == 1 else outcome.score

    def _freeze(self, trial: optuna.Trial, overrides: Mapping[str, Any]) -> TrialSpec:
        """Merge what was sampled into the config; write down what will run."""
        config = self._schema.merge(self._config, overrides)
        seed = config.get("seed_everything", True)
        if seed is True:
            seed = definition.derive_seed(trial.study, trial.number)
        config = {
            "seed_everything": seed,
            **{name: value for name, value in config.items() if name != "seed_everything"},
        }
        directory = self._directory.trial(trial.number)
        self._directory.write_config(directory, config)
        return TrialSpec(
            number=trial.number,
            config=config,
            directory=directory,
            objective=self._objective,
            callbacks=tuple(copy.deepcopy(callback) for callback in self._trainer_callbacks),
            save_checkpoints=self._save_checkpoints,
        )

    def _after_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        """Keep what is to be kept of the trial, show it, and end a study that only fails."""
        best = best_numbers(study)
        keep = set(best if len(self._directions) > 1 else rank(study)[: self._save_top_k])
        self._directory.drop_weights((self._kept | {trial.number}) - keep)
        self._kept = keep
        if best == [trial.number]:
            self._directory.promote(trial.number)
        state = trial.state.name.lower()
        self._view.trial_ended(
            trial.number, trial.params, state, self._outcome, trial.number in best, self._best_line(best)
        )
        alike = definition.failing_alike(study, self._max_failures)
        if alike is not None and self._fatal is None:
            study.stop()
            text = (
                f"Stopped: the last {self._max_failures} trials failed the same way. {alike} "
                f"See {self._directory.trial(trial.number) / 'error.txt'}"
            )
            log.error(text)
            self._view.note(text)

    def _prepare(self, study: optuna.Study) -> None:
        """Write the definition down and queue the baseline."""
        self._directory.write_definition(self._definition(study))
        if "max_epochs" not in self._config.get("trainer", {}) and "max_steps" not in self._config.get("trainer", {}):
            self._view.note(
                "trainer.max_epochs is not set: each trial may train for Lightning's default of 1000 epochs."
            )
        if study.get_trials(deepcopy=False) or not self._baseline:
            return
        try:
            point = (
                dict(self._baseline)
                if isinstance(self._baseline, Mapping)
                else baseline_point(self._space, self._schema, self._config, self._blueprint)
            )
        except NoDefault as reason:
            self._view.note(f"The untuned defaults are not tried first: {reason}. See baseline=...")
            return
        definition.queue_baseline(study, point)

    def _definition(self, study: optuna.Study) -> dict[str, Any]:
        space = self._space.to_dict() if isinstance(self._space, SimpleSearchSpace) else repr(self._space)
        return {
            "study_name": self._study_name,
            "metric": list(self._objective.monitor),
            "direction": self._directions,
            "n_trials": self._n_trials,
            "seed": study.user_attrs[SEED],
            "sampler": type(study.sampler).__name__,
            "pruner": type(study.pruner).__name__,
            "search_space": space,
            "base_config": self._config,
            "versions": {"lightningtune": __version__, **definition.versions("lightning", "torch", "optuna")},
        }

    def _refit(self, config: Mapping[str, Any], seed: int) -> Refit:
        directory = self._directory.refit(seed)
        config = {**config, "seed_everything": seed}
        self._directory.write_config(directory, config)
        callbacks = tuple(copy.deepcopy(callback) for callback in self._trainer_callbacks)
        spec = TrialSpec(0, config, directory, self._objective, callbacks, self._save_checkpoints)
        outcome = run_inline(spec, self._blueprint, _NeverPrune())
        if outcome.score is None:
            if isinstance(outcome.error, (KeyboardInterrupt, SystemExit)):
                raise outcome.error
            raise TrialError(f"The refit with seed {seed} ended without a score: {outcome.detail}") from outcome.error
        return Refit(seed, outcome.score, outcome.checkpoint, directory)

    def _headline(self, done: int, left: int) -> str:
        metrics = ", ".join(f"{d} {m}" for d, m in zip(self._directions, self._objective.monitor, strict=True))
        if not left:
            return f"Study '{self._study_name}' has its {done} trials. Raise n_trials to go on. ({self.directory})"
        going_on = f", going on after {done}" if done else ""
        return f"Study '{self._study_name}': {metrics}, {self._n_trials} trials{going_on}. Folder: {self.directory}"

    def _best_line(self, best: Sequence[int]) -> str:
        if len(self._directions) > 1:
            return f"{len(best)} on the Pareto front"
        value = self.study.get_trials(deepcopy=False)[best[0]].value if best else None
        return "" if value is None else f"best {value:.4g} (trial {best[0]})"


class _NeverPrune:
    """A reporter for trainings that belong to no trial."""

    def report(self, values: Values, step: int) -> None:
        """Go on."""


def _check_arguments(
    sampler: Any,
    pruner: Any,
    n_trials: Any,
    seed: Any,
    save_top_k: Any,
    max_failures: Any,
    optuna_kwargs: Mapping[str, Any],
) -> None:
    for name, value, base in (
        ("sampler", sampler, optuna.samplers.BaseSampler),
        ("pruner", pruner, optuna.pruners.BasePruner),
    ):
        if value is not None and not isinstance(value, base):
            raise ConfigurationError(f"{name} must be an object of optuna.{name}s, but got {value!r}.")
    for name, value, least in (
        ("n_trials", n_trials, 1),
        ("save_top_k", save_top_k, 0),
        ("max_failures", max_failures, 1),
        ("seed", 0 if seed is None else seed, 0),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigurationError(f"{name} must be an integer from {least}, but got {value!r}.")
    for name in optuna_kwargs:
        if name not in _OPTUNA_KWARGS:
            hint = did_you_mean(name, (*_OPTUNA_KWARGS, *_parameters()))
            raise ConfigurationError(
                f"'{name}' is not an argument of OptunaDrivenOptimizer.{hint} Of Optuna's it takes: "
                f"{', '.join(_OPTUNA_KWARGS)}."
            )


def _parameters() -> list[str]:
    return list(signature_of(OptunaDrivenOptimizer).defaults)


def _sorted_callbacks(callbacks: Sequence[Any]) -> tuple[list[Callback], list[Callable[..., None]]]:
    """Tell Lightning's callbacks from Optuna's."""
    for callback in callbacks:
        if not isinstance(callback, Callback) and not callable(callback):
            raise ConfigurationError(
                "callbacks takes Lightning callbacks, and Optuna callbacks (called with study and trial), but got "
                f"{callback!r}."
            )
    trainers = [callback for callback in callbacks if isinstance(callback, Callback)]
    return trainers, [callback for callback in callbacks if not isinstance(callback, Callback)]


def _space_of(given: SearchSpaceLike | None, schema: Schema, config: Mapping[str, Any]) -> SearchSpace:
    """Return the given space, or those that the classes declare."""
    if given is not None:
        return as_search_space(given)
    spaces = []
    for section in ("model", "data"):
        block = config.get(section, {})
        target = import_class(block["class_path"]) if "class_path" in block else getattr(schema, section)
        space = search_space_of(target)
        if space is not None:
            spaces.append(space)
    if not spaces:
        raise ConfigurationError(
            "There is nothing to tune: pass search_space, or decorate the model's or the datamodule's class "
            "with @tunable."
        )
    return combine(*spaces)
