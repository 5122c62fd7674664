"""A training process whose parent was killed: it ends too, by signals of torch's, and no hook of Lightning's runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.util import Finalize
from typing import Any

_DYING = 1.0
"""Seconds that a parent may need to die: its threads end one by one, and torch sends a signal for the first."""


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
