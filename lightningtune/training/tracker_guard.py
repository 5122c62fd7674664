"""What keeps a tracker that fails from failing its trial: guarded calls, and a logger that stands in."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import rank_zero_only

from lightningtune.contract import Notice
from lightningtune.errors import redact
from lightningtune.training.tracker_names import is_local

log = logging.getLogger(__name__)

_IN_A_ROW = 3
"""Failures of one method after which a logger is left alone: a call that waits for a network may take minutes."""


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


def is_logging_rank() -> bool:
    """Whether this process is the one of a fit that logs."""
    return not getattr(rank_zero_only, "rank", 0)


class Nothing:
    """Stands in for an experiment, and for all that is read from one: any use of it does nothing.

    It is false and empty, NaN as a number, and a folder as text or as a path: a file may be written there.

    Example:
        >>> run = Nothing("runs/mine/trials/0007")
        >>> run.config.update({"lr": 0.1})["anything"].url is run, bool(run), [*run]
        (True, False, [])
        >>> run.summary["steps"] += 1
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

    def _is_not(self, *args: Any) -> bool:
        return False

    __setattr__ = __delattr__ = __setitem__ = __delitem__ = __exit__ = _ignore
    __getitem__ = __enter__ = __neg__ = __abs__ = __round__ = __call__
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __call__
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __call__
    __bool__ = __contains__ = __lt__ = __le__ = __gt__ = __ge__ = _is_not

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __next__(self) -> Any:
        raise StopIteration

    def __len__(self) -> int:
        return 0

    __int__ = __index__ = __len__

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
