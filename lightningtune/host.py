"""The host of a study: it samples, freezes, has trials trained here or in processes of their own, and records."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from tqdm.auto import tqdm

from lightningtune.config.base import with_limits_of
from lightningtune.contract import Objective, StopReason, TrialOutcome, TrialSpec
from lightningtune.errors import ConfigurationError, InvalidConfigError, TrialError
from lightningtune.report.live import LiveView, WatchedReporter
from lightningtune.search.spaces import SearchSpace
from lightningtune.study import opening, succession
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.enqueue import check_queued
from lightningtune.study.leftovers import drop_leftovers
from lightningtune.study.liveness import get_pause_request, watch_for_pause
from lightningtune.study.loop import HostedStudy, ask_and_tell
from lightningtune.study.provenance import provenance_here
from lightningtune.study.recovery import Recovery
from lightningtune.study.refits import Refit, keep_result
from lightningtune.study.reporter import (
    BASELINE,
    PRUNED_BY,
    OptunaReporter,
    read_config_sum,
    record_config,
    record_outcome,
    record_placement,
)
from lightningtune.study.results import best_numbers, kept_numbers, trial_result
from lightningtune.study.sampling import is_exhausted
from lightningtune.study.storage import stop_waiting
from lightningtune.study.succession import CONTINUES, place_of, successors
from lightningtune.training.build import Blueprint
from lightningtune.training.failures import failure
from lightningtune.training.run import load_data, prepare_data
from lightningtune.workers.devices import Slot
from lightningtune.workers.inline import frozen_heap, run_inline
from lightningtune.workers.limits import InterruptibleReporter, Interruption, PausedError, TimedReporter, and_pauses
from lightningtune.workers.preparation import Preparation
from lightningtune.workers.processes import TrialProcesses

StudyCallback = Callable[[optuna.Study, optuna.trial.FrozenTrial], Any]


def _finished(outcome: TrialOutcome) -> Future[TrialOutcome]:
    future: Future[TrialOutcome] = Future()
    future.set_result(outcome)
    return future


@contextlib.contextmanager
def _progress_bar(study: optuna.Study, n_trials: int, options: Mapping[str, Any]) -> Iterator[list[StudyCallback]]:
    """Show a bar of the trials that count, where one is asked for."""
    if not options.get("show_progress_bar"):
        yield []
        return
    with tqdm(total=n_trials, initial=succession.count_finished(study)) as bar:
        yield [lambda study, trial: bar.update(succession.count_finished(study) - bar.n)]


@dataclass
class Host:
    """Runs the trials of one study.

    Attributes:
        space: what is sampled.
        blueprint: builds configs; knows the base config.
        objective: what is tuned.
        directory: the study's folder.
        view: shows what happens.
        callbacks: Lightning callbacks, of which each trial gets a copy.
        save_checkpoints: whether trials write checkpoints.
        save_top_k: of how many of the best trials the weights are kept.
        max_failures: after how many trials in a row that fail the same way the study ends; see `failing_alike`.
        n_trials: the study's total.
        trial_timeout: seconds that one trial may take.
    """

    space: SearchSpace
    blueprint: Blueprint
    objective: Objective
    directory: StudyDirectory
    view: LiveView
    callbacks: Sequence[Any]
    save_checkpoints: bool
    save_top_k: int
    max_failures: int
    n_trials: int
    trial_timeout: float | None
    _kept: set[int] = field(default_factory=set)
    _ranks_of: dict[str, int] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Nothing is prepared yet."""
        self._preparation = Preparation(self.blueprint)
        self._interruption = Interruption(self.view.urgent)
        self._turn = threading.Lock()
        self._ends_alike = False
        self._mistake: ConfigurationError | None = None

    def run_here(self, study: HostedStudy, callbacks: Sequence[StudyCallback], options: Mapping[str, Any]) -> None:
        """Train in this process, one trial at a time.

        Args:
            study: the study.
            callbacks: called after each trial.
            options: of ``Study.optimize``.

        Raises:
            ConfigurationError: when a trial showed that none can succeed.
        """
        if self.blueprint.share_data:
            load_data(self.blueprint)

        def start(trial: optuna.Trial) -> Future[TrialOutcome]:
            spec = self._begin(trial)
            return _finished(self._train_inline(trial, spec) if isinstance(spec, TrialSpec) else spec)

        def interrupted(text: str) -> None:
            stop_waiting(study)
            self.view.urgent(text)

        interruption = Interruption(interrupted, lambda: stop_waiting(study), is_here=True)
        with self._run(study, interruption), frozen_heap(), _progress_bar(study, self.n_trials, options) as bar:
            self._ask_and_tell(study, start, [*callbacks, *bar], options)

    def run_isolated(
        self,
        study: HostedStudy,
        callbacks: Sequence[StudyCallback],
        options: Mapping[str, Any],
        processes: TrialProcesses,
        slots: Sequence[Slot],
    ) -> None:
        """Train each trial in a process of its own, as many at a time as there are slots.

        Args:
            study: the study.
            callbacks: called after each trial.
            options: ``timeout`` and ``catch`` of ``Study.optimize``.
            processes: run the trials.
            slots: where.

        Raises:
            ConfigurationError: when a trial showed that none can succeed.
        """
        free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in slots:
            free.put(slot)

        def interrupted(text: str) -> None:
            study.stop()
            stop_waiting(study)
            processes.interrupt()
            self.view.urgent(text)

        def end() -> None:
            processes.end()
            stop_waiting(study)

        interruption = Interruption(interrupted, end)
        with self._run(study, interruption), processes.threads(len(slots)) as threads:

            def start(trial: optuna.Trial) -> Future[TrialOutcome]:
                try:
                    spec = self._begin(trial)
                    if isinstance(spec, TrialSpec):
                        ranks = self._ranks(spec)
                        return threads.submit(self._train_isolated, trial, spec, ranks, processes, free)
                except ConfigurationError as mistake:  # of a trainer that is sampled
                    spec = failure(mistake)
                return _finished(spec)

            self._ask_and_tell(study, start, callbacks, options, processes.end, len(slots))

    def _ask_and_tell(
        self,
        study: HostedStudy,
        start: Callable[[optuna.Trial], Future[TrialOutcome]],
        callbacks: Sequence[StudyCallback],
        options: Mapping[str, Any],
        end: Callable[[], Any] = lambda: None,
        n_jobs: int = 1,
    ) -> None:
        ask_and_tell(
            study,
            start,
            self._record,
            end=end,
            is_wanted=lambda running: (
                succession.count_finished(study) + running < self.n_trials and not is_exhausted(study, self.space)
            ),
            n_jobs=n_jobs,
            timeout=options.get("timeout"),
            catch=and_pauses(options["catch"]),
            callbacks=[self._after_trial, *callbacks],
        )

    @contextlib.contextmanager
    def _run(self, study: optuna.Study, interruption: Interruption) -> Iterator[None]:
        """Run trials under the user's signals; raise what showed that none can succeed."""
        self._interruption, self._mistake, self._ends_alike = interruption, None, False
        drop_leftovers(study, self.directory, self.save_top_k)
        self._provenance = provenance_here(self.blueprint.schema)
        with self._recovery.kept(), watch_for_pause(study, self._paused_before, interruption.pause), interruption:
            yield
        if self._mistake is not None:
            raise self._mistake.with_traceback(None) from None
        if (done := succession.count_finished(study)) >= self.n_trials:
            return
        if interruption.is_paused:
            self.view.note(f"{done} of {self.n_trials} trials are done; run again to go on.")
        elif is_exhausted(study, self.space):
            name = type(study.sampler).__name__
            self.view.note(f"{name} has tried all its points: the study ends with {done} of {self.n_trials} trials.")

    def rescue(self, study: optuna.Study) -> None:
        """Give out again what an earlier run has left: trials whose process has died, and those it has interrupted."""
        self._paused_before = get_pause_request(study)  # from now on a request counts, however long the start takes
        self._recovery = Recovery(study, self.directory, self.n_trials, self.view.note)
        self._recovery.begin()

    def set_right(self, study: optuna.Study) -> None:
        """Make the folder agree with the study, whose end may have been abrupt."""
        best, self._kept = best_numbers(study), kept_numbers(study, self.save_top_k)
        if not best or len(self.objective.monitor) > 1 or not self.directory.trial(best[0]).exists():
            return
        try:
            self.directory.check_whole(best[0], read_config_sum(study, best[0]))
            self.directory.promote(best[0])
        except InvalidConfigError as damage:
            self.view.note(f"best/ stays as it is. {damage}")

    def freeze(self, number: int, config: Mapping[str, Any], directory: Path, data_seed: int | None) -> TrialSpec:
        """Write down what will be trained."""
        self.directory.begin(directory, config)
        callbacks = tuple(copy.deepcopy(callback) for callback in self.callbacks)
        return TrialSpec(
            number, config, directory, self.objective, callbacks, self.save_checkpoints, data_seed, pruned_by=PRUNED_BY
        )

    def refit(
        self,
        study: optuna.Study,
        config: Mapping[str, Any],
        number: int,
        seed: int,
        max_epochs: int | None,
        train: Callable[[TrialSpec], TrialOutcome],
    ) -> Refit:
        """Train a trial's config again, on the data of the trial.

        Raises:
            TrialError: when it fails.
        """
        directory = self.directory.refit(number, seed, max_epochs)
        data_seed = opening.data_seed(study, number)
        outcome = train(self.freeze(0, {**config, "seed_everything": seed}, directory, data_seed))
        self.directory.drop_last(directory)
        if isinstance(outcome.error, (KeyboardInterrupt, SystemExit)):
            raise outcome.error
        if outcome.score is None:
            raise TrialError(f"The refit with seed {seed} ended without a score: {outcome.detail}") from outcome.error
        return keep_result(self.directory, number, seed, outcome.score, outcome.checkpoint, directory)

    def _train_inline(self, trial: optuna.Trial, spec: TrialSpec) -> TrialOutcome:
        try:
            spec = self._with_data(spec, lambda: prepare_data(self.blueprint, spec))
            return run_inline(spec, self.blueprint, TimedReporter(self._reporter(trial), self.trial_timeout))
        except BaseException as error:  # the data may fail to be prepared
            return failure(error, PRUNED_BY)

    def _train_isolated(
        self,
        trial: optuna.Trial,
        spec: TrialSpec,
        ranks: int,
        processes: TrialProcesses,
        free: queue.SimpleQueue[Slot],
    ) -> TrialOutcome:
        slot = free.get()
        try:
            record_placement(trial, dataclasses.asdict(slot))
            self.view.trial_placed(trial.number, ",".join(f"device {device}" for device in slot.devices))
            spec = self._with_data(spec, lambda: processes.prepare_data(spec, slot, ranks))
            outcome = processes.run(spec, slot, self._reporter(trial), ranks, self.trial_timeout)
        except BaseException as error:  # the data may fail to be prepared, the storage may be away
            outcome = failure(error, PRUNED_BY)
        finally:
            free.put(slot)
        if isinstance(outcome.error, (KeyboardInterrupt, SystemExit)):  # the trial's own process was sent a signal
            reason = StopReason.KILLED if self._interruption.stop is None else StopReason.INTERRUPTED
            return dataclasses.replace(outcome, reason=reason, error=TrialError(outcome.detail))
        return outcome

    def _with_data(self, spec: TrialSpec, prepare: Callable[[], bool]) -> TrialSpec:
        is_prepared = not self.blueprint.share_data and self._preparation.of(spec.config, prepare)
        return dataclasses.replace(spec, data_is_prepared=is_prepared)

    def _ranks(self, spec: TrialSpec) -> int:
        """Return how many processes train a trial; the trainer's section tells, and most trials share it."""
        section = repr(spec.config.get("trainer"))
        if section not in self._ranks_of:
            self._ranks_of[section] = self.blueprint.check_trainer(spec.config)
        return self._ranks_of[section]

    def _begin(self, trial: optuna.Trial) -> TrialSpec | TrialOutcome:
        """Sample and freeze a trial, or say why it ends before it starts."""
        try:
            overrides = self.space.suggest(trial)
            check_queued(trial, self.space.parameters is not None, self.view.warn)
            self.view.trial_started(trial.number, trial.params, is_baseline=BASELINE in trial.user_attrs)
            config = self.blueprint.schema.merge(self.blueprint.config, overrides)
            directory, before = self.directory.trial(trial.number), trial.user_attrs.get(CONTINUES)
            recorded = None if before is None else self._recovery.config_of(before)
            data_seed = opening.data_seed(trial.study, None if recorded is None else before)
            if recorded is not None:
                config = with_limits_of(recorded, config)
            else:
                seed = config.pop("seed_everything", True)
                place = place_of(trial.study.get_trials(deepcopy=False), trial.number)
                seed = opening.derive_seed(trial.study, place) if seed is True else seed
                config = {"seed_everything": seed, **config}
            self.view.trial_trains(trial.number, config.get("trainer"))
            spec = self.freeze(trial.number, config, directory, data_seed)
            record_config(trial, self.directory.sum_of_config(trial.number), data_seed, self._provenance)
            # a checkpoint of another training is noticed when it is read
            checkpoint = None if before is None else self._recovery.checkpoint_of(before)
            study = trial.study.study_name
            return dataclasses.replace(spec, checkpoint=checkpoint, study=study, params=trial.params)
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # a user's function may raise anything
            return failure(error, PRUNED_BY)

    def _reporter(self, trial: optuna.Trial) -> InterruptibleReporter:
        watched = WatchedReporter(OptunaReporter(trial), self.view, trial.number)
        return InterruptibleReporter(watched, self._interruption, self._turn)

    def _record(self, trial: optuna.Trial, outcome: TrialOutcome) -> TrialOutcome:
        """Keep on the trial, and in its folder, how it ended; a mistake ends a study in which nothing can succeed."""
        if (mistake := succession.mistake_in(trial.study, outcome.error)) is not None:
            self._mistake = mistake
            trial.study.stop()
            outcome = dataclasses.replace(outcome, reason=StopReason.REFUSED)
        if outcome.reason is StopReason.INTERRUPTED and self._interruption.is_paused:
            outcome = dataclasses.replace(outcome, error=PausedError(outcome.detail))
        with contextlib.suppress(UpdateFinishedTrialError):  # this host was given up, and another has the trial
            record_outcome(trial, outcome)
        for notice in outcome.notices:
            if notice.subject not in self._told:  # the next trial would say the same
                self._told.add(notice.subject)
                self.view.warn(f"Trial {trial.number}: {notice}")
        if outcome.error is not None:
            self._recovery.write_error(trial.number, outcome.traceback or outcome.detail)
        return outcome

    def _after_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        """Keep what is to be kept of the trial, show it, and end a study that is over, or only fails."""
        tell = self._recovery.give_again(trial)  # first, for what it goes on from to be kept
        if trial.state is not optuna.trial.TrialState.FAIL:
            self.directory.drop_last(self.directory.trial(trial.number))
        best = best_numbers(study)
        if best == [trial.number] and len(self.objective.monitor) == 1:
            self.directory.promote(trial.number)
        kept = kept_numbers(study, self.save_top_k)
        for number in {*self._kept, trial.number} - kept:
            self.directory.drop_weights(number)
        self._kept = kept
        trials = study.get_trials(deepcopy=False)
        heirs = successors(trials)
        shown = {n: trial_result(trials[n], self.directory, heirs.get(n)) for n in (*best, trial.number)}
        done = succession.count_finished(study)  # other processes may have had a share
        self.view.trial_ended(shown[trial.number], tuple(shown[number] for number in best), done)
        tell()
        self._recovery.look()
        if done >= self.n_trials or self._interruption.stop is not None:
            study.stop()
        alike = succession.failing_alike(study, self.max_failures)
        if alike is not None and self._mistake is None and not self._ends_alike:
            self._ends_alike = True
            study.stop()
            count, detail = alike
            end = "" if detail.endswith((".", "!", "?")) else "."
            error_file = self.directory.trial(trial.number) / "error.txt"
            why = f"{count} trials in a row failed alike. {detail}{end} See {error_file}"
            self.view.stopped(f"The study ends: {why}\n{succession.SAY_WHAT_IS_IMPOSSIBLE}")
