"""Trials in cold interpreters: where forking is not safe, each process imports everything again."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from multiprocessing import Pipe
from typing import Any

from lightningtune.errors import TrialError
from lightningtune.workers.handles import Child, ColdChild
from lightningtune.workers.surroundings import Surroundings

OVER = "The study has ended: no further trial is started."
_START = "from lightningtune.workers.child import start_cold; start_cold()"


class Cold:
    """Starts each process as an interpreter of its own, on any platform.

    Args:
        payload: what builds the trials, pickled.
    """

    shares_memory = False

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._is_over = False

    def start(self) -> None:
        """There is nothing to warm up."""

    def child(self) -> Child:
        """Start a process.

        Raises:
            TrialError: when there is to be no further process.
        """
        if self._is_over:
            raise TrialError(OVER)
        here = Surroundings.here()
        ours, theirs = Pipe()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", _START, str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                env=here.environment(),
                **_inheriting(theirs.fileno()),
            )
        return ColdChild(ours, process, pickle.dumps((here, self._payload)))

    def abort(self) -> None:
        """Start no further process; those that were started go on."""
        self._is_over = True

    def close(self) -> None:
        """Start no further process; nothing was warmed up."""
        self.abort()


def _inheriting(handle: int) -> dict[str, Any]:
    """Return the options with which a process inherits a connection."""
    if sys.platform == "win32":
        os.set_handle_inheritable(handle, True)
        return {"startupinfo": subprocess.STARTUPINFO(lpAttributeList={"handle_list": [handle]})}
    return {"pass_fds": [handle]}
