"""One output of a notebook's cell, which is updated: what has ended, and what runs."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from rich.text import Text

from lightningtune.study.liveness import call_every

log = logging.getLogger(__name__)

_EACH = 1.0
"""Seconds between two updates that nobody waits for."""
_KEPT = 50
"""Lines of finished trials that are shown."""


class NotebookOutput:
    """Shows lines that stay, and below them lines that change, until it is closed.

    Args:
        changing: asks for the lines that change.
        each: seconds between two updates that nobody asks for.
    """

    def __init__(self, changing: Callable[[], Sequence[Text]], each: float = _EACH) -> None:
        from IPython.display import display, update_display

        self._display: Callable[..., Any] = display
        self._update_display: Callable[..., Any] = update_display
        self._changing = changing
        self._id = f"lightningtune-{secrets.token_hex(4)}"
        self._staying: deque[str] = deque(maxlen=_KEPT)
        self._dropped = 0
        self._shown = ""
        self._turn = threading.Lock()
        self._show(is_new=True)
        self._updates = contextlib.ExitStack()
        self._updates.enter_context(call_every(each, self._update_again, "lightningtune-notebook"))

    def add(self, line: Text) -> None:
        """Add a line that stays."""
        with self._turn:
            self._dropped += len(self._staying) == _KEPT
            self._staying.append(line.plain.rstrip())

    def update(self) -> None:
        """Show the lines as they are."""
        self._show()

    def close(self) -> None:
        """Leave what stays."""
        self._updates.close()
        self._show(is_last=True)

    def _update_again(self) -> None:
        try:
            self._show()
        except Exception as error:  # the kernel may be about to end
            log.debug("The notebook's output could not be updated: %s", error)

    def _show(self, is_new: bool = False, is_last: bool = False) -> None:
        with self._turn:
            dropped = [f"… {self._dropped} before"] if self._dropped else []
            changing = [] if is_last else ["", *(line.plain.rstrip() for line in self._changing())]
            text = "\n".join([*dropped, *self._staying, *changing]) or " "
            if text != self._shown:
                self._shown = text
                show = self._display if is_new else self._update_display
                show({"text/plain": text}, raw=True, display_id=self._id)
