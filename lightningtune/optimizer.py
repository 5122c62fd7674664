"""`OptunaDrivenOptimizer`: one call runs the whole study. The pieces live elsewhere; here they meet."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from lightning.pytorch import LightningModule, Trainer
from rich.console import Console

from lightningtune._version import __version__
from lightningtune.arguments import (
    OPTIMIZE_KWARGS,
    check_flags,
    check_injected,
    check_integers,
    check_optuna_kwargs,
    check_target,
    sort_callbacks,
    space_of,
)
from lightningtune.config.base import load_base_config
from lightningtune.config.overrides import Schema
from lightningtune.contract import (
    NonFinitePolicy,
    ScorePolicy,
    SilentReporter,
    StopReason,
    TrialOutcome,
    TrialSpec,
    Values,
)
from lightningtune.errors import ConfigurationError, TrialError
from lightningtune.preflight import baseline_point, check_point, check_space
from lightningtune.report.live import LiveView, WatchedReporter
from lightningtune.report.summary import headline, summary
from lightningtune.search.distributions import NoDefault
from lightningtune.search.spaces import SearchSpaceLike, SimpleSearchSpace
from lightningtune.study import definition
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.objective import direction_names, objective_of
from lightningtune.study.reporter import BASELINE, SEED, OptunaReporter, record_outcome
from lightningtune.study.results import Refit, StudyResults, best_numbers, collect_results, kept_numbers, trial_result
from lightningtune.study.storage import open_storage
from lightningtune.training.build import Blueprint
from lightningtune.training.callback import refuse_other_mode
from lightningtune.training.checkpoints import load_weights
from lightningtune.training.run import failure
from lightningtune.workers.inline import frozen_heap, run_inline


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
        own = [name for name in inspect.signature(OptunaDrivenOptimizer).parameters if name != "optuna_kwargs"]
        check_optuna_kwargs(optuna_kwargs, own)
        check_flags({"save_checkpoints": save_checkpoints, "verbose": verbose})
        check_integers(
            {
                "n_trials": (n_trials, 1),
                "seed": (0 if seed is None else seed, 0),
                "save_top_k": (save_top_k, 1),
                "max_failures": (max_failures, 1),
            }
        )
        if not isinstance(baseline, (bool, Mapping)):
            raise ConfigurationError(f"baseline must be True, False or a point of the space, but got {baseline!r}.")
        check_injected(sampler, pruner)
        check_target("model_class", model_class)
        check_target("datamodule_class", datamodule_class)
        self._directions = direction_names(direction, metric)
        self._objective = objective_of(metric, None, self._directions, score, non_finite)
        self._directory = StudyDirectory.named(experiment_dir, study_name)
        self._study_name, self._n_trials, self._seed = study_name, n_trials, seed
        self._sampler, self._pruner, self._optuna_kwargs = sampler, pruner, optuna_kwargs
        self._save_checkpoints, self._save_top_k, self._max_failures = save_checkpoints, save_top_k, max_failures
        self._trainer_callbacks, self._study_callbacks = sort_callbacks(callbacks or ())
        for callback in self._trainer_callbacks:
            refuse_other_mode(callback, self._objective)
        self._config = load_base_config(base_config)
        self._schema = Schema(model_class, datamodule_class, Trainer)
        self._space = space_of(search_space, self._schema, self._config)
        self._blueprint = Blueprint(self._schema, self._config)
        with definition.quiet_optuna():
            check_space(self._space, self._schema, self._config, self._blueprint)
            if isinstance(baseline, Mapping):
                check_point(self._space, baseline)
        self._baseline = baseline
        self._view = LiveView(self._objective.monitor, Console(highlight=False, quiet=not verbose))
        self._study: optuna.Study | None = None
        self._mistake: ConfigurationError | None = None
        self._kept: set[int] = set()

    @property
    def directory(self) -> Path:
        """The study's folder."""
        return self._directory.root

    @property
    def study(self) -> optuna.Study:
        """The Optuna study; opened, or created, when first asked for."""
        if self._study is None:
            self._directory.create()
            with definition.quiet_optuna():
                self._study = definition.open_study(
                    self._study_name,
                    open_storage(self._optuna_kwargs.get("storage"), self._directory.journal),
                    self._directions,
                    self._objective.monitor,
                    self._optuna_kwargs.get("load_if_exists", True),
                    self._sampler,
                    self._pruner,
                    self._seed,
                )
        return self._study

    def optimize(self) -> optuna.Study:
        """Run the study up to ``n_trials`` trials in all, and return it.

        Raises:
            ConfigurationError: when a trial shows that none can succeed, for example since the metric is not logged.
            KeyboardInterrupt: on Ctrl-C. The running trial is recorded as failed; running again goes on.
        """
        study = self.study
        definition.check_continuable(study, self._space.parameters or ())
        done = definition.count_finished(study)
        self._view.begin(done, self._n_trials, headline(self._study_name, self._objective, done, self._n_trials))
        self._blueprint.check_trainer(self._config)
        self._prepare(study)
        options = {key: value for key, value in self._optuna_kwargs.items() if key in OPTIMIZE_KWARGS}
        callbacks = [self._after_trial, *self._study_callbacks]
        self._mistake = None
        with self._view, definition.quiet_optuna(), frozen_heap():
            if done < self._n_trials:
                left = self._n_trials - done
                study.optimize(self._run_trial, left, callbacks=callbacks, **{"catch": (Exception,), **options})
        if self._mistake is not None:
            raise self._mistake
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
        """Build the model of the best trial, or of trial ``number``, with its best weights, ready to evaluate.

        Raises:
            NoResultError: when there is no such trial.
            TrialError: when its weights were not kept.
        """
        number = self.results().choose(number)
        checkpoint = self._directory.checkpoint(number)
        if checkpoint is None:
            raise TrialError(
                f"The weights of trial {number} are not kept: save_checkpoints={self._save_checkpoints}, "
                f"save_top_k={self._save_top_k}."
            )
        return load_weights(self._blueprint.build_model(self._directory.read_config(number)), checkpoint).eval()

    def refit(
        self,
        max_epochs: int | None = None,
        seeds: int | Sequence[int] | None = None,
        number: int | None = None,
    ) -> tuple[Refit, ...]:
        """Train the best config again, without pruning; each training has a folder under ``refit/``.

        Args:
            max_epochs: trains longer, or shorter, than the trial did.
            seeds: one training for each; the trial's own seed when not given.
            number: another trial than the best.

        Raises:
            NoResultError: when there is no such trial.
            TrialError: when a training fails.
        """
        number = self.results().choose(number)
        config = self.get_best_config(number)
        if max_epochs is not None:
            check_integers({"max_epochs": (max_epochs, 1)})
            config = self._schema.merge(config, {"trainer.max_epochs": max_epochs})
        if seeds is None:
            own = config["seed_everything"]
            seeds = definition.derive_seed(self.study, number) if own is False else own
        chosen: Sequence[Any] = [seeds] if isinstance(seeds, (int, str, float)) else seeds
        check_integers({f"seeds[{i}]": (seed, 0) for i, seed in enumerate(chosen)})
        if len({*chosen}) < len(chosen):
            raise ConfigurationError(f"seeds names a seed twice: {list(chosen)}.")
        return tuple(self._refit(config, number, seed) for seed in chosen)

    def _run_trial(self, trial: optuna.Trial) -> float | Values:
        """The objective: sample, freeze, train, record."""
        self._view.trial_started(trial.number, is_baseline=BASELINE in trial.user_attrs)
        try:
            outcome = self._train(trial)
        except ConfigurationError as mistake:
            outcome = self._refuse(trial.study, mistake)
        record_outcome(trial, outcome)
        if outcome.error is not None:
            self._directory.write_error(trial.number, outcome.traceback or outcome.detail)
            if isinstance(outcome.error, SystemExit):  # Optuna does not see it, and would leave the trial running
                trial.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            raise outcome.error
        if outcome.score is None:
            raise optuna.TrialPruned(outcome.detail)
        return outcome.score[0] if len(outcome.score) == 1 else outcome.score

    def _refuse(self, study: optuna.Study, mistake: ConfigurationError) -> TrialOutcome:
        """End a study in which nothing can succeed; where something has, it is this trial that cannot."""
        if definition.has_value(study):
            return TrialOutcome.failed(mistake)
        self._mistake = mistake
        study.stop()
        return TrialOutcome.failed(mistake, StopReason.REFUSED)

    def _train(self, trial: optuna.Trial) -> TrialOutcome:
        try:
            spec = self._freeze(trial, self._space.suggest(trial))
        except optuna.TrialPruned as pruned:
            return TrialOutcome(StopReason.PRUNED, str(pruned) or "pruned by the search space")
        except ConfigurationError:
            raise
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # a user's function may raise anything
            return failure(error)
        return run_inline(spec, self._blueprint, WatchedReporter(OptunaReporter(trial), self._view, trial.number))

    def _freeze(self, trial: optuna.Trial, overrides: Mapping[str, Any]) -> TrialSpec:
        """Merge what was sampled into the config, and write down what will run."""
        config = self._schema.merge(self._config, overrides)
        seed = config.pop("seed_everything", True)
        seed = definition.derive_seed(trial.study, trial.number) if seed is True else seed
        return self._spec(trial.number, {"seed_everything": seed, **config}, self._directory.trial(trial.number))

    def _spec(self, number: int, config: Mapping[str, Any], directory: Path) -> TrialSpec:
        self._directory.begin(directory, config)
        callbacks = tuple(copy.deepcopy(callback) for callback in self._trainer_callbacks)
        return TrialSpec(number, config, directory, self._objective, callbacks, self._save_checkpoints)

    def _after_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        """Keep what is to be kept of the trial, show it, and end a study that only fails."""
        best = best_numbers(study)
        if best == [trial.number]:
            self._directory.promote(trial.number)
        kept = kept_numbers(study, self._save_top_k)
        for number in {*self._kept, trial.number} - kept:
            self._directory.drop_weights(number)
        self._kept = kept
        trials = study.get_trials(deepcopy=False)
        shown = {number: trial_result(trials[number], self._directory) for number in (*best, trial.number)}
        self._view.trial_ended(shown[trial.number], tuple(shown[number] for number in best))
        if definition.count_finished(study) >= self._n_trials:  # other processes may have had a share
            study.stop()
        alike = definition.failing_alike(study, self._max_failures)
        if alike is not None and self._mistake is None:
            study.stop()
            error = self._directory.trial(trial.number) / "error.txt"
            self._view.stopped(
                f"The study ends: {self._max_failures} trials in a row failed alike. {alike} See {error}"
            )

    def _prepare(self, study: optuna.Study) -> None:
        """Write the definition down, set right what an abrupt end left, queue the untuned defaults of a new study."""
        self._directory.write_definition(self._definition(study))
        best, self._kept = best_numbers(study), kept_numbers(study, self._save_top_k)
        if len(best) == 1 and self._directory.trial(best[0]).exists():
            self._directory.promote(best[0])
        if not {"max_epochs", "max_steps", "max_time"} & {*self._config.get("trainer", {})}:
            self._view.note("trainer.max_epochs is not set: Lightning trains each trial for 1000 epochs.")
        if self._baseline is False or not definition.is_new(study):
            return
        try:
            given = self._baseline if isinstance(self._baseline, Mapping) else None
            point = given or baseline_point(self._space, self._schema, self._config, self._blueprint)
            definition.queue_baseline(study, point)
        except NoDefault as reason:
            self._view.note(f"The untuned defaults are not tried first: {reason}. See baseline=.")

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

    def _refit(self, config: Mapping[str, Any], number: int, seed: int) -> Refit:
        directory = self._directory.refit(number, seed)
        spec = self._spec(0, {**config, "seed_everything": seed}, directory)
        outcome = run_inline(spec, self._blueprint, SilentReporter())
        if isinstance(outcome.error, (KeyboardInterrupt, SystemExit)):
            raise outcome.error
        if outcome.score is None:
            raise TrialError(f"The refit with seed {seed} ended without a score: {outcome.detail}") from outcome.error
        return Refit(seed, outcome.score, outcome.checkpoint, directory)
