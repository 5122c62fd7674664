"""The loggers of one trial: named after it, guarded, told its parameters, and closed with its true state."""

from __future__ import annotations

import contextlib
import csv
import functools
import inspect
import io
import json
import logging
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import rank_zero_only

from lightningtune.contract import Notice, StopReason, TrialOutcome, TrialSpec, Values
from lightningtune.errors import InvalidConfigError, redact
from lightningtune.files import write_text
from lightningtune.training.tracker_names import FILE_LOGGERS, STATE, TrialName, fill_in_names, is_local

log = logging.getLogger(__name__)

_RUNS = "trackers.json"
"""The file in a trial's folder that says which runs of trackers are the trial's."""
_IN_A_ROW = 3
"""Failures of one method after which a logger is left alone: a call that waits for a network may take minutes."""


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
        if getattr(rank_zero_only, "rank", 0) == 0:
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


# A tracker that fails fails no trial


class GuardedLogger:
    """Catches what the public methods of a logger raise.

    Each method is replaced, on the object, by a guarded call of it: the logger stays of its class, which Lightning and
    users ask for. Properties cannot be replaced on an object; `begin` reads them before the fit.
    """

    def __init__(self, logger: Logger, tell: Callable[[Notice], None]) -> None:
        self.logger = logger
        self.finalize = logger.finalize
        self._tell = tell
        self._failures: Counter[str] = Counter()
        self._has_told = self._is_given_up = False
        for name in dir(type(logger)):
            if not name.startswith("_") and inspect.isfunction(inspect.getattr_static(type(logger), name)):
                setattr(logger, name, functools.partial(self.call, name, getattr(logger, name)))
        setattr(logger, "finalize", _ignore_status)  # noqa: B010 - mypy refuses to assign to a method

    def begin(self) -> bool:
        """Read the properties that Lightning and users ask for; return whether the logger can be used."""
        # a CSVLogger begins by removing the table that a trial may go on with
        names = ["save_dir", "log_dir", "root_dir", "name", "version"]
        for name in names if isinstance(self.logger, CSVLogger) else ["experiment", *names]:
            try:
                _read(self.logger, name)
            except Exception as error:  # a tracker, its server and the network may fail in any way
                self._is_given_up = True
                self._say(name, error)
                return False
        return True

    def call(self, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a method of the logger; where it fails, say so once, and return None."""
        if self._is_given_up:
            return None
        try:
            result = method(*args, **kwargs)
        except Exception as error:  # a tracker, its server and the network may fail in any way
            self._failures[name] += 1
            self._is_given_up = self._failures[name] >= _IN_A_ROW
            self._say(name, error)
            return None
        self._failures[name] = 0
        return result

    def _say(self, name: str, error: Exception) -> None:
        kind = type(self.logger).__name__
        told = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        log.info("%s.%s failed.\n%s", kind, name, redact(told))
        if not self._has_told:
            self._has_told = True
            left = "goes on without it" if self._is_given_up else "goes on"
            self._tell(Notice(f"{kind} failed in {name}", f"{describe(error)}. The trial {left}."))


def _ignore_status(status: str = "") -> None:
    """Take the place of ``finalize``: Lightning calls it before anybody knows how the trial has ended."""


def _read(logger: Logger, name: str) -> None:
    try:
        getattr(logger, name, None)
    except Exception as error:
        # two trials that begin at a time may both have found that MLflow's experiment is not there yet
        if getattr(error, "error_code", None) != "RESOURCE_ALREADY_EXISTS":
            raise
        getattr(logger, name)


def describe(error: Exception) -> str:
    r"""Return an error in one line of limited length, without passwords.

    Example:
        >>> describe(OSError("no route\nto the host"))
        'OSError: no route to the host'
    """
    message = redact(" ".join(str(error).split())).rstrip(".")
    message = message if len(message) <= 200 else message[:200] + "…"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


class Nothing:
    """Stands in for an experiment, and for all that is read from one: any use of it does nothing.

    It is false and empty, NaN as a number, and a folder as text or as a path: a file may be written there.

    Example:
        >>> run = Nothing("runs/mine/trials/0007")
        >>> run.config.update({"lr": 0.1})["anything"].url is run, bool(run), [*run]
        (True, False, [])
        >>> os.path.join(run.dir, "net.pt")
        'runs/mine/trials/0007/net.pt'
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        vars(self)["_folder"] = os.fspath(folder)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # by which Python asks what it can do, such as be copied
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do nothing."""
        return self

    def _ignore(self, *args: Any) -> None: ...

    __setattr__ = __delattr__ = __setitem__ = __delitem__ = __exit__ = _ignore
    __getitem__ = __enter__ = __call__
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __call__

    def _is_not(self, *args: Any) -> bool:
        return False

    __bool__ = __contains__ = __lt__ = __le__ = __gt__ = __ge__ = _is_not

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __float__(self) -> float:
        return float("nan")

    def __fspath__(self) -> str:
        return str(vars(self)["_folder"])

    __str__ = __fspath__

    def __format__(self, spec: str) -> str:
        return str(self)


class StandIn(DummyLogger):
    """Stands in for a logger that cannot be used; Lightning's callbacks may write to its folder, the trial's."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = os.fspath(folder)

    @property
    def experiment(self) -> Any:
        """What takes any call."""
        return Nothing(self._folder)

    @property
    def save_dir(self) -> str:
        """The trial's folder."""
        return self._folder

    root_dir = log_dir = save_dir

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return Nothing(self._folder)


# Files of Lightning's loggers, which go on with a trial that goes on


def flush_tables(trainer: Trainer) -> None:
    """Write what has been logged, so that no checkpoint is newer than the table beside it."""
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            logger.save()


def go_on_with_table(logger: CSVLogger, before: Path, global_step: int) -> None:
    """Write again the rows that a trial had logged before it was cut short; Lightning would remove them."""
    table = before / "metrics.csv"
    if not table.is_file():
        return
    with table.open(newline="") as file:
        reader = csv.DictReader(file)
        names = list(reader.fieldnames or ())
        whole = [row for row in reader if [*row] == names and (row.get("step") or "").isdecimal()]
    writer = logger.experiment  # Lightning removes the file here
    writer.metrics_keys = names  # public, but described nowhere: without it the next row would bring another header
    text = io.StringIO(newline="")
    out = csv.DictWriter(text, names)
    out.writeheader()
    out.writerows(row for row in whole if int(row["step"]) < global_step)
    write_text(Path(writer.metrics_file_path), text.getvalue())


def go_on_with_events(logger: TensorBoardLogger, before: Path, global_step: int) -> None:
    """Write again the events that a trial had logged before it was cut short."""
    files = sorted(before.glob("events.out.tfevents.*"))
    if not files:
        return
    # deferred import: it takes time, and the package may be missing
    from tensorboard.backend.event_processing import event_file_loader  # type: ignore[import-untyped]

    writer = logger.experiment.file_writer
    for file in files:
        for event in event_file_loader.LegacyEventFileLoader(str(file)).Load():
            is_metric = not any(value.tag.startswith("_hparams_/") for value in event.summary.value)
            if event.HasField("summary") and is_metric and event.step < global_step:
                writer.add_event(event, walltime=event.wall_time)


def with_local_loggers(config: Mapping[str, Any], logger: Any, directory: Path) -> dict[str, Any]:
    """Return a config in which loggers of files write to one folder, and trackers are replaced by a `StandIn`.

    Args:
        config: of a dry run, or of a preparation of data.
        logger: the trainer's ``logger``, which may be a default that the config does not hold.
        directory: that folder.
    """
    if logger is None or isinstance(logger, bool):  # then it is made in the trial's own folder
        return dict(config)
    blocks = [_local(block, str(directory)) for block in (logger if isinstance(logger, list) else [logger])]
    trainer = {**(config.get("trainer") or {}), "logger": blocks if isinstance(logger, list) else blocks[0]}
    return {**config, "trainer": trainer}


def _local(block: Any, folder: str) -> dict[str, Any]:
    if not is_local(block):
        path = f"{StandIn.__module__}.{StandIn.__name__}"
        return {"class_path": path, "init_args": {"folder": folder}}
    given: Any = block.as_dict() if isinstance(block, Namespace) else block
    full: Mapping[str, Any] = {"class_path": given} if isinstance(given, str) else given
    return {**full, "init_args": {**(full.get("init_args") or {}), "save_dir": folder}}
