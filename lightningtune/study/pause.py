"""Pausing a study from outside: a word on it that whoever works on it looks at once a second."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any

import optuna

log = logging.getLogger(__name__)

PAUSE = "lightningtune:pause"
"""The study's attribute that is another one after each request."""
LOOK = 1.0
"""Seconds between two looks at it."""


def pause(study: optuna.Study) -> None:
    """Have every process that works on a study pause it: running trials end at their next validation, and are saved.

    Whoever runs the study again, here or elsewhere, goes on where it was.

    Args:
        study: the study, from whatever process.

    Example:
        >>> study = optuna.create_study()
        >>> pause(study)
    """
    study.set_user_attr(PAUSE, secrets.token_hex(8))


@contextlib.contextmanager
def watched_for_pause(study: optuna.Study, react: Callable[[], Any], look: float = LOOK) -> Iterator[None]:
    """Call ``react`` once, from a thread of its own, when someone asks for a pause from now on.

    Args:
        study: the study.
        react: what to do.
        look: seconds between two looks.
    """
    before = study.user_attrs.get(PAUSE)
    end = threading.Event()

    def watch() -> None:
        while not end.wait(look):
            try:
                asked = study.user_attrs.get(PAUSE) != before
            except Exception as error:  # the storage may be away; the next look may succeed
                log.debug("Nobody knows whether the study is to be paused: %s", error)
                continue
            if asked:
                react()
                return

    thread = threading.Thread(target=watch, name="lightningtune-pause", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
