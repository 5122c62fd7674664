"""``prepare_data`` is called once for a study on this host, before the first trial that needs it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from lightningtune.training.build import Blueprint
from lightningtune.training.shared_data import which_data


class Preparation:
    """Has the data of a study's trials prepared, once for each data that they ask for; from any thread.

    Args:
        blueprint: knows whether there is anything to prepare.
    """

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint = blueprint
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._done: dict[str, bool] = {}

    def of(self, config: Mapping[str, Any], prepare: Callable[[], bool]) -> bool:
        """Prepare the data of a config, unless that was done.

        Args:
            config: a trial's.
            prepare: prepares it, and returns whether that has done it for all trials of the same data.

        Returns:
            Whether the trial may leave it out.
        """
        if not self._blueprint.has_preparation(config):
            return False
        which = which_data(config.get("data"))
        with self._lock:
            lock = self._locks.setdefault(which, threading.Lock())
        with lock:
            if which not in self._done:
                self._done[which] = prepare()
        return self._done[which]
