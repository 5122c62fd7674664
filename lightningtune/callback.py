"""`TuneCallback`: an ordinary ``Trainer.fit`` script becomes an Optuna objective."""

from __future__ import annotations

import math
import os
import pickle
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.multiprocessing.spawn import ProcessRaisedException

from lightningtune.contract import Mode, NonFinitePolicy, ScorePolicy, Stop, StopReason
from lightningtune.errors import ConfigurationError, MetricError, NonFiniteError
from lightningtune.study.objective import objective_of
from lightningtune.study.reporter import DETAIL, REASON, OptunaReporter
from lightningtune.training.callback import TrialCallback
from lightningtune.training.decisions import score_of
from lightningtune.training.ending import raise_at_end_of_fit, reraise_at_end_of_fit
from lightningtune.training.orphan import when_orphaned

_HISTORY = "lightningtune:history"


class TuneCallback(TrialCallback):
    """Reports every validation of a fit to an Optuna trial, prunes it, and knows its score.

    A trial that is pruned ends softly: Lightning leaves its loops by itself, every end hook runs, loggers finish, and
    then ``optuna.TrialPruned`` comes out of ``Trainer.fit``.

    Args:
        trial: the trial of a hand-written objective.
        monitor: the metric to tune; or several, in a study with several objectives.
        mode: "min" or "max", one for each metric where there are several; taken from the study's directions when
            not given.
        score: which of the fit's values `score` is: "best", "last", or a function of all of them.
        non_finite: what NaN or infinity in the metric or the training loss does: "prune" ends the trial as pruned,
            "fail" as failed, "ignore" goes on. The loss is looked at with each validation and, in a fit of one
            process, every 50 batches; Lightning validates once more as it ends the fit.

    Raises:
        MetricError: when the mode contradicts the study's direction.

    Example:
        ::

            def objective(trial):
                tune = TuneCallback(trial, monitor="val_acc")
                Trainer(max_epochs=10, callbacks=[tune]).fit(Net(lr=trial.suggest_float("lr", 1e-4, 1e-1)))
                return tune.score
    """

    def __init__(
        self,
        trial: optuna.trial.BaseTrial,
        monitor: str | Sequence[str] = "val_loss",
        mode: Mode | Sequence[Mode] | None = None,
        score: ScorePolicy = "best",
        non_finite: NonFinitePolicy = "prune",
    ) -> None:
        if not isinstance(trial, optuna.trial.BaseTrial):
            raise ConfigurationError(f"TuneCallback takes the trial of an objective, but got {trial!r}.")
        _refuse_pytorch_lightning(sys._getframe(1).f_globals)
        self.trial = trial
        self._process = os.getpid()
        study: optuna.Study | None = getattr(trial, "study", None)
        directions = [direction.name.lower() for direction in study.directions] if study else None
        objective = objective_of(monitor, mode, directions, score=score, non_finite=non_finite)
        super().__init__(objective, OptunaReporter(trial))
        self._forget_parent: Callable[[], Any] = bool

    @property
    def score(self) -> Any:
        """The score of the fit: a float, or a tuple where several metrics are monitored.

        Raises:
            optuna.TrialPruned: when the trial was pruned.
            NonFiniteError: when the metric or the loss was not finite and the policy is "fail"; or when the score
                itself is not finite.
            MetricError: when no value was reported.
        """
        self._recover_from_workers()
        error = self._error()
        if error is not None:
            raise error
        if not self.history:
            names = ", ".join(self.objective.monitor)
            raise MetricError(
                f"There is no score: no value of {names} was reported. Has a fit with a validation ended?"
            )
        values = score_of(self.history, self.objective)
        score = values[0] if len(values) == 1 else values
        if not all(map(math.isfinite, values)):
            raise NonFiniteError(f"the score is {score}")
        return score

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make sure that all ranks train the same trial, and that rank 0 has a storage of its own."""
        if os.getpid() != self._process:
            if isinstance(getattr(self.trial, "storage", None), optuna.storages.InMemoryStorage):
                raise ConfigurationError(_IN_MEMORY)
            self.trial = pickle.loads(pickle.dumps(self.trial))  # a connection does not survive a fork
            self.reporter = OptunaReporter(self.trial)
            if trainer.is_global_zero:
                self._forget_parent = when_orphaned(self._tell_orphaned)
        if trainer.world_size > 1:
            mine = (getattr(self.trial, "number", None), self.trial.params)
            same = mine == trainer.strategy.broadcast(mine)
            if not trainer.strategy.reduce_boolean_decision(same, all=True):
                raise ConfigurationError(_EACH_RANK_ITS_OWN.format(*mine))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have an early end come out of ``Trainer.fit`` as an exception."""
        super().on_fit_end(trainer, pl_module)
        if trainer.is_global_zero:
            self._record(in_worker=os.getpid() != self._process)
            self._forget_parent()
        error = self._error()
        if error is not None:
            raise_at_end_of_fit(trainer, self, error)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let an early end through untouched, and tell the study of a trial that Ctrl-C or SIGTERM ends."""
        super().on_exception(trainer, pl_module, exception)
        if isinstance(exception, ProcessRaisedException):
            self._reraise_from_workers(trainer, exception)
        early_end = isinstance(exception, (optuna.TrialPruned, NonFiniteError))
        if early_end and self.stop is not None:
            reraise_at_end_of_fit(trainer, exception)
        if self.interruption is not None and trainer.is_global_zero:
            self._tell_interrupted(self.interruption)

    def _error(self) -> Exception | None:
        if self.stop is None:
            return None
        fails = self.stop.reason is StopReason.NON_FINITE and self.objective.non_finite == "fail"
        return NonFiniteError(self.stop.detail) if fails else optuna.TrialPruned(self.stop.detail)

    def _record(self, in_worker: bool) -> None:
        if self.stop is not None:
            self.trial.set_user_attr(REASON, self.stop.reason.value)
            self.trial.set_user_attr(DETAIL, self.stop.detail)
        if in_worker:
            self.trial.set_user_attr(_HISTORY, self.history)

    def _recover_from_workers(self) -> None:
        """Read what rank 0 of a spawned or forked fit has left: the callback of this process saw nothing of it."""
        if self.history or self.stop is not None or not isinstance(self.trial, optuna.Trial):
            return
        attrs = _stored(self.trial).user_attrs
        if _HISTORY in attrs:
            self.history = [tuple(values) for values in attrs[_HISTORY]]
            self.stop = Stop(StopReason(attrs[REASON]), attrs[DETAIL]) if REASON in attrs else None

    def _reraise_from_workers(self, trainer: Trainer, exception: ProcessRaisedException) -> None:
        if isinstance(getattr(self.trial, "storage", None), optuna.storages.InMemoryStorage):
            raise ConfigurationError(_IN_MEMORY) from exception
        self._recover_from_workers()
        error = self._error()
        if error is not None:
            reraise_at_end_of_fit(trainer, error)

    def _tell_interrupted(self, interruption: BaseException) -> None:
        """Fail the trial: Optuna does not see the ``SystemExit`` that follows, and would leave it running."""
        reason, detail = StopReason.INTERRUPTED, "interrupted by Ctrl-C"
        if isinstance(interruption, SIGTERMException):
            detail = "interrupted by SIGTERM"
            interruption.code = 128 + signal.SIGTERM  # it has none, and would end the process as if all were well
        elif isinstance(interruption, SystemExit):
            reason, detail = StopReason.FAILED, f"the training called sys.exit({interruption.code!r})"
        self._tell_failed(reason, detail)

    def _tell_orphaned(self) -> None:
        """Fail the trial where the process of the study was killed, and cannot do so itself."""
        if isinstance(self.trial, optuna.Trial) and not _stored(self.trial).state.is_finished():
            self._tell_failed(StopReason.INTERRUPTED, "the process of the study was killed")

    def _tell_failed(self, reason: StopReason, detail: str) -> None:
        self.trial.set_user_attr(REASON, reason.value)
        self.trial.set_user_attr(DETAIL, detail)
        if isinstance(self.trial, optuna.Trial):
            self.trial.study.tell(self.trial, state=optuna.trial.TrialState.FAIL)


def _stored(trial: optuna.Trial) -> optuna.trial.FrozenTrial:
    """Return the trial as the storage has it: what other processes wrote, the trial itself does not see."""
    return trial.study.get_trials(deepcopy=False)[trial.number]


_IN_MEMORY = (
    "The training processes of ddp_spawn and ddp_fork cannot report to a study in memory. "
    "Give the study a storage, for example "
    "optuna.create_study(storage=JournalStorage(JournalFileBackend('study.log')))."
)

_EACH_RANK_ITS_OWN = (
    "Each process of strategy 'ddp' runs the whole script, and here each has asked for a trial of its own: "
    "this one has trial {} with {}, another has a different one. Use strategy='ddp_spawn' or 'ddp_fork', or let "
    "OptunaDrivenOptimizer run the study: there, one process asks."
)


def _refuse_pytorch_lightning(caller: dict[str, Any]) -> None:
    """Refuse a script that uses ``pytorch_lightning``: its classes are not those of ``lightning.pytorch``."""
    if "pytorch_lightning" not in sys.modules:
        return
    for name, value in caller.items():
        home = getattr(value, "__module__", None) or getattr(value, "__name__", "")
        if isinstance(home, str) and home.partition(".")[0] == "pytorch_lightning":
            raise ConfigurationError(
                f"'{name}' comes from pytorch_lightning, whose classes do not mix with those of lightning.pytorch, "
                "which LightningTune uses. Import lightning.pytorch instead; it has the same names."
            )
