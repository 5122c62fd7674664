"""An exception becomes the outcome of a trial."""

from __future__ import annotations

import dataclasses
import re
import signal
import traceback

import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.memory import is_oom_error

from lightningtune.contract import StopReason, TrialOutcome
from lightningtune.errors import TrialError

_WORKER_ENDED = re.compile(r"DataLoader worker \(pid.*\) (is killed by signal|exited unexpectedly)")


def failure(error: BaseException, pruned_by: tuple[type[BaseException], ...] = ()) -> TrialOutcome:
    """Return the outcome of a trial that raised; an exception of ``pruned_by`` ends it as pruned.

    Example:
        >>> failure(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")).reason.value
        'killed'
    """
    if isinstance(error, pruned_by):
        return TrialOutcome.pruned(error)
    if isinstance(error, KeyboardInterrupt):
        return TrialOutcome(StopReason.INTERRUPTED, "interrupted by Ctrl-C", error=error)
    if isinstance(error, SIGTERMException):  # it has no exit code: the process would end as if all were well
        return TrialOutcome(StopReason.INTERRUPTED, "interrupted by SIGTERM", error=SystemExit(128 + signal.SIGTERM))
    if isinstance(error, SystemExit):
        error = TrialError(f"the training called sys.exit({error.code!r})")
    if _is_of_dead_worker(error):
        outcome = TrialOutcome.failed(error, StopReason.KILLED)  # as the trial's own process might have been
        return dataclasses.replace(outcome, detail=f"a DataLoader's worker ended: {outcome.detail}")
    out_of_memory = is_oom_error(error) or isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return TrialOutcome.failed(error, StopReason.OUT_OF_MEMORY if out_of_memory else StopReason.FAILED)


def _is_of_dead_worker(error: BaseException) -> bool:
    """Whether a training failed because a worker process of a DataLoader was killed, or ended by itself.

    Torch raises an ordinary ``RuntimeError`` then. While it takes a tensor over from the worker, whose socket is gone a
    moment before the process is, torch passes on what the connection raises.
    """
    if isinstance(error, RuntimeError) and _WORKER_ENDED.match(str(error)):
        return True
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == "multiprocessing.resource_sharer" for frame, _ in frames)
