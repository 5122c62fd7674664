"""Which processes a process has started."""

import contextlib
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
