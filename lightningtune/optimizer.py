"""`OptunaDrivenOptimizer`: one call runs the whole study. The pieces live elsewhere; here they meet."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from lightning.pytorch import LightningModule

from lightningtune.arguments import (
    check_flags,
    check_injected,
    check_integers,
    check_optuna_kwargs,
    check_seconds,
    check_seeds,
    sort_callbacks,
    space_of,
    what_to_train,
)
from lightningtune.check.report import CheckReport
from lightningtune.check.study import check_study
from lightningtune.config.base import with_limits_of
from lightningtune.contract import NonFinitePolicy, ScorePolicy, SilentReporter, TrialOutcome, TrialSpec
from lightningtune.errors import ConfigurationError, InvalidConfigError, TrialError
from lightningtune.host import Host, InlineRunner, ProcessRunner, StudyPlan, refit_trial
from lightningtune.preflight import check_config, check_sampler, check_space, notices, plan_baseline, stored_point
from lightningtune.replay import replay
from lightningtune.report.html.results import DrawableResults, drawable_results
from lightningtune.report.html.writer import ReportWriter
from lightningtune.report.live import LiveView, progress_bar, view_console
from lightningtune.report.terminal import headline, summary
from lightningtune.search.spaces import SearchSpaceLike
from lightningtune.study import opening
from lightningtune.study.changes import Subject, check_continuable, check_subject, define, find_changes
from lightningtune.study.comparison import Replay, check_tolerance
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.events import Events, StudyBegan, StudyEnded
from lightningtune.study.liveness import HostedStudy
from lightningtune.study.objective import make_objective, read_directions
from lightningtune.study.recovery import Recovery
from lightningtune.study.reporter import SEED, read_config_sum
from lightningtune.study.results import Refit
from lightningtune.study.storage import check_storage, open_storage
from lightningtune.study.tally import TrialTally, count_finished, describe_progress, is_new, start_over
from lightningtune.study.upkeep import FolderUpkeep
from lightningtune.training.callback import refuse_other_mode
from lightningtune.training.trainers import prints_itself
from lightningtune.training.weights import trained_model
from lightningtune.workers.devices import plan_slots
from lightningtune.workers.inline import run_inline
from lightningtune.workers.processes import TrialProcesses
from lightningtune.workers.travel import check_travels

if TYPE_CHECKING:
    from lightningtune.training.cli_call import CliLike


class OptunaDrivenOptimizer:
    """Tunes a LightningModule: samples, trains, prunes, keeps the best, and can be run again to go on.

    Args:
        base_config: a YAML or JSON file, or a mapping, with the sections ``model``, ``data`` and ``trainer``, in plain
            form or in LightningCLI's ``class_path`` and ``init_args``.
        search_space: a space, a mapping, a function of the trial, or a file; when not given, the spaces that
            ``@tunable`` declares on the model's and the datamodule's class.
        model_class: a LightningModule class, or any callable that builds one, also a compiled one; may be left out
            where the config has a ``class_path``.
        datamodule_class: a LightningDataModule class, or any callable that builds one, or that returns dataloaders
            as ``Trainer.fit`` takes them: to train on, to train and validate on, or a dict of ``train`` and ``val``.
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
        cli: in place of the two classes, a LightningCLI or a subclass, a function that constructs one, or the path of a
            script that does. Trials are built by it, and ``base_config`` is a config of its ``fit``.
        seed: seeds the sampler and each trial; drawn and kept on the study when not given.
        score: which of a trial's values is its score: "best", "last", or a function of all of them.
        non_finite: what NaN or infinity does to a trial: "prune", "fail" or "ignore".
        baseline: whether the untuned defaults are the first trial, which is never pruned; or that point of the space,
            by parameter name, where it cannot be told from the defaults.
        save_top_k: of how many of the best trials the weights are kept.
        max_failures: how many identical failures in a row end the study; ten times as many once a trial has worked.
        n_jobs: how many trials run at a time, each in a process of its own; -1 for as many as fit this machine: one for
            each accelerator, otherwise one for each core.
        isolate: whether a trial runs in a process of its own with ``n_jobs=1`` too. Trials of several processes, as
            with the strategy ``ddp``, always do.
        trial_timeout: seconds above 0 that one trial may take. Then it ends at its next validation; in a process of its
            own it is terminated 10 seconds later, and killed after another 10.
        devices_per_trial: accelerators of one trial; as many as the trainer's ``devices`` when not given.
        trials_per_device: how many trials share one accelerator.
        share_data: whether the datamodule is built and set up once, and every trial's process shares its memory.
        storage: where the study is stored: a URL such as ``sqlite:///study.db``, the path of a journal file, or an
            Optuna storage; a journal in the study's folder when not given.
        load_if_exists: whether a study of this name goes on; otherwise it is an error that there is one.
        timeout: seconds after which no more trials begin.
        **optuna_kwargs: ``catch``, ``gc_after_trial`` and ``show_progress_bar``, as ``Study.optimize`` takes them.

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
        cli: CliLike | None = None,
        seed: int | None = None,
        score: ScorePolicy = "best",
        non_finite: NonFinitePolicy = "prune",
        baseline: bool | Mapping[str, Any] = True,
        save_top_k: int = 1,
        max_failures: int = 3,
        n_jobs: int = 1,
        isolate: bool = False,
        trial_timeout: float | None = None,
        devices_per_trial: int | None = None,
        trials_per_device: int = 1,
        share_data: bool = False,
        storage: str | os.PathLike[str] | optuna.storages.BaseStorage | None = None,
        load_if_exists: bool = True,
        timeout: float | None = None,
        **optuna_kwargs: Any,
    ) -> None:
        own = [name for name in inspect.signature(OptunaDrivenOptimizer).parameters if name != "optuna_kwargs"]
        check_optuna_kwargs(optuna_kwargs, own)
        check_flags(
            {
                "save_checkpoints": save_checkpoints,
                "verbose": verbose,
                "isolate": isolate,
                "share_data": share_data,
                "load_if_exists": load_if_exists,
            }
        )
        check_seconds("trial_timeout", trial_timeout)
        check_seconds("timeout", timeout, may_be_zero=True)  # to Optuna, zero is time for no trial
        check_storage(storage)
        check_integers(
            {
                "n_trials": (n_trials, 1),
                "seed": (0 if seed is None else seed, 0),
                "save_top_k": (save_top_k, 1),
                "max_failures": (max_failures, 1),
                "n_jobs": (n_jobs, 1),
                "devices_per_trial": (1 if devices_per_trial is None else devices_per_trial, 1),
                "trials_per_device": (trials_per_device, 1),
            }
        )
        if not isinstance(baseline, (bool, Mapping)):
            raise ConfigurationError(f"baseline must be True, False or a point of the space, but got {baseline!r}.")
        check_injected(sampler, pruner)
        self._directions = read_directions(direction, metric)
        objective = make_objective(metric, None, self._directions, score, non_finite)
        self._study_name, self._seed = study_name, seed
        self._sampler, self._pruner = sampler, pruner
        self._stored_in, self._load_if_exists, self._timeout = storage, load_if_exists, timeout
        self._catch = optuna_kwargs.get("catch", (Exception,))
        self._shows_bar = bool(optuna_kwargs.get("show_progress_bar"))
        self._isolate = isolate or n_jobs != 1
        if self._isolate and self._shows_bar:
            raise ConfigurationError("show_progress_bar is for trials in this process; verbose shows progress too.")
        directory = StudyDirectory.named(experiment_dir, study_name)
        trainer_callbacks, self._study_callbacks = sort_callbacks(callbacks or ())
        for callback in trainer_callbacks:
            refuse_other_mode(callback, objective)
        config, schema, blueprint_class = what_to_train(base_config, model_class, datamodule_class, cli)
        trainer = config.get("trainer", {})
        self._slots, placed = plan_slots(trainer, n_jobs, self._isolate, devices_per_trial, trials_per_device)
        if placed != trainer:
            config["trainer"] = placed
        space = space_of(search_space, schema, config)
        blueprint = blueprint_class(schema, config, share_data)
        with opening.quiet_optuna():
            check_space(space, blueprint)
            check_config(base_config, blueprint)
            check_sampler(sampler, space, self._directions)
            self._baseline = stored_point(space, baseline) if isinstance(baseline, Mapping) else baseline
        prints = self._shows_bar or prints_itself(trainer, trainer_callbacks)
        self._view = LiveView(objective.monitor, view_console(verbose, is_shared=bool(prints) and not self._isolate))
        self._tell = Events([self._view])
        self._study: optuna.Study | None = None
        self._is_checked = False
        self._plan = StudyPlan(
            space=space,
            blueprint=blueprint,
            objective=objective,
            directory=directory,
            callbacks=trainer_callbacks,
            save_checkpoints=save_checkpoints,
            save_top_k=save_top_k,
            max_failures=max_failures,
            n_trials=n_trials,
            trial_timeout=trial_timeout,
        )

    @property
    def directory(self) -> Path:
        """The study's folder.

        Example:
            >>> optimizer.directory.name
            'optuna_study'
        """
        return self._plan.directory.root

    @property
    def study(self) -> optuna.Study:
        """The Optuna study; opened, or created, when first asked for.

        Raises:
            ConfigurationError: when the stored study is another one, or cannot be opened.

        Example:
            >>> optimizer.study.study_name
            'optuna_study'
        """
        plan = self._plan
        if self._study is None:
            plan.directory.create()
            with opening.quiet_optuna():
                self._storage = open_storage(self._stored_in, plan.directory.journal)
                study = opening.open_study(
                    self._study_name,
                    self._storage,
                    self._directions,
                    plan.objective.monitor,
                    self._load_if_exists,
                    self._sampler,
                    self._pruner,
                    self._seed,
                )
                subject = Subject.of(plan.blueprint.schema, plan.space, plan.blueprint.config)
                check_subject(study, subject, self._how_to_remove())
            if self._stored_in is None:
                plan.directory.check_belongs(study.user_attrs[SEED], len(study.get_trials(deepcopy=False)))
            self._study, plan.blueprint.data_seed = study, opening.data_seed(study)
        return self._study

    @property
    def n_trials(self) -> int:
        """The study's total. Set it to a larger number, and `optimize` goes on.

        Example:
            >>> optimizer.n_trials
            2
        """
        return self._plan.n_trials

    @n_trials.setter
    def n_trials(self, n_trials: int) -> None:
        check_integers({"n_trials": (n_trials, 1)})
        self._plan = dataclasses.replace(self._plan, n_trials=n_trials)

    def check(self, progress: Callable[[str], Any] | None = None) -> CheckReport:
        """Find in seconds the problems that the study would meet in hours.

        The untuned defaults and the ends of the space are trained for two batches each, in processes of their own
        where that is quick. The report covers metrics, parameters that change nothing, the pruner, time, memory and
        disk. The study is neither opened nor made, and does not repeat what the report says.

        Args:
            progress: is told what is tried now, a line for each run.

        Returns:
            What was tried, and what was found; ``print`` it.

        Raises:
            KeyboardInterrupt: after Ctrl-C.

        Example:
            >>> report = optimizer.check()
            >>> report.ok
            True
        """
        done = 0 if self._study is None else min(count_finished(self._study), self.n_trials)
        report = check_study(
            self._plan,
            study_name=self._study_name,
            pruner=self._pruner,
            baseline=self._baseline,
            seed=self._seed,
            slots=self._slots,
            is_isolated=self._isolate,
            processes=self._processes,
            done=done,
            progress=progress,
        )
        self._is_checked = True
        return report

    def optimize(self) -> optuna.Study:
        """Run the study up to ``n_trials`` trials in all, and return it.

        Called again, it goes on: trials that were interrupted or killed continue from their last checkpoint.

        Returns:
            The Optuna study.

        Raises:
            ConfigurationError: when a trial shows that none can succeed, for example since the metric is not logged.
            KeyboardInterrupt: after Ctrl-C. The first lets the running trials reach their next validation, the second
                ends them at once. They are recorded as failed, and running again goes on. SIGTERM does the same, and
                raises ``SystemExit``.

        Example:
            >>> study = optimizer.optimize()
            >>> len(study.trials), study.best_trial.number in (0, 1)
            (2, True)
        """
        study, plan = self.study, self._plan
        how_to_remove = self._how_to_remove()
        check_continuable(study, plan.space.parameters or (), how_to_remove)
        asked_for = define(
            study, plan.objective, plan.n_trials, plan.blueprint.schema, plan.space, plan.blueprint.config
        )
        if (changed := find_changes(plan.directory.read_definition(), asked_for, study)) is not None:
            self._tell.note(changed)
        recovery = Recovery(study, plan.directory, plan.n_trials, self._tell.note)
        recovery.begin()
        start_over(study)
        done = count_finished(study)
        line = headline(self._study_name, plan.objective, done, plan.n_trials)
        self._tell(StudyBegan(self.results(), done, plan.n_trials, line))
        report = ReportWriter(plan.directory)
        try:
            self._run(study, done, recovery, report, asked_for)
        except (KeyboardInterrupt, SystemExit):
            report.write(study)
            self._tell.note(f"Interrupted. {describe_progress(study, plan.n_trials)}; run again to go on.")
            raise
        report.write(study)
        results = self.results()
        self._tell(StudyEnded(summary(results, plan.directory), is_empty=not results.best_trials))
        return study

    def results(self) -> DrawableResults:
        """Return what the study has found so far, as frozen data that can be drawn.

        Example:
            >>> results = optimizer.results()
            >>> results.best.state, results.baseline.number
            ('complete', 0)
        """
        return drawable_results(self.study, self._plan.directory)

    def get_best_config(self, number: int | None = None) -> dict[str, Any]:
        """Return the config that a trial was trained with; it runs as it is.

        Args:
            number: the trial's; the best one's when not given.

        Returns:
            The sections ``model``, ``data`` and ``trainer``, and ``seed_everything``.

        Raises:
            NoResultError: when no trial has that number and completed.
            InvalidConfigError: when its file is missing, or has changed since.

        Example:
            >>> optimizer.get_best_config(0)["trainer"]["max_epochs"]
            1
        """
        number = self.results().choose(number)
        return self._plan.directory.read_config(number, read_config_sum(self.study, number))

    def best_model(self, number: int | None = None) -> LightningModule:
        """Build the model of a trial with its best weights, ready to evaluate.

        A compiled model comes without the compilation. Layers that ``setup`` makes are made with the trial's data.

        Args:
            number: the trial's; the best one's when not given.

        Returns:
            The LightningModule in evaluation mode, on the CPU.

        Raises:
            NoResultError: when no trial has that number and completed.
            TrialError: when its weights are missing, have changed since, or do not fit the class any more.

        Example:
            >>> optimizer.best_model().training
            False
        """
        number = (results := self.results()).choose(number)
        config, checkpoint = self.get_best_config(number), self._plan.directory.checkpoint(number)
        if checkpoint is None:
            kept = f"with save_checkpoints={self._plan.save_checkpoints} and save_top_k={self._plan.save_top_k}"
            raise TrialError(f"There is no '{self._plan.directory.trial(number) / 'best.ckpt'}', {kept}.")
        values = None if callable(self._plan.objective.score) else results.trials[number].values
        try:
            return trained_model(self._plan.blueprint, config, checkpoint, values).eval()
        except (InvalidConfigError, RuntimeError) as error:
            raise TrialError(f"The model's class is not what trial {number} trained: {error}") from error

    def refit(
        self,
        max_epochs: int | None = None,
        seeds: int | Sequence[int] | None = None,
        number: int | None = None,
    ) -> tuple[Refit, ...]:
        """Train a config again, without pruning; each training has a folder under ``refit/``.

        Args:
            max_epochs: epochs to train, more or fewer than the trial had.
            seeds: one training for each; the trial's own seed when not given.
            number: the trial's; the best one's when not given.

        Returns:
            The score and the checkpoint of each training, in the order of the seeds.

        Raises:
            ConfigurationError: when an argument is wrong.
            NoResultError: when no trial has that number and completed.
            TrialError: when a training fails.

        Example:
            >>> [refit.seed for refit in optimizer.refit(seeds=[1, 2])]
            [1, 2]
        """
        number = self.results().choose(number)
        config = self.get_best_config(number)
        if max_epochs is not None:
            check_integers({"max_epochs": (max_epochs, 1)})
            config = with_limits_of(config, {"trainer": {"max_epochs": max_epochs}})
        if seeds is None:
            own = config["seed_everything"]
            seeds = opening.derive_seed(self.study, number) if own is False else own
        chosen = check_seeds(seeds)
        ranks = self._plan.blueprint.check_trainer(config)
        with self._processes() if ranks > 1 else contextlib.nullcontext() as processes:

            def train(spec: TrialSpec) -> TrialOutcome:
                if processes is None:
                    return run_inline(spec, self._plan.blueprint, SilentReporter())
                return processes.run(spec, self._slots[0], SilentReporter(), ranks)

            return tuple(
                refit_trial(self._plan, self.study, config, number, seed, max_epochs, train) for seed in chosen
            )

    def replay(self, number: int, tolerance: float = 1e-5) -> Replay:
        """Train a trial again, as far as it was recorded, and compare.

        A trial that was pruned, cut short or failed can be replayed too. Of one that another goes on from, the other
        has the whole curve. The new training is in ``replay/``; the study stays as it is.

        Args:
            number: the trial's.
            tolerance: by how much of its size a value may differ.

        Returns:
            The recorded and the new values, and whether they agree; ``print`` it.

        Raises:
            NoResultError: when there is no such trial, or nothing recorded of it that could be compared.
            InvalidConfigError: when the file of its config is missing, or has changed since.
            TrialError: when the trial's classes are not what it was trained with.

        Example:
            >>> replay = optimizer.replay(0)
            >>> replay.recorded.values == replay.replayed.values
            True
        """
        check_tolerance(tolerance)
        return replay(
            self.study,
            number,
            self._plan.directory,
            self._plan.blueprint,
            self._plan.objective,
            self._plan.callbacks,
            tolerance,
        )

    def _processes(self) -> TrialProcesses:
        """Return what trains trials in processes of their own; nothing has begun.

        Raises:
            ConfigurationError: when something cannot travel there, naming it.
        """
        for callback in self._plan.callbacks:
            check_travels(f"callbacks: {type(callback).__name__}", callback)
        check_travels("score", self._plan.objective.score)
        return TrialProcesses(self._plan.blueprint)

    def _run(
        self,
        study: optuna.Study,
        done: int,
        recovery: Recovery,
        report: ReportWriter,
        asked_for: Mapping[str, Any],
    ) -> None:
        is_over = done >= self.n_trials
        with contextlib.ExitStack() as context:
            # a fork server may have to import for seconds, meanwhile the checks go on
            processes = context.enter_context(self._processes()) if self._isolate and not is_over else None
            ranks = self._plan.blueprint.check_trainer(self._plan.blueprint.config)
            if not is_over or not self._plan.directory.read_definition():  # else nothing runs as it is asked for
                self._plan.directory.write_definition(asked_for)
            self._prepare(study)
            if is_over:
                return
            if processes is None and ranks > 1:
                processes = context.enter_context(self._processes())
            if self._shows_bar:
                context.enter_context(self._tell.subscribed(context.enter_context(progress_bar(self.n_trials, done))))
            context.enter_context(self._view)
            context.enter_context(opening.quiet_optuna())
            runner = (
                InlineRunner(self._plan)
                if processes is None
                else ProcessRunner(self._plan, processes, self._slots, self._tell)
            )
            hosted = HostedStudy(study.study_name, self._storage, study.sampler, study.pruner)
            host = Host(self._plan, hosted, runner, recovery, self._tell)
            host.run([report, *self._study_callbacks], self._timeout, self._catch)

    def _prepare(self, study: optuna.Study) -> None:
        """Correct what an abrupt end left, and queue the untuned defaults of a new study."""
        plan = self._plan
        FolderUpkeep(study, plan.directory, TrialTally(study), plan.save_top_k).repair(self._tell.note)
        notes, point = [*notices(self._plan.objective, self._plan.blueprint.config)], None
        if is_new(study):
            point, note = plan_baseline(self._baseline, plan.space, plan.blueprint)
            notes += [] if note is None else [note]
        for note in () if self._is_checked else notes:  # a check has said them
            self._tell.note(note.detail)
        if point is not None:
            opening.queue_baseline(study, point)

    def _how_to_remove(self) -> str:
        return self._plan.directory.how_to_remove({"storage": self._stored_in})
