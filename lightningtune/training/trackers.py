"""The loggers of one trial: named after it, guarded, told its parameters, and closed with its true state."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import DummyLogger

from lightningtune.contract import Notice, StopReason, TrialOutcome, TrialSpec, Values
from lightningtune.errors import InvalidConfigError
from lightningtune.files import write_text
from lightningtune.training.logger_files import go_on_with_events, go_on_with_table
from lightningtune.training.tracker_guard import GuardedLogger, StandIn, describe, is_logging_rank
from lightningtune.training.tracker_names import FILE_LOGGERS, STATE, TrialName, fill_in_names

_RUNS = "trackers.json"
"""The file in a trial's folder that says which runs of trackers are the trial's."""


class Trackers:
    """Makes the loggers of a trial, and closes them; of each that fails a notice is kept, and the trial goes on.

    Attributes:
        failures: what went wrong.
    """

    def __init__(self, spec: TrialSpec) -> None:
        self.failures: list[Notice] = []
        self._spec = spec
        self._name = TrialName.of(spec)
        self._before = _read_runs(spec.checkpoint.with_name(_RUNS)) if spec.checkpoint is not None else {}
        self._runs: dict[str, str] = {}
        self._made: Counter[str] = Counter()
        self._keys: dict[int, str] = {}
        """Under which name the run of a logger is remembered: the first of a class, the second."""
        self._loggers: list[GuardedLogger] = []
        """Those that have begun, which are on rank 0."""
        self._run_of_others = _current_wandb_run()

    @property
    def instantiators(self) -> list[Any]:
        """What jsonargparse is to make loggers with."""
        return [(self._construct, Logger, True)]

    def _construct(self, kind: type[Logger], *args: Any, **kwargs: Any) -> Logger:
        self._made[kind.__name__] += 1
        key = f"{kind.__name__} {self._made[kind.__name__]}"
        try:
            named = {**kwargs, **fill_in_names(kind, kwargs, self._name, self._before.get(key))}
            # MLflow makes its database's tables where they are not there yet, and two at a time spoil each other's
            with _in_turn(self._name.root) if issubclass(kind, MLFlowLogger) else contextlib.nullcontext():
                logger = kind(*args, **named)
        except Exception as error:  # a package is missing, a server does not answer
            notice = Notice(f"{kind.__name__} cannot be made", f"{describe(error)}. The trial goes on without it.")
            self.failures.append(notice)
            return StandIn(self._name.directory)
        self._keys[id(logger)] = key
        return logger

    def adopt(self, setting: Any) -> Any:
        """Guard and begin the loggers of a Trainer's ``logger``; return what the Trainer is to be given for it."""
        if setting is True:
            setting = _default_logger(self._name.directory)
        listed = [setting] if isinstance(setting, Logger) else setting
        if not listed or not isinstance(listed, Iterable):
            return setting
        return [self._guard(each) if isinstance(each, Logger) else each for each in listed]

    def _guard(self, logger: Logger) -> Logger:
        if isinstance(logger, DummyLogger):
            return logger
        guarded = GuardedLogger(logger, self.failures.append)
        if is_logging_rank():
            if not guarded.begin():
                return StandIn(self._name.directory)
            self._loggers.append(guarded)
            self._tell_params(guarded)
        return logger

    def _tell_params(self, guarded: GuardedLogger) -> None:
        """Tell a tracker what is tuned, and remember which run it has made of the trial."""
        logger = guarded.logger
        if isinstance(logger, FILE_LOGGERS):  # the trial's config stands beside its files
            return
        if self._spec.params:
            logger.log_hyperparams({"tuned": dict(self._spec.params)})
        key = self._keys.get(id(logger))
        if key and isinstance(logger, (MLFlowLogger, WandbLogger)) and logger.version:
            self._runs[key] = str(logger.version)
            if isinstance(logger, MLFlowLogger) and self._before.get(key) == logger.version:
                for tag in ("mlflow.runName", "lightningtune.trial"):  # it still has those of the trial before
                    guarded.call("set_tag", logger.experiment.set_tag, logger.version, tag, self._name.trial)
            guarded.call("save", write_text, self._spec.directory / _RUNS, json.dumps(self._runs))

    def go_on(self, global_step: int) -> None:
        """Have files of loggers go on with what was logged before ``global_step``; the rest is logged again."""
        assert self._spec.checkpoint is not None
        before = self._spec.checkpoint.parent
        for guarded in self._loggers:
            logger = guarded.logger
            if not isinstance(logger, FILE_LOGGERS) or Path(logger.log_dir) != self._spec.directory:
                continue
            if isinstance(logger, CSVLogger):
                guarded.call("go_on", go_on_with_table, logger, before, global_step)
            elif before != self._spec.directory:
                guarded.call("go_on", go_on_with_events, logger, before, global_step)

    def close(self, outcome: TrialOutcome, values: Values | None) -> None:
        """Close all loggers with the trial's true state, and its score or else the best of its values."""
        monitored = zip(self._spec.objective.monitor, values or (), strict=False)
        scores = {f"score/{metric}": value for metric, value in monitored}
        for guarded in self._loggers:
            guarded.call("finalize", self._close, guarded, outcome, scores)

    def _close(self, guarded: GuardedLogger, outcome: TrialOutcome, scores: Mapping[str, float]) -> None:
        logger = guarded.logger
        state, has_failed = outcome.reason.value, outcome.error is not None
        status = "failed" if has_failed else "success"
        if isinstance(logger, TensorBoardLogger) and scores:
            logger.log_hyperparams({**self._spec.params, STATE: state}, dict(scores))
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.set_tag(logger.run_id, STATE, state)
            logger.log_metrics(scores)
            status = "KILLED" if outcome.reason is StopReason.INTERRUPTED else status
        elif isinstance(logger, WandbLogger):
            logger.experiment.summary.update({STATE: state, **scores})
        guarded.finalize(status)
        if isinstance(logger, WandbLogger) and logger.experiment is not self._run_of_others:
            logger.experiment.finish(exit_code=int(has_failed))


def best_values(outcome: TrialOutcome, history: Sequence[Values], mode: str) -> Values | None:
    """Return a trial's score, or the best of its values where it has none: of several metrics, the latest.

    Example:
        >>> best_values(TrialOutcome(StopReason.PRUNED), [(0.4,), (0.2,), (0.3,)], "min")
        (0.2,)
    """
    if outcome.score is not None or not history:
        return outcome.score
    if len(history[0]) > 1:
        return history[-1]
    return (min if mode == "min" else max)(history)


def refuse_default_logger(error: AttributeError, trainer: Mapping[str, Any]) -> None:
    """Refuse the logger that trials have by default, where the user's code asks it for what another one has.

    Raises:
        InvalidConfigError: naming the setting.
    """
    is_missed = isinstance(error.obj, (CSVLogger, ExperimentWriter)) and not str(error.name).startswith("_")
    if is_missed and trainer.get("logger") is None:
        what = "a CSVLogger, which" if isinstance(error.obj, CSVLogger) else "a CSVLogger, whose experiment"
        raise InvalidConfigError(
            f"trainer.logger is not set, so each trial has {what} has no '{error.name}'. Without LightningTune, "
            "Lightning takes TensorBoard where it is installed: set trainer.logger to true for that, or to the logger "
            "that the code is written for."
        ) from error


@contextlib.contextmanager
def _in_turn(folder: Path) -> Iterator[None]:
    """Let the trials of a study on this machine do something one after the other, where the system has such a lock."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a network's file system may have no locks
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def _default_logger(directory: Path) -> Logger:
    """Return what Lightning makes of ``logger=True``, in the trial's own folder."""
    try:
        return TensorBoardLogger(directory, name="", version="", default_hp_metric=False)
    except ModuleNotFoundError:
        return CSVLogger(directory, name="", version="")


def _current_wandb_run() -> Any:
    """Return the run of W&B's that is open in this process, which `WandbLogger` takes over."""
    return getattr(sys.modules.get("wandb"), "run", None)


def leave_trackers() -> None:
    """Wait until what W&B's own process has been told is written, before this one ends without a word."""
    teardown = getattr(sys.modules.get("wandb"), "teardown", None)
    if teardown is not None:
        with contextlib.suppress(Exception):  # a tracker may fail in any way
            teardown()


def _read_runs(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {str(name): run for name, run in found.items() if isinstance(run, str)} if isinstance(found, dict) else {}
