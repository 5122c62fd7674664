"""A storage that may be away for a while: who needs its answer waits for it, and a trial's values wait in its place."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Container, Sequence
from datetime import datetime
from typing import Any, TypeVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, GrpcStorageProxy
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from lightningtune.errors import redact
from lightningtune.study.identifiers import id_of, storage_of
from lightningtune.study.identity import WORKER
from lightningtune.study.outage import is_away, mark, waits

log = logging.getLogger(__name__)

PATIENCE = 600.0
"""Seconds for which a storage that is away is waited for."""
ASKED = "lightningtune:asked"
"""A word of the host's on a trial that it has created, by which it finds the trial if it has not had the answer."""

_SHARE = 9
"""How much longer than a try has taken the next value of a trial is not sent: trying takes a tenth of the time."""
_FORGOTTEN = 60.0
"""Seconds without a try after which a storage that is away is waited for anew."""
_T = TypeVar("_T")


class PatientStorage(BaseStorage):
    """A storage around another, which may be away: its server is restarted, another holds its lock, its disk is full.

    Whoever needs an answer has it a little later: each call is tried again until the storage has been away for
    `PATIENCE`; from then on all raise what the storage raises. Of what may have been written although the answer was
    lost, nothing is written twice. The values that a trial reports do not hold its training up: while the storage is
    away they wait here, and are sent before anything else is asked about the trial, or written to it.

    Args:
        storage: the storage; one that several threads may use.
        patience: seconds for which it is waited for.
    """

    def __init__(self, storage: BaseStorage, patience: float = PATIENCE) -> None:
        self.storage = storage
        self._patience = patience
        self._set_up()

    def _set_up(self) -> None:
        self._lock = threading.Condition()
        self._mine = threading.local()
        self._directions: dict[int, list[StudyDirection]] = {}
        self._backlog: dict[int, dict[int, float]] = {}
        self._failed: Exception | None = None
        self._failed_to_write, self._since, self._latest, self._not_before = False, 0.0, 0.0, 0.0
        self._given_up = -math.inf
        self._waits = waits()

    def __getstate__(self) -> dict[str, Any]:
        return {"storage": self.storage, "_patience": self._patience}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set_up()

    def at_once(self, call: Callable[[], _T], otherwise: _T) -> _T:
        """Return what ``call`` does where the storage is there; it waits for nothing.

        Args:
            call: uses this storage; of a study, or of a trial.
            otherwise: is returned when the storage is away.
        """
        self._mine.is_hurried = True
        try:
            return call()
        except Exception as error:
            if not is_away(error):
                raise
            return otherwise
        finally:
            self._mine.is_hurried = False

    def give_up(self) -> None:
        """Wait no longer for a storage that is away now, until it is back; a signal handler may call this."""
        with self._lock:
            self._since, self._given_up = -math.inf, time.monotonic()
            self._lock.notify_all()

    def _once(self, call: Callable[[BaseStorage], _T], writes: bool) -> _T:
        """Call the storage, and note whether it is there."""
        begun = time.monotonic()
        storage = self.storage
        try:
            answer = call(storage)
        except Exception as error:
            if is_away(error):
                mark(error)
                self._note_away(error, writes, time.monotonic() - begun)
            raise
        if self._failed is not None and (writes or not self._failed_to_write):
            self._note_back()
        return answer

    def _call(
        self, call: Callable[[BaseStorage], _T], again: Callable[[BaseStorage], _T] | None = None, writes: bool = False
    ) -> _T:
        """Call the storage until it is there.

        Args:
            call: what is asked of it.
            again: what is asked of it after a try of which the answer was lost; the same, when not given.
            writes: whether something is written.
        """
        is_hurried, failed = getattr(self._mine, "is_hurried", False), self._failed
        if failed is not None and (is_hurried or self._since == -math.inf) and time.monotonic() < self._not_before:
            raise failed.with_traceback(None)  # or each raising would add to it
        if is_hurried:
            return self._once(call, writes)
        pauses = waits()
        while True:
            try:
                return self._once(call, writes)
            except Exception as error:
                with self._lock:
                    left = self._since + self._patience - time.monotonic()
                    if not is_away(error) or left <= 0:
                        raise
                    self._lock.wait(min(next(pauses), left))
                call = again or call

    def _note_away(self, error: Exception, writes: bool, took: float) -> None:
        with self._lock:
            now = time.monotonic()
            # where everyone had given it up, it may have been there since
            is_new = self._failed is None or now - took - self._latest > _FORGOTTEN
            self._latest = now
            if is_new:
                began = now - took
                self._since, self._waits = -math.inf if began <= self._given_up else began, waits()
            self._failed = error
            self._failed_to_write = writes if is_new else self._failed_to_write or writes
            self._not_before = now + max(next(self._waits), _SHARE * took)
            if isinstance(self.storage, GrpcStorageProxy):
                # a channel that found nobody does not look again for up to two minutes; a new one does so at once
                self.storage = copy.copy(self.storage)
        if is_new:
            reason = redact(" ".join(str(error.__cause__ or error).split()))[:200]
            log.warning("The study's storage is away; it is tried again for %g seconds. %s", self._patience, reason)

    def _note_back(self) -> None:
        with self._lock:
            was_away, self._failed = self._failed is not None, None
        if was_away:
            log.warning("The study's storage is back after %.1f seconds.", time.monotonic() - self._since)

    def _of_trial(
        self,
        trial_id: int,
        call: Callable[[BaseStorage], _T],
        again: Callable[[BaseStorage], _T] | None = None,
        writes: bool = True,
    ) -> _T:
        """Call the storage about a trial, of which it has been told all that was reported."""
        if trial_id in self._backlog:
            self._send(trial_id, self._call)
        return self._call(call, again, writes)

    def _send(self, trial_id: int, send: Callable[..., Any]) -> None:
        """Send the values that wait, in the order in which they were reported."""
        waiting = self._backlog.get(trial_id, {})
        try:
            for step, value in [*waiting.items()]:
                send(
                    lambda s, step=step, value=value: s.set_trial_intermediate_value(trial_id, step, value), writes=True
                )
                waiting.pop(step, None)
        except Exception as error:
            if not is_away(error):  # they will never be taken: the trial has ended, and another goes on in its place
                self._backlog.pop(trial_id, None)
            raise
        if not waiting:
            self._backlog.pop(trial_id, None)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Send a value, or have it wait with those before it: this never waits for a storage that is away."""
        self._backlog.setdefault(trial_id, {})[step] = intermediate_value
        if self._failed is not None and time.monotonic() < self._not_before:
            return
        try:
            self._send(trial_id, self._once)
        except Exception as error:
            if not is_away(error):
                raise

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Create a study; one that is found at a second try, with these directions, is taken for the first try's."""
        name = study_name or f"no-name-{uuid.uuid4()}"

        def again(storage: BaseStorage) -> int:
            try:
                return storage.create_new_study(directions, name)
            except DuplicatedStudyError:
                study_id = storage.get_study_id_from_name(name)
                if storage.get_study_directions(study_id) != [*directions]:
                    raise
                return study_id

        return self._call(lambda storage: storage.create_new_study(directions, name), again, writes=True)

    def delete_study(self, study_id: int) -> None:
        """Delete a study; one that is gone at a second try is deleted."""

        def again(storage: BaseStorage) -> None:
            with contextlib.suppress(KeyError):
                storage.delete_study(study_id)

        self._directions.pop(study_id, None)
        self._call(lambda storage: storage.delete_study(study_id), again, writes=True)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial; a second try looks for the first's."""
        word = secrets.token_hex(8)
        if template_trial is None:
            template = create_trial(state=TrialState.RUNNING)
            template.datetime_start = datetime.now()
        else:
            template = copy.copy(template_trial)
        template.system_attrs = {**template.system_attrs, ASKED: word}

        def again(storage: BaseStorage) -> int:
            trials = storage.get_all_trials(study_id, deepcopy=False)
            found = [id_of(trial) for trial in trials if trial.system_attrs.get(ASKED) == word]
            return found[0] if found else storage.create_new_trial(study_id, template)

        return self._call(lambda storage: storage.create_new_trial(study_id, template), again, writes=True)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Set a trial's state; a second try that finds it as it is to be takes it for the first's."""

        def again(storage: BaseStorage) -> bool:
            try:
                has_changed = storage.set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                trial = storage.get_trial(trial_id)
                if (trial.state, trial.values) != (state, None if values is None else [*values]):
                    raise
                return True
            # it may be another's that was quicker: who asks for a trial of a shared study finds out
            return has_changed or WORKER not in storage.get_trial(trial_id).user_attrs

        return self._of_trial(trial_id, lambda storage: storage.set_trial_state_values(trial_id, state, values), again)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:  # noqa: D102
        self._call(lambda storage: storage.set_study_user_attr(study_id, key, value), writes=True)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:  # noqa: D102
        self._call(lambda storage: storage.set_study_system_attr(study_id, key, value), writes=True)

    def set_trial_param(  # noqa: D102
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        def call(storage: BaseStorage) -> None:
            storage.set_trial_param(trial_id, param_name, param_value_internal, distribution)

        self._of_trial(trial_id, call)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:  # noqa: D102
        self._of_trial(trial_id, lambda storage: storage.set_trial_user_attr(trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:  # noqa: D102
        self._of_trial(trial_id, lambda storage: storage.set_trial_system_attr(trial_id, key, value))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return a study's directions, which do not change: they are asked for once."""
        if study_id not in self._directions:
            self._directions[study_id] = self._call(lambda storage: storage.get_study_directions(study_id))
        return self._directions[study_id]

    def get_study_id_from_name(self, study_name: str) -> int:  # noqa: D102
        return self._call(lambda storage: storage.get_study_id_from_name(study_name))

    def get_study_name_from_id(self, study_id: int) -> str:  # noqa: D102
        return self._call(lambda storage: storage.get_study_name_from_id(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:  # noqa: D102
        return self._call(lambda storage: storage.get_study_user_attrs(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:  # noqa: D102
        return self._call(lambda storage: storage.get_study_system_attrs(study_id))

    def get_all_studies(self) -> list[Any]:  # noqa: D102
        return self._call(lambda storage: storage.get_all_studies())

    def get_trial(self, trial_id: int) -> FrozenTrial:  # noqa: D102
        return self._of_trial(trial_id, lambda storage: storage.get_trial(trial_id), writes=False)

    def get_all_trials(  # noqa: D102
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self._call(lambda storage: storage.get_all_trials(study_id, deepcopy, states))

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:  # noqa: D102
        return self._call(lambda storage: storage.get_trial_id_from_study_id_trial_number(study_id, trial_number))

    def get_best_trial(self, study_id: int) -> FrozenTrial:  # noqa: D102
        return self._call(lambda storage: storage.get_best_trial(study_id))

    def remove_session(self) -> None:  # noqa: D102
        self.storage.remove_session()


def give_up(study: optuna.Study) -> None:
    """Wait no longer for a study's storage that is away now; a signal handler may call this."""
    storage = storage_of(study)
    if isinstance(storage, PatientStorage):
        storage.give_up()
