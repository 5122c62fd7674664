"""The training processes of ddp_spawn and ddp_fork, where a signal ends them, or their parent; no hook runs there."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

from lightning.pytorch import Trainer

_DYING = 1.0
"""Seconds that a parent may need to die: its threads end one by one, and torch sends a signal for the first."""
_ENDING = 5.0
"""Seconds that training processes have to end in, where their parent is interrupted."""


def when_orphaned(tell: Callable[[], None]) -> Callable[[], Any]:
    """Have ``tell`` called at the end of this process, if its parent has died by then.

    Returns:
        a function that takes this back, to be called when the work is done.
    """
    number, parent = os.getppid(), parent_process()

    def look() -> None:
        if parent is not None:
            parent.join(_DYING)
        # a forked sibling may keep a dead parent's sign of life open; a spawned process may see it before the number
        if os.getppid() != number or not (parent and parent.is_alive()):
            tell()

    signal.signal(signal.SIGINT, _interrupt_once)
    return Finalize(None, look, exitpriority=0).cancel


def _interrupt_once(number: int, frame: Any) -> None:
    """Interrupt this process, but not its last words: a dying parent may send the signal several times."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def end_training_processes(trainer: Trainer) -> None:
    """End what an interrupted parent has started and was waiting for: it could not end itself before."""
    launcher = trainer.strategy.launcher
    children = [child for child in getattr(launcher, "procs", ()) if isinstance(child, BaseProcess)]
    if launcher is None or not children:
        return
    launcher.kill(signal.SIGINT)  # as torch does for a parent that is killed
    end = time.monotonic() + _ENDING
    for child in children:
        child.join(max(0.0, end - time.monotonic()))
    launcher.kill(signal.SIGKILL)
