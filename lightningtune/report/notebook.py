"""One output of a notebook's cell, which is updated: what has ended, and what runs."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from rich.text import Text

_EACH = 1.0
"""Seconds between two updates that nobody waits for."""
_KEPT = 50
"""Lines of finished trials that are shown."""


class NotebookOutput:
    """Shows lines that stay, and below them lines that change.

    Args:
        changing: asks for the lines that change.
    """

    def __init__(self, changing: Callable[[], Sequence[Text]]) -> None:
        from IPython.display import display, update_display

        self._display: Callable[..., Any] = display
        self._update_display: Callable[..., Any] = update_display
        self._changing = changing
        self._id = f"lightningtune-{secrets.token_hex(4)}"
        self._staying: deque[str] = deque(maxlen=_KEPT)
        self._dropped = 0
        self._updated = time.monotonic()
        self._show(is_new=True)

    def add(self, line: Text) -> None:
        """Add a line that stays."""
        self._dropped += len(self._staying) == _KEPT
        self._staying.append(line.plain.rstrip())

    def update(self, now: bool = False) -> None:
        """Show the lines as they are.

        Args:
            now: whether it cannot wait.
        """
        if now or time.monotonic() - self._updated >= _EACH:
            self._show()

    def close(self) -> None:
        """Leave what stays."""
        self._show(is_last=True)

    def _show(self, is_new: bool = False, is_last: bool = False) -> None:
        self._updated = time.monotonic()
        dropped = [f"… {self._dropped} before"] if self._dropped else []
        changing = [] if is_last else ["", *(line.plain.rstrip() for line in self._changing())]
        text = "\n".join([*dropped, *self._staying, *changing]) or " "
        show = self._display if is_new else self._update_display
        show({"text/plain": text}, raw=True, display_id=self._id)
