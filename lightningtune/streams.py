"""The standard streams of a process that was started without them (``>&-``)."""

from __future__ import annotations

import os
import sys


def open_missing_streams() -> None:
    """Open what this process lacks of stdin, stdout and stderr, so that it leads nowhere.

    Otherwise the next file that is opened, such as a journal, takes the descriptor, and what is printed goes into it.
    """
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        is_missing = getattr(sys, name) is None
        try:
            os.fstat(descriptor)
            opened = os.open(os.devnull, os.O_RDWR) if is_missing else descriptor
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # this takes the lowest free number, which is the missing one
            os.set_inheritable(opened, True)
        if is_missing:
            setattr(sys, name, os.fdopen(opened, mode, closefd=False))
