"""A logger that fails, and its trial goes on: what its public methods and properties raise is caught."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import traceback
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lightningtune.contract import Notice
from lightningtune.errors import redact
from lightningtune.training.tracker_stand_in import Nothing

log = logging.getLogger(__name__)

_IN_A_ROW = 3
"""Failures of one method after which a logger is left alone: a call that waits for a network may take minutes."""
_WATCH = "_lightningtune_watch"
_FOLDERS = ("save_dir", "root_dir", "log_dir")
"""Properties that read as the trial's folder where they fail: Lightning's callbacks write there."""
_TEXTS = {"name": "", "version": "", "group_separator": "/"}
"""What others read as: with an empty name and version, `ModelCheckpoint` has ``checkpoints`` right in that folder."""


class Watch:
    """Stands between a trial and one of its loggers.

    Args:
        name: the logger's class.
        folder: the trial's.
        tell: is told of the first failure.
        begin: called once, when the logger is first used by the rank that logs.
    """

    def __init__(self, name: str, folder: Path, tell: Callable[[Notice], None], begin: Callable[[], None]) -> None:
        self._name = name
        self._folder = os.fspath(folder)
        self._tell = tell
        self._begin = begin
        self._failures: Counter[str] = Counter()
        self._has_told = False
        self.has_begun = False
        self.is_given_up = False
        self.is_closing = False

    def call(self, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a method of the logger; where it fails, say so, and return None.

        Args:
            name: what is called.
            method: the same.
            *args: its own.
            **kwargs: its own.
        """
        if self.is_given_up:
            return None
        try:
            result = method(*args, **kwargs)
        except Exception as error:  # a tracker, its server and the network may fail in any way
            self._failures[name] += 1
            self.is_given_up |= name == "experiment" or self._failures[name] >= _IN_A_ROW
            self._say(name, error)
            return None
        self._failures[name] = 0
        if not self.has_begun and is_logging_rank():
            self.has_begun = True
            self._begin()
        return result

    def read(self, name: str, get: Callable[[], Any]) -> Any:
        """Read a property; where it fails, say so, and return what Lightning can do without it.

        Args:
            name: what is read.
            get: reads it.
        """
        instead = self._folder if name in _FOLDERS else _TEXTS[name]
        if self._failures[name] >= _IN_A_ROW:
            return instead
        try:
            value = get()
        except Exception as error:  # as a call may
            self._failures[name] += 1
            self._say(name, error)
            return instead
        self._failures[name] = 0
        return value

    @property
    def stand_in(self) -> Any:
        """What ``experiment`` is while the logger is left alone."""
        return Nothing(self._folder)

    def _say(self, name: str, error: Exception) -> None:
        told = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        log.info("%s.%s failed.\n%s", self._name, name, redact(told))
        if not self._has_told:
            self._has_told = True
            left = "goes on without it" if self.is_given_up else "goes on"
            self._tell(Notice(f"{self._name} failed in {name}", f"{described(error)}. The trial {left}."))


def described(error: Exception) -> str:
    r"""Return an error in one line, which is no longer than a page is wide and shows no password.

    Example:
        >>> described(OSError("no route\nto the host"))
        'OSError: no route to the host'
    """
    message = redact(" ".join(str(error).split())).rstrip(".")
    message = message if len(message) <= 200 else message[:200] + "…"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def is_logging_rank() -> bool:
    """Whether this process is the one of a fit that logs."""
    return not getattr(rank_zero_only, "rank", 0)


def guard(logger: Logger, watch: Watch) -> None:
    """Have a watch stand before a logger, which is still of its class, and ``logger.experiment`` what it was.

    ``finalize`` waits until `watch.is_closing`: Lightning calls it before anybody knows how the trial has ended.
    """
    setattr(logger, _WATCH, watch)
    logger.__class__ = _guarded(type(logger))


def watch_of(logger: Logger) -> Watch:
    """Return the watch of a guarded logger."""
    watch: Watch = getattr(logger, _WATCH)
    return watch


@functools.lru_cache(maxsize=32)
def _guarded(kind: type[Logger]) -> type[Logger]:
    """Return a subclass that differs in nothing but that its public methods and properties do not raise.

    It is called a local class, as it is one: jsonargparse, that finds classes by short names, passes those by.
    """
    local = f"{_guarded.__name__}.<locals>.{kind.__name__}"
    members: dict[str, Any] = {"__module__": kind.__module__, "__qualname__": local, "__doc__": kind.__doc__}
    for name in dir(kind):
        member = inspect.getattr_static(kind, name)
        if name == "finalize":
            members[name] = _at_the_end(member)
        elif name == "experiment" and isinstance(member, _PROPERTIES):
            members[name] = _experiment(member)
        elif (name in _FOLDERS or name in _TEXTS) and isinstance(member, _PROPERTIES):
            members[name] = _read(name, member)
        elif not name.startswith("_") and inspect.isfunction(member):
            members[name] = _caught(member)
    guarded: type[Logger] = types.new_class(kind.__name__, (kind,), exec_body=lambda body: body.update(members))
    return guarded


def _caught(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Logger, *args: Any, **kwargs: Any) -> Any:
        return watch_of(self).call(method.__name__, method, self, *args, **kwargs)

    return call


def _at_the_end(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def finalize(self: Logger, *args: Any, **kwargs: Any) -> None:
        watch = watch_of(self)
        if watch.is_closing:
            watch.call("finalize", method, self, *args, **kwargs)

    return finalize


_PROPERTIES = (property, functools.cached_property)


def _read(name: str, member: Any) -> property:
    def read(self: Logger) -> Any:
        return watch_of(self).read(name, functools.partial(member.__get__, self))

    return property(read, getattr(member, "fset", None), doc=member.__doc__)


def _experiment(member: Any) -> property:
    def experiment(self: Logger) -> Any:
        watch = watch_of(self)
        found = watch.call("experiment", _once_more, member, self)
        return watch.stand_in if watch.is_given_up else found

    return property(experiment, getattr(member, "fset", None), doc=member.__doc__)


def _once_more(member: Any, logger: Logger) -> Any:
    """Return the experiment; two trials that begin at a time may both have found that it is not there yet."""
    get: Callable[[Logger], Any] = member.__get__
    try:
        return get(logger)
    except Exception as error:
        if getattr(error, "error_code", None) != "RESOURCE_ALREADY_EXISTS":  # MLflow's
            raise
        return get(logger)
