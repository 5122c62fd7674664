"""`TuneCallback`: an ordinary ``Trainer.fit`` script becomes an Optuna objective."""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import signal
import uuid
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.multiprocessing.spawn import ProcessRaisedException

from lightningtune.contract import Mode, NonFinitePolicy, ScorePolicy, Stop, StopReason, TrialOutcome
from lightningtune.errors import ConfigurationError, MetricError, NonFiniteError, redact
from lightningtune.study.objective import make_objective
from lightningtune.study.reporter import DETAIL, REASON, OptunaReporter
from lightningtune.training.callback import TrialCallback
from lightningtune.training.checkpoints import KeepCheckpoints, LastNeeded
from lightningtune.training.failures import failure
from lightningtune.training.loops import get_callbacks, raise_at_end_of_fit, reraise_at_end_of_fit
from lightningtune.training.signals import SigtermGuard, end_training_processes, get_late_sigterm

_FROM_WORKERS = "lightningtune:from_workers"
"""The trial's attribute in which rank 0 of a spawned or forked fit leaves its results for the parent process."""

_CALLBACKS: weakref.WeakValueDictionary[str, TuneCallback] = weakref.WeakValueDictionary()
"""The callbacks that were constructed in this process, by their keys: unpickling one returns the original."""


class TuneCallback(TrialCallback):
    """Reports every validation of a fit to an Optuna trial, prunes it, and knows its score.

    A trial that is pruned ends softly: Lightning leaves its loops by itself, every end hook runs, loggers finish, and
    then ``optuna.TrialPruned`` comes out of ``Trainer.fit``. Ctrl-C and SIGTERM fail the trial, and end the process.

    A trial may consist of several fits, for folds or stages: pass one callback to all of them, or a new one to each.
    Steps go on from fit to fit, so that the trial has one curve; `score`, `history` and `best_model_path` are those of
    the callback's latest fit. A copy of a callback, by ``copy`` or ``pickle``, is the callback itself, for some
    libraries copy what they are given; in another process it is a callback that reports to the same trial.

    Data and files are yours. Give a random split a generator with a fixed seed, so that all trials have the same
    validation set, and each trial's loggers and checkpoints a folder of their own.

    Args:
        trial: the trial that Optuna has given to the objective.
        monitor: the metric to tune; or several, in a study with several objectives. Not every validation must log it:
            one that does not reports nothing, and a fit in which none does raises `MetricError` at its end.
        mode: "min" or "max", one for each metric where there are several; taken from the study's directions when
            not given.
        score: which of the fit's values `score` is: "best", "last", or a function of all of them.
        non_finite: what NaN or infinity in the metric or the training loss does: "prune" ends the trial as pruned,
            "fail" as failed, "ignore" goes on. The loss is looked at with each validation and, in a fit of one
            process, every 50 batches; Lightning validates once more as it ends the fit.
        step_offset: the step of the first validation. By default steps begin at 0 and go on from fit to fit; where
            folds differ in length, as with early stopping, ``step_offset=fold * max_epochs`` lets the pruner
            compare each with its like.
        save_best: a folder in which to keep the checkpoint of the validation that gives the score; each fit has a
            folder of its own there.

    Raises:
        MetricError: when the mode contradicts the study's direction.
        ConfigurationError: when ``trial`` is none, or ``step_offset`` is negative.

    Attributes:
        history: the values of each validation of the latest fit, one tuple for each that logged the metrics.
        stop: why the latest fit was ended early; None if it was not.

    Example:
        >>> import torch
        >>> from lightning.pytorch.demos.boring_classes import BoringModel
        >>> class Net(BoringModel):
        ...     def validation_step(self, batch, batch_idx):
        ...         self.log("val_loss", self.step(batch))
        >>> data = torch.ones(3, 4, 32)  # three batches
        >>> quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        >>> def objective(trial):
        ...     tune = TuneCallback(trial, monitor="val_loss")
        ...     trainer = Trainer(max_epochs=3, callbacks=[tune], enable_model_summary=False, **quiet)
        ...     trainer.fit(Net(), data, data)
        ...     return tune.score
        >>> study = optuna.create_study(direction="minimize")
        >>> study.optimize(objective, n_trials=2)
        >>> sorted(study.best_trial.intermediate_values)
        [0, 1, 2]
    """

    def __init__(
        self,
        trial: optuna.trial.BaseTrial,
        monitor: str | Sequence[str] = "val_loss",
        mode: Mode | Sequence[Mode] | None = None,
        score: ScorePolicy = "best",
        non_finite: NonFinitePolicy = "prune",
        step_offset: int | None = None,
        save_best: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(trial, optuna.trial.BaseTrial):
            raise ConfigurationError(f"TuneCallback takes the trial of an objective, but got {trial!r}.")
        if step_offset is not None and step_offset < 0:
            raise ConfigurationError(f"step_offset cannot be negative but got {step_offset}.")
        self.trial = trial
        self._process = os.getpid()
        study: optuna.Study | None = getattr(trial, "study", None)
        directions = [direction.name.lower() for direction in study.directions] if study else None
        objective = make_objective(monitor, mode, directions, score=score, non_finite=non_finite)
        super().__init__(objective, OptunaReporter(trial), after_report=None if save_best is None else self._save_best)
        self._step_offset = step_offset
        self._saves_to = None if save_best is None else Path(save_best)
        self._folder = Path()  # of the current fit, in the one above
        self._best_model_path = ""
        self._has_fitted_here = False
        self._key = uuid.uuid4().hex
        _CALLBACKS[self._key] = self
        self._ending: BaseException | None = None
        self._sigterm = SigtermGuard()

    def __copy__(self) -> TuneCallback:
        return self

    def __deepcopy__(self, memo: Mapping[int, Any]) -> TuneCallback:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _original_or_new, (type(self), self._key), vars(self)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        if not vars(self):  # else it is the original, which knows better
            vars(self).update(state)
            if self._process == os.getpid():  # the original is gone, and the trial is a copy here too
                self._process = -1

    @property
    def best_model_path(self) -> str:
        """The path of the latest fit's best checkpoint; empty where there is none.

        With ``save_best`` it is the checkpoint of the validation that gives the score. Otherwise it is the
        ``best_model_path`` of the first ``ModelCheckpoint`` that has the same ``monitor``, else of the first one.
        Without a monitor, as in the one that Lightning adds by default, that is the latest checkpoint.
        """
        self._recover_from_workers()
        return self._best_model_path

    @property
    def score(self) -> Any:
        """The score of the latest fit: a float, or a tuple where several metrics are monitored.

        Raises:
            optuna.TrialPruned: when the trial was pruned.
            NonFiniteError: when the metric or the loss was not finite and the policy is "fail"; or when the score
                itself is not finite.
            MetricError: when no value was reported.
        """
        error = self._error_after_fit()
        if error is not None:
            raise error
        values = self.compute_score()
        return values[0] if len(values) == 1 else values

    def check_pruned(self) -> None:
        """Raise ``optuna.TrialPruned`` if the trial was pruned.

        ``Trainer.fit`` has done so before; this is for scripts that are written for the callback of optuna-integration,
        and call it after the fit.
        """
        error = self._error_after_fit()
        if isinstance(error, optuna.TrialPruned):
            raise error

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start afresh."""
        if stage == "fit":
            if any(isinstance(other, TuneCallback) and other is not self for other in get_callbacks(trainer)):
                raise ConfigurationError(_TWO_IN_A_FIT)
            self._ending, self._best_model_path = None, ""
            self._has_fitted_here = os.getpid() == self._process
            self._sigterm.follow(trainer)
        super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make sure that all ranks train the same trial, and that rank 0 has a storage of its own."""
        if os.getpid() != self._process:
            if isinstance(getattr(self.trial, "storage", None), optuna.storages.InMemoryStorage):
                raise ConfigurationError(_IN_MEMORY)
            self.trial = pickle.loads(pickle.dumps(self.trial))  # a connection does not survive a fork
            self.reporter = OptunaReporter(self.trial)
        if trainer.world_size > 1:
            mine = (getattr(self.trial, "number", None), self.trial.params)
            same = mine == trainer.strategy.broadcast(mine)
            if not trainer.strategy.reduce_boolean_decision(same, all=True):
                raise ConfigurationError(_EACH_RANK_ITS_OWN.format(*mine))
        if trainer.is_global_zero:
            self._step = self._first_step()
        if self._saves_to is not None:
            self._folder = trainer.strategy.broadcast(_new_folder(self._saves_to, getattr(self.trial, "number", 0)))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have an early end, or a SIGTERM that came after the last batch, come out of ``Trainer.fit``."""
        super().on_fit_end(trainer, pl_module)
        in_worker = os.getpid() != self._process
        if self._saves_to is None:
            self._best_model_path = _find_best_model_path(trainer, self._objective.monitor[0])
        if in_worker and trainer.is_global_zero:
            found = {"history": self.history, "step": self._step, "best_model_path": self._best_model_path}
            self.trial.set_user_attr(_FROM_WORKERS, {"callback": self._key, **found})
        sigterm = None if in_worker else get_late_sigterm(trainer)  # the parent of a worker hears it too
        self._ending = sigterm or self._error()
        if self._ending is not None:
            before_raise = partial(self._record, self.stop) if trainer.is_global_zero else None
            raise_at_end_of_fit(trainer, self, self._ending, before_raise)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let an early end through untouched, and tell the study of a trial that Ctrl-C or SIGTERM ends."""
        super().on_exception(trainer, pl_module, exception)
        try:
            if isinstance(exception, ProcessRaisedException):
                self._reraise_from_workers(trainer, exception)
            if trainer.is_global_zero:
                self._tell_of(exception)
            if self._is_interrupted:
                end_training_processes(trainer)
            if exception is self._ending:
                reraise_at_end_of_fit(trainer, exception)
        finally:
            self._sigterm.release()

    def _error_after_fit(self) -> Exception | None:
        self._sigterm.release()
        self._recover_from_workers()
        return self._error()

    def _error(self) -> Exception | None:
        if self.stop is None:
            return self.fit_error if isinstance(self.fit_error, MetricError) else None
        fails = self.stop.reason is StopReason.NON_FINITE and self._objective.non_finite == "fail"
        return NonFiniteError(self.stop.detail) if fails else optuna.TrialPruned(self.stop.detail)

    def _record(self, stop: Stop | None) -> None:
        if stop is not None:
            self.trial.set_user_attr(REASON, stop.reason.value)
            self.trial.set_user_attr(DETAIL, redact(stop.detail))

    def _recover_from_workers(self) -> None:
        """Read what rank 0 of a spawned or forked fit has left: the callback of this process saw nothing of it."""
        if self._has_fitted_here or not isinstance(self.trial, optuna.Trial):
            return
        attrs = _read_stored(self.trial).user_attrs
        found = attrs.get(_FROM_WORKERS, {})
        if found.get("callback") == self._key:
            self.history = [tuple(values) for values in found["history"]]
            self._step, self._best_model_path = found["step"], found["best_model_path"]
            self.stop = Stop(StopReason(attrs[REASON]), attrs[DETAIL]) if REASON in attrs else None

    def _first_step(self) -> int:
        """Return the step of the fit's first validation: after all that the trial has had."""
        reported = _read_stored(self.trial).intermediate_values if isinstance(self.trial, optuna.Trial) else {}
        after = max(self._step, max(reported, default=-1) + 1)
        if self._step_offset is None:
            return after
        if self._step_offset < after and not self._step:
            raise ConfigurationError(
                f"step_offset={self._step_offset}, but the trial already has values up to step {after - 1}. "
                f"Give {after} or more, or leave it out: steps go on by themselves."
            )
        return max(self._step_offset, after)

    def _save_best(self, trainer: Trainer, is_best: bool, last: LastNeeded) -> None:
        if is_best:
            keep = KeepCheckpoints(self._folder)
            keep(trainer, is_best, "never")
            self._best_model_path = str(keep.best)

    def _reraise_from_workers(self, trainer: Trainer, exception: ProcessRaisedException) -> None:
        if isinstance(getattr(self.trial, "storage", None), optuna.storages.InMemoryStorage):
            raise ConfigurationError(_IN_MEMORY) from exception
        self._recover_from_workers()
        error = self._error()
        if error is not None:
            reraise_at_end_of_fit(trainer, error)

    @property
    def _is_interrupted(self) -> bool:
        return isinstance(self.fit_error, (KeyboardInterrupt, SystemExit))

    def _tell_of(self, exception: BaseException) -> None:
        """Record how the trial ends, where Optuna does not see it, or where it is not as was recorded."""
        if isinstance(self.fit_error, SIGTERMException):
            self.fit_error.code = 128 + signal.SIGTERM  # Lightning gives it none: the process would seem to end well
        if self.fit_error is not None and self._is_interrupted:
            outcome = failure(self.fit_error)
            self._tell_failed(Stop(outcome.reason, outcome.detail))
        elif self.stop is not None and exception is not self._ending:
            self._record(Stop(StopReason.FAILED, TrialOutcome.failed(exception).detail))

    def _tell_failed(self, stop: Stop) -> None:
        """Fail the trial, unless another of its processes has: Optuna does not see the ``SystemExit`` that follows."""
        if not isinstance(self.trial, optuna.Trial):
            self._record(stop)
        elif not _read_stored(self.trial).state.is_finished():
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                self._record(stop)
            self.trial.study.tell(self.trial, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)


def _original_or_new(kind: type[TuneCallback], key: str) -> TuneCallback:
    """Return the callback that was pickled; one that is to be filled where it is of another process, or gone."""
    return _CALLBACKS.get(key) or kind.__new__(kind)


def _find_best_model_path(trainer: Trainer, monitor: str) -> str:
    savers = [saver for saver in trainer.checkpoint_callbacks if getattr(saver, "best_model_path", "")]
    savers.sort(key=lambda saver: getattr(saver, "monitor", None) != monitor)  # a stable sort
    return str(savers[0].best_model_path) if savers else ""  # type: ignore[attr-defined]


def _new_folder(parent: Path, number: int) -> Path:
    """Return a folder for a trial that is not there yet, named by versions as Lightning does."""
    names = itertools.chain([f"trial_{number:04d}"], (f"trial_{number:04d}-v{i}" for i in itertools.count(1)))
    return next(parent / name for name in names if not (parent / name).exists())


def _read_stored(trial: optuna.Trial) -> optuna.trial.FrozenTrial:
    """Return the trial as the storage has it: what other processes wrote, the trial itself does not see."""
    return trial.study.get_trials(deepcopy=False)[trial.number]


_IN_MEMORY = (
    "The training processes of ddp_spawn and ddp_fork cannot report to a study in memory. "
    "Give the study a storage, for example "
    "optuna.create_study(storage=JournalStorage(JournalFileBackend('study.log')))."
)
_TWO_IN_A_FIT = (
    "The Trainer has several TuneCallbacks, and a fit has one. For several objectives, give one of them all metrics: "
    "TuneCallback(trial, monitor=['val_loss', 'val_acc'])."
)
_EACH_RANK_ITS_OWN = (
    "Each process of strategy 'ddp' runs the whole script, and here each has asked for a trial of its own: "
    "this one has trial {} with {}, another has a different one. Use strategy='ddp_spawn' or 'ddp_fork', or let "
    "OptunaDrivenOptimizer run the study: there, one process asks."
)
