"""Queue trials again that were cut short, by earlier runs or by hosts that die, and tell the user."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from lightningtune.contract import StopReason
from lightningtune.errors import InvalidConfigError, redact
from lightningtune.study import succession
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.liveness import (
    HEARTBEAT_SECONDS,
    ProcessMonitor,
    call_every,
    get_pause_request,
    watch_for_pause,
)
from lightningtune.study.reporter import REASON, read_config_sum
from lightningtune.study.storage import call_at_once
from lightningtune.study.succession import CONTINUES, get_lineage
from lightningtune.study.tally import count_finished

log = logging.getLogger(__name__)


class Recovery:
    """Queues trials again whose process died or that the user interrupted."""

    def __init__(
        self, study: optuna.Study, directory: StudyDirectory, n_trials: int, tell: Callable[[str], None]
    ) -> None:
        self._study, self._directory, self._n_trials, self._tell = study, directory, n_trials, tell
        self._watch = ProcessMonitor(study)
        self._turn = threading.Lock()
        # a pause that is requested from now on counts, however long the start takes
        self._request_before = get_pause_request(study)
        self._told: set[int] = set()
        self._given_up: set[int] = set()

    def begin(self) -> None:
        """Queue again what earlier runs have left.

        Where another host works on the study, whose sampler may have the same seed, this one's gets a random state.
        """
        self._look(interrupted=True)
        if self._watch.has_others():
            self._study.sampler.reseed_rng()

    @contextlib.contextmanager
    def watch(self, pause: Callable[[], Any]) -> Iterator[None]:
        """In other threads, beat, rescue the trials of other hosts, and call ``pause`` when someone asks for that."""
        beats = call_every(HEARTBEAT_SECONDS, self.look, "lightningtune-watch")
        with beats, watch_for_pause(self._study, self._request_before, pause):
            yield

    def look(self) -> None:
        """Rescue trials of hosts that died. Called after each trial too: it may be the last."""
        try:
            # never wait for the storage here: it would delay the end of the study
            call_at_once(self._study, lambda: self._look(interrupted=False), None)
        except Exception as error:  # the storage may be away; running trials report that
            log.warning("The study's other hosts could not be looked after: %s", redact(str(error)))

    def requeue(self, trial: FrozenTrial) -> Callable[[], None]:
        """Queue a trial again if its process was killed. Call what is returned once the trial's end has been shown."""
        if trial.user_attrs.get(REASON) != StopReason.KILLED.value:
            return lambda: None
        again = succession.requeue(self._study, trial.number)

        def tell() -> None:
            with self._turn:
                self._tell_of([again] if again is not None else [])
                if again is None:
                    self._tell_given_up(trial.number)

        return tell

    def read_config(self, number: int) -> dict[str, Any] | None:
        """Return the recorded config of a trial; None where it is missing or has changed."""
        written = read_config_sum(self._study, number)
        try:
            return self._directory.read_config(number, written)
        except InvalidConfigError as damage:
            if written is not None:
                self._tell(f"Trial {number} goes on with the study's config as it is now. {damage}")
            return None

    def find_checkpoint(self, number: int) -> Path | None:
        """Return the latest checkpoint of a trial and its predecessors."""
        line = reversed(get_lineage(self._study.get_trials(deepcopy=False), number))
        found = (self._directory.last_checkpoint(trial.number) for trial in line)
        return next((path for path in found if path is not None), None)

    def write_error(self, number: int, text: str) -> None:
        """Write a trial's error to its folder."""
        try:
            self._directory.write_error(number, text)
        except OSError as error:  # the disk may be full; the trial is recorded all the same
            self._tell(f"Why trial {number} failed could not be written to its folder: {error}")

    def _look(self, interrupted: bool) -> None:
        with self._turn:
            self._tell_of(self._watch.rescue(interrupted))
            for number in self._watch.find_given_up():
                if not (self._directory.trial(number) / "error.txt").exists():  # else an earlier run has told the user
                    self._tell_given_up(number)

    def _tell_of(self, again: Sequence[int]) -> None:
        """Tell which trials are queued again."""
        if not again:
            return
        trials = self._study.get_trials(deepcopy=False)
        is_full = count_finished(self._study) >= self._n_trials
        for number in sorted({*again} - self._told):  # another thread may queue the same
            self._told.add(number)
            before = trials[number].user_attrs[CONTINUES]
            what = "starts afresh with its parameters"
            if is_full:
                what = f"waits, for the study has its {self._n_trials} trials"
            elif self.find_checkpoint(before):
                what = "goes on from its checkpoint"
            self._tell(f"Trial {before} was cut short; trial {number} {what}.")

    def _tell_given_up(self, number: int) -> None:
        """Tell once that a trial is given up, and write it to the folder if no error is there."""
        if number in self._given_up:
            return
        self._given_up.add(number)
        text = f"Trial {number} was cut short too often without getting further, and is given up."
        if not (self._directory.trial(number) / "error.txt").exists():
            self.write_error(number, text)
        self._tell(text)
