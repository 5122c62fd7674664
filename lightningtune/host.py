"""The host of a study: it samples, freezes, has trials trained here or in processes of their own, and records."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError

from lightningtune.config.base import with_limits_of
from lightningtune.contract import Objective, Reporter, Stop, StopReason, TrialOutcome, TrialSpec, Values
from lightningtune.errors import ConfigurationError, TrialError
from lightningtune.search.spaces import SearchSpace
from lightningtune.study import opening
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.events import Events, Level, Message, TrialEnded, TrialPlaced, TrialStarted, ValuesReported
from lightningtune.study.liveness import HostedStudy
from lightningtune.study.loop import ask_and_tell
from lightningtune.study.provenance import find_provenance
from lightningtune.study.recovery import Recovery
from lightningtune.study.reporter import (
    BASELINE,
    PRUNED_BY,
    OptunaReporter,
    record_config,
    record_outcome,
    record_placement,
)
from lightningtune.study.results import Refit, keep_result, read_trial
from lightningtune.study.sampling import check_queued, is_exhausted
from lightningtune.study.storage import stop_waiting
from lightningtune.study.succession import CONTINUES
from lightningtune.study.tally import SAY_WHAT_IS_IMPOSSIBLE, TrialTally, find_fatal_error
from lightningtune.study.upkeep import FolderUpkeep
from lightningtune.training.build import Blueprint
from lightningtune.training.failures import failure
from lightningtune.training.run import load_data, prepare_data
from lightningtune.workers.devices import Slot
from lightningtune.workers.inline import Preparation, frozen_heap, run_inline
from lightningtune.workers.limits import Interruption, LimitedReporter, PausedError, and_pauses, limit_time
from lightningtune.workers.processes import TrialProcesses

StudyCallback = Callable[[optuna.Study, optuna.trial.FrozenTrial], Any]


@dataclass(frozen=True)
class StudyPlan:
    """What a study is asked to do.

    Attributes:
        space: what is sampled.
        blueprint: builds configs; knows the base config.
        objective: what is tuned.
        directory: the study's folder.
        callbacks: Lightning callbacks, of which each trial gets a copy.
        save_checkpoints: whether trials write checkpoints.
        save_top_k: of how many of the best trials the weights are kept.
        max_failures: consecutive identical failures after which the study stops.
        n_trials: the study's total.
        trial_timeout: seconds that one trial may take.
    """

    space: SearchSpace
    blueprint: Blueprint
    objective: Objective
    directory: StudyDirectory
    callbacks: Sequence[Any]
    save_checkpoints: bool
    save_top_k: int
    max_failures: int
    n_trials: int
    trial_timeout: float | None

    def freeze(self, number: int, config: Mapping[str, Any], directory: Path, data_seed: int | None) -> TrialSpec:
        """Write down in a training's folder what will be trained, and return it."""
        self.directory.begin(directory, config)
        callbacks = tuple(copy.deepcopy(callback) for callback in self.callbacks)
        return TrialSpec(
            number, config, directory, self.objective, callbacks, self.save_checkpoints, data_seed, pruned_by=PRUNED_BY
        )


class Runner:
    """Trains trials, at most ``n_jobs`` at a time, while it is entered; ``is_here`` says whether in this process."""

    n_jobs = 1
    is_here = True

    def __init__(self, plan: StudyPlan) -> None:
        self._plan, self._context = plan, contextlib.ExitStack()
        self._preparation = Preparation(plan.blueprint)

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exit_with: object) -> None:
        self._context.close()

    def start(self, trial: optuna.Trial, spec: TrialSpec, reporter: Reporter) -> Future[TrialOutcome]:
        """Begin to train a trial."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """End what reaches no validation, such as the preparation of data; called in a signal handler."""

    def end(self) -> None:
        """End all trials now; called in a signal handler."""

    def _with_data(self, spec: TrialSpec, prepare: Callable[[], bool]) -> TrialSpec:
        is_prepared = not self._plan.blueprint.share_data and self._preparation.of(spec.config, prepare)
        return dataclasses.replace(spec, data_is_prepared=is_prepared)


class InlineRunner(Runner):
    """Trains in this process, one trial at a time. Shared data is loaded at once."""

    def __init__(self, plan: StudyPlan) -> None:
        super().__init__(plan)
        if plan.blueprint.share_data:
            load_data(plan.blueprint)

    def __enter__(self) -> Runner:
        self._context.enter_context(frozen_heap())
        return self

    def start(self, trial: optuna.Trial, spec: TrialSpec, reporter: Reporter) -> Future[TrialOutcome]:
        """Train a trial to its end."""
        blueprint = self._plan.blueprint
        try:
            spec = self._with_data(spec, lambda: prepare_data(blueprint, spec))
            return _finish(run_inline(spec, blueprint, limit_time(reporter, self._plan.trial_timeout)))
        except BaseException as error:  # the data may fail to be prepared
            return _finish(failure(error, PRUNED_BY))


class ProcessRunner(Runner):
    """Trains each trial in a process of its own, as many at a time as there are slots."""

    is_here = False

    def __init__(self, plan: StudyPlan, processes: TrialProcesses, slots: Sequence[Slot], tell: Events) -> None:
        super().__init__(plan)
        self._processes, self._tell = processes, tell
        self._ranks: dict[str, int] = {}
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in slots:
            self._free.put(slot)
        self.n_jobs = len(slots)

    def __enter__(self) -> Runner:
        self._threads = self._context.enter_context(ThreadPoolExecutor(self.n_jobs, "lightningtune-trial"))
        return self

    def start(self, trial: optuna.Trial, spec: TrialSpec, reporter: Reporter) -> Future[TrialOutcome]:
        """Train a trial in a thread that waits for a slot."""
        try:
            ranks = self._count_ranks(spec.config)
        except ConfigurationError as mistake:  # of a trainer that is sampled
            return _finish(failure(mistake))
        return self._threads.submit(self._train, trial, spec, ranks, reporter)

    def interrupt(self) -> None:
        """End processes that prepare data."""
        self._processes.interrupt()

    def end(self) -> None:
        """End all processes."""
        self._processes.end()

    def _train(self, trial: optuna.Trial, spec: TrialSpec, ranks: int, reporter: Reporter) -> TrialOutcome:
        processes, slot = self._processes, self._free.get()
        try:
            record_placement(trial, dataclasses.asdict(slot))
            self._tell(TrialPlaced(trial.number, tuple(slot.devices)))
            prepared = self._with_data(spec, lambda: processes.prepare_data(spec, slot, ranks))
            return processes.run(prepared, slot, reporter, ranks, self._plan.trial_timeout)
        except BaseException as error:  # the data may fail to be prepared, the storage may be away
            return failure(error, PRUNED_BY)
        finally:
            self._free.put(slot)

    def _count_ranks(self, config: Mapping[str, Any]) -> int:
        """Return how many processes train a trial; the trainer's section tells, and most trials share it."""
        section = repr(config.get("trainer"))
        if section not in self._ranks:
            self._ranks[section] = self._plan.blueprint.check_trainer(config)
        return self._ranks[section]


class Host:
    """Runs the trials of a study in one session, until it has all, is interrupted, or can only fail.

    Args:
        plan: what is asked for.
        study: the study.
        runner: trains the trials.
        recovery: queues trials again that were cut short; has begun.
        tell: is told of each event.
    """

    def __init__(self, plan: StudyPlan, study: HostedStudy, runner: Runner, recovery: Recovery, tell: Events) -> None:
        self._plan, self._study, self._runner, self._recovery, self._tell = plan, study, runner, recovery, tell
        self._tally = TrialTally(study)
        self._upkeep = FolderUpkeep(study, plan.directory, self._tally, plan.save_top_k)
        self._interruption = Interruption(self._interrupt, self._end_now, is_here=runner.is_here)
        self._provenance = find_provenance(plan.blueprint.schema)
        self._pruner_turn = threading.Lock()
        self._mistake: ConfigurationError | None = None
        self._fails_alike = False

    def run(
        self,
        callbacks: Sequence[StudyCallback] = (),
        timeout: float | None = None,
        catch: Iterable[type[Exception]] | type[Exception] = (Exception,),
    ) -> None:
        """Run trials until no more are wanted.

        Args:
            callbacks: called after each trial.
            timeout: seconds after which no further trial begins.
            catch: errors of a trial that do not end the study.

        Raises:
            ConfigurationError: when a trial showed that none can succeed.
            KeyboardInterrupt: after Ctrl-C; ``SystemExit`` after SIGTERM or SIGHUP.
        """
        self._upkeep.drop_leftovers()
        with self._recovery.watch(self._interruption.pause), self._interruption, self._runner:
            ask_and_tell(
                self._study,
                self._start,
                self._record,
                end=self._runner.end,
                is_wanted=self._is_wanted,
                n_jobs=self._runner.n_jobs,
                timeout=timeout,
                catch=and_pauses(catch),
                callbacks=[self._after_trial, *callbacks],
            )
        if self._mistake is not None:
            raise self._mistake.with_traceback(None) from None
        self._say_what_is_missing()

    def _is_wanted(self, running: int) -> bool:
        self._tally.update()
        is_full = self._tally.count + running >= self._plan.n_trials
        return not is_full and not is_exhausted(self._study, self._plan.space)

    def _start(self, trial: optuna.Trial) -> Future[TrialOutcome]:
        try:
            spec = self._sample(trial)
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # a user's function may raise anything
            return _finish(failure(error, PRUNED_BY))
        watched = _ToldReporter(OptunaReporter(trial, self._tell.warn_once), trial.number, self._tell)
        return self._runner.start(
            trial, spec, LimitedReporter(watched, lambda: self._interruption.stop, self._pruner_turn)
        )

    def _sample(self, trial: optuna.Trial) -> TrialSpec:
        """Sample a trial's parameters, and freeze its config."""
        plan, before = self._plan, trial.user_attrs.get(CONTINUES)
        overrides = plan.space.suggest(trial)
        check_queued(trial, plan.space.parameters is not None, self._tell.warn)
        config = plan.blueprint.schema.merge(plan.blueprint.config, overrides)
        recorded = None if before is None else self._recovery.read_config(before)
        if recorded is not None:  # the trial goes on as it began; only the trainer's limits may have changed
            config, data_seed = with_limits_of(recorded, config), opening.data_seed(self._study, before)
        else:
            seed, data_seed = config.pop("seed_everything", True), opening.data_seed(self._study)
            if seed is True:
                self._tally.update()
                seed = opening.derive_seed(self._study, self._tally.get_place(trial.number))
            config = {"seed_everything": seed, **config}
        trainer = config.get("trainer")
        self._tell(
            TrialStarted(
                trial.number,
                trial.params,
                is_baseline=BASELINE in trial.user_attrs,
                trainer=trainer if isinstance(trainer, Mapping) else None,
            )
        )
        spec = plan.freeze(trial.number, config, plan.directory.trial(trial.number), data_seed)
        record_config(trial, plan.directory.sum_of_config(trial.number), data_seed, self._provenance)
        # a checkpoint of another training is noticed when it is read
        checkpoint = None if before is None else self._recovery.find_checkpoint(before)
        return dataclasses.replace(spec, checkpoint=checkpoint, study=self._study.study_name, params=trial.params)

    def _record(self, trial: optuna.Trial, outcome: TrialOutcome) -> TrialOutcome:
        """Record on the trial, and in its folder, how it ended; a mistake ends a study in which nothing can succeed."""
        if not self._runner.is_here and isinstance(outcome.error, (KeyboardInterrupt, SystemExit)):
            # a signal has ended the trial's own process, and not this one
            reason = StopReason.KILLED if self._interruption.stop is None else StopReason.INTERRUPTED
            outcome = dataclasses.replace(outcome, reason=reason, error=TrialError(outcome.detail))
        if (mistake := find_fatal_error(self._study, outcome.error)) is not None:
            self._mistake = mistake
            self._study.stop()
            outcome = dataclasses.replace(outcome, reason=StopReason.REFUSED)
        if outcome.reason is StopReason.INTERRUPTED and self._interruption.is_paused:
            outcome = dataclasses.replace(outcome, error=PausedError(outcome.detail))
        with contextlib.suppress(UpdateFinishedTrialError):  # this host was given up, and another has the trial
            record_outcome(trial, outcome)
        for notice in outcome.notices:
            self._tell.tell_once(notice, trial.number)
        if outcome.error is not None:
            self._recovery.write_error(trial.number, outcome.traceback or outcome.detail)
        return outcome

    def _after_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        """Keep what is to be kept of a trial, tell of it, and stop a study that is over, or only fails."""
        tell_successor = self._recovery.requeue(trial)  # first, so that the weights it goes on from are kept
        tally, directory = self._tally, self._plan.directory
        tally.update()
        self._upkeep.keep(trial)
        best, ended = (
            tuple(read_trial(tally.trials[n], directory, tally.successors.get(n)) for n in numbers)
            for numbers in (tally.best, [trial.number])
        )
        self._tell(TrialEnded(ended[0], best, tally.count))
        tell_successor()
        self._recovery.look()
        if tally.count >= self._plan.n_trials or self._interruption.stop is not None:
            self._study.stop()
        alike = tally.find_failing_alike(self._plan.max_failures)
        if alike is not None and self._mistake is None and not self._fails_alike:
            self._fails_alike = True
            self._study.stop()
            count, detail = alike
            end = "" if detail.endswith((".", "!", "?")) else "."
            why = (
                f"{count} trials in a row failed alike. {detail}{end} See {directory.trial(trial.number) / 'error.txt'}"
            )
            self._tell(Message(f"The study ends: {why}\n{SAY_WHAT_IS_IMPOSSIBLE}", Level.ERROR))

    def _say_what_is_missing(self) -> None:
        self._tally.update()
        done, total = self._tally.count, self._plan.n_trials
        if done >= total:
            return
        if self._interruption.is_paused:
            self._tell.note(f"{done} of {total} trials are done; run again to go on.")
        elif is_exhausted(self._study, self._plan.space):
            name = type(self._study.sampler).__name__
            self._tell.note(f"{name} has tried all its points: the study ends with {done} of {total} trials.")

    def _interrupt(self, text: str) -> None:
        """Let running trials reach their next validation; called in a signal handler, or by a pause."""
        self._study.stop()
        stop_waiting(self._study)
        self._runner.interrupt()
        self._tell(Message(text, Level.SIGNAL))

    def _end_now(self) -> None:
        self._runner.end()
        stop_waiting(self._study)


class _ToldReporter:
    """A reporter that tells of each value, and of each notice once a study."""

    def __init__(self, reporter: Reporter, number: int, tell: Events) -> None:
        self._reporter, self._number, self._tell = reporter, number, tell

    def report(self, values: Values, step: int) -> Stop | None:
        self._tell(ValuesReported(self._number, values, step))
        return self._reporter.report(values, step)

    def notice(self, text: str) -> None:
        self._tell.warn_once(text)


def refit_trial(
    plan: StudyPlan,
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
    directory = plan.directory.refit(number, seed, max_epochs)
    data_seed = opening.data_seed(study, number)
    outcome = train(plan.freeze(0, {**config, "seed_everything": seed}, directory, data_seed))
    plan.directory.drop_last(directory)
    if isinstance(outcome.error, (KeyboardInterrupt, SystemExit)):
        raise outcome.error
    if outcome.score is None:
        raise TrialError(f"The refit with seed {seed} ended without a score: {outcome.detail}") from outcome.error
    return keep_result(plan.directory, number, seed, outcome.score, outcome.checkpoint, directory)


def _finish(outcome: TrialOutcome) -> Future[TrialOutcome]:
    future: Future[TrialOutcome] = Future()
    future.set_result(outcome)
    return future
