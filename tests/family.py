"""Which processes a process has started, or has had started by others: a parent may end before its children."""

import contextlib
import os
import select
from pathlib import Path


def children_of(number):
    """Return every process whose ancestor is ``number``."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])

    def descends(child):
        while child in parents and child != number:
            child = parents[child]
        return child == number

    return {child for child in parents if child != number and descends(child)}


def marked(mark):
    """Return every process that runs, and was started with the variable ``mark`` in its environment, orphans too."""
    found = set()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or is ending
            if f"{mark}=".encode() in environ.read_bytes():
                found.add(int(environ.parent.name))
    return found


def have_ended(numbers, seconds=30):
    """Wait for processes that were sent a signal, and return whether all have ended."""
    for number in numbers:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(number)
            try:
                if not select.select([descriptor], [], [], seconds)[0]:
                    return False
            finally:
                os.close(descriptor)
    return True
