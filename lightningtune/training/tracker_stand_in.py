"""What stands in for a tracker that is away: it takes whatever is done with it, and does nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.loggers.logger import DummyLogger

from lightningtune.training.tracker_names import is_local


class Nothing:
    """Stands in for an experiment, and for all that is had from one.

    It is false and empty, NaN as a number, and a folder as text or as a path: a file may be written there.

    Args:
        folder: that folder.

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
    __getitem__ = __enter__ = __call__
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __call__
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __or__ = __ror__ = __and__ = __call__
    __neg__ = __abs__ = __round__ = __call__
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
        folder: str = vars(self)["_folder"]
        return folder

    __str__ = __fspath__

    def __format__(self, spec: str) -> str:
        return str(self)


class StandIn(DummyLogger):
    """Stands in for a logger that cannot be made.

    Args:
        folder: the trial's, where Lightning's callbacks may write.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = os.fspath(folder)

    @property
    def experiment(self) -> Any:
        """Return what takes any call."""
        return Nothing(self._folder)

    @property
    def save_dir(self) -> str:
        """Return the trial's folder."""
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
