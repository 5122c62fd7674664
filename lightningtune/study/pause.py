"""Pausing a study from outside: a word on it that whoever works on it looks at once a second."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable
from typing import Any

import optuna

from lightningtune.errors import redact
from lightningtune.study.periodic import every
from lightningtune.study.storage import call_at_once

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


def latest_request(study: optuna.Study) -> str | None:
    """Return what the latest request for a pause has left on a study."""
    request: str | None = study.user_attrs.get(PAUSE)
    return request


def watched_for_pause(
    study: optuna.Study, before: str | None, react: Callable[[], Any], look: float = LOOK
) -> contextlib.AbstractContextManager[None]:
    """Call ``react`` once, from a thread of its own, when someone has asked for a pause.

    Args:
        study: the study.
        before: the latest request that does not count.
        react: what to do.
        look: seconds between two looks.
    """

    def is_asked() -> bool:
        try:
            # to wait for the storage here would hold up the study's end
            asked = call_at_once(study, lambda: latest_request(study), before) != before
        except Exception as error:  # what is wrong with the storage, the trials will say
            log.debug("Nobody knows whether the study is to be paused: %s", redact(str(error)))
            return False
        if asked:
            react()
        return asked

    return every(look, is_asked, "lightningtune-pause")
