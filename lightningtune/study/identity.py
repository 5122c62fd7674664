"""Which process is which, and whether it has ended.

On the same machine a process is known by its number and the moment at which it started: a number that was given to
another process deceives nobody.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORKER = "lightningtune:worker"
"""Trial attribute that names the process that holds the trial."""
_PROC = Path("/proc")


@dataclass(frozen=True)
class Worker:
    """A process that holds trials.

    Attributes:
        host: the name of its machine, for people.
        machine: what tells that machine, since it was last started, and its process numbers from any others: on Linux
            the boot's id and the namespace of process numbers, elsewhere the machine's name.
        process: its number.
        started: when it started, in clock ticks since the machine did; 0 where that cannot be known.
    """

    host: str
    machine: str
    process: int
    started: int

    @classmethod
    def of(cls, process: int) -> Worker:
        """Describe a process of this machine."""
        found = _look_up(process)
        return cls(socket.gethostname(), _identify_machine(), process, found[1] if found is not None else 0)

    @classmethod
    def this(cls) -> Worker:
        """Describe this process."""
        return cls.of(os.getpid())

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


def is_dead(worker: Worker) -> bool | None:
    """Return whether a process has ended; None when that cannot be known from here.

    Where the start of a process cannot be read (macOS), a number that is in use again passes for the process that had
    it. On Windows nothing is known: there only the heartbeat tells.
    """
    if worker.machine != _identify_machine():
        return None
    found = _look_up(worker.process)
    if found is not None and worker.started:
        state, started = found
        return started != worker.started or state in "ZX"  # a zombie has ended; nobody has asked how yet
    exists = _exists(worker.process)
    if exists and worker.started:  # its start is hidden from this user
        return None
    return None if exists is None else not exists


def read_worker(stored: Any) -> Worker | None:
    """Read what is kept of a process on a trial or a study; None when this version does not know its form."""
    try:
        return Worker(**{field.name: stored[field.name] for field in dataclasses.fields(Worker)})
    except (KeyError, TypeError):
        return None


@functools.cache
def _read_boot_id() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _identify_machine() -> str:
    try:
        # containers have process numbers of their own, and so a namespace
        return f"{_read_boot_id()} {(_PROC / 'self/ns/pid').readlink()}" if _read_boot_id() else socket.gethostname()
    except OSError:
        return socket.gethostname()


def _look_up(process: int) -> tuple[str, int] | None:
    """Return a process's state and its start, in clock ticks since the machine's; None where they cannot be read."""
    if not _read_boot_id():  # not Linux: another system's /proc has another form
        return None
    try:
        fields = (_PROC / str(process) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields[0].decode(), int(fields[19])  # the 3rd and the 22nd field; the 2nd may hold spaces and brackets


def _exists(process: int) -> bool | None:
    if sys.platform == "win32":  # os.kill would send Ctrl-C
        return None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
