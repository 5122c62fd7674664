"""Telling by an error that a process was killed which torch had started for a training, to load its data."""

from __future__ import annotations

import re
import traceback

_SAID = re.compile(r"DataLoader worker \(pid.*\) (is killed by signal|exited unexpectedly)")


def is_of_dead_worker(error: BaseException) -> bool:
    """Whether a training has failed since a worker of a DataLoader was killed, or ended by itself.

    Torch says so by an ordinary ``RuntimeError``. Where a tensor is just being taken over from the worker, its socket
    is gone a moment before the process is; torch, which still sees that, passes on what the connection has raised.

    Args:
        error: what the training has raised.

    Example:
        >>> is_of_dead_worker(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "))
        True
    """
    if isinstance(error, RuntimeError) and _SAID.match(str(error)):
        return True
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == "multiprocessing.resource_sharer" for frame, _ in frames)
