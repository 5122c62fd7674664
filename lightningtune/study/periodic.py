"""Doing something again and again beside the work of a host."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def every(seconds: float, act: Callable[[], object], name: str) -> Iterator[None]:
    """Call a function again and again, in a thread of its own, from the first interval's end on.

    Args:
        seconds: between one call's end and the next's begin.
        act: raises nothing; it is not called again once it returns something true.
        name: the thread's.

    Example:
        >>> called = threading.Event()
        >>> with every(0.01, called.set, "example"):
        ...     called.wait(10)
        True
    """
    end = threading.Event()

    def work() -> None:
        while not end.wait(seconds) and not act():
            pass

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
