"""Where a study is stored: opening a storage, and waiting for one that is away."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import os
import re
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.exceptions import DuplicatedStudyError, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, GrpcStorageProxy, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from lightningtune.errors import ConfigurationError, redact
from lightningtune.files import expand_home
from lightningtune.streams import open_missing_streams
from lightningtune.study.identity import WORKER
from lightningtune.study.journal import open_journal
from lightningtune.study.outage import is_away, mark, waits

log = logging.getLogger(__name__)

OUTAGE_SECONDS = 600.0
"""Seconds for which a storage that is away is waited for."""
SERVER_START_SECONDS = 10.0
"""Seconds for which a server is waited for when it is opened: where it does not answer then, its URL may be wrong."""
ASKED = "lightningtune:asked"
"""Attribute of a new trial by which the host finds it again if the storage's answer was lost."""

_MAKES_TABLES = re.compile(r"already exists|pg_type_typname_nsp_index")
"""What a server says where two hosts make its tables at the same time."""
_AT_IN_PASSWORD = re.compile(r"[\w+.-]+://[^/?]*@[^/?]*@")
_SHARE = 9
"""While values are only collected, this many times the duration of a failed try passes before the next try."""
_NEW_OUTAGE_SECONDS = 60.0
"""Seconds without a try after which a failure counts as a new outage: the storage may have been there in between."""
_T = TypeVar("_T")


def get_storage(study: optuna.Study) -> BaseStorage:
    """Return the storage of a study. Optuna has no public way to it."""
    return study._storage


def get_id(trial: optuna.Trial | FrozenTrial) -> int:
    """Return a trial's id in its storage, which the storage's methods take. Optuna has no public way to it."""
    return trial._trial_id


def open_storage(
    storage: str | os.PathLike[str] | BaseStorage | None,
    default: Path,
    outage_seconds: float = OUTAGE_SECONDS,
    start_seconds: float = SERVER_START_SECONDS,
) -> BaseStorage:
    """Open a storage and wrap it in a `PatientStorage`.

    The storage is a URL, the path of a journal file, an Optuna storage, or None for the ``default`` journal. One in
    memory is never away. One with a heartbeat stays as it is, because Optuna checks its type.
    """
    open_missing_streams()
    check_storage(storage)
    if isinstance(storage, BaseStorage):
        if isinstance(storage, (InMemoryStorage, PatientStorage)) or getattr(storage, "heartbeat_interval", None):
            return storage
        # Optuna's get_storage puts a cache before a database
        return PatientStorage(optuna.storages.get_storage(storage), outage_seconds)
    path = str(default) if storage is None else expand_storage(storage)
    if "://" in path:
        return PatientStorage(_open_database(path, min(outage_seconds, start_seconds)), outage_seconds)
    # the journal's lock is a link beside the file: a relative path would lead elsewhere from there
    journal = Path(path).absolute()
    journal.parent.mkdir(parents=True, exist_ok=True)
    return PatientStorage(open_journal(journal), outage_seconds)


def _open_database(url: str, seconds: float) -> BaseStorage:
    """Open a database. Wait while its server starts, or while another host makes its tables."""
    pauses, until = waits(), time.monotonic() + seconds
    while True:
        pause = next(pauses)
        try:
            return optuna.storages.get_storage(url)
        except Exception as error:  # each database, and each missing driver, has its own
            is_passing = is_away(error) or _MAKES_TABLES.search(str(error))
            if url.startswith("sqlite") or not is_passing or time.monotonic() + pause > until:
                # Optuna's own text blames the data for any error of a database
                cause = (isinstance(error, StorageInternalError) and error.__cause__) or error
                reason = str(cause).partition("\n")[0]
                raise ConfigurationError(f"storage={url!r} cannot be opened: {reason}") from None
        time.sleep(pause)


def expand_storage(storage: str | os.PathLike[str]) -> str:
    """Replace ``~`` by the user's home, at the beginning of a path or of an SQLite file's.

    Example:
        >>> expand_storage("sqlite:///~/study.db") == f"sqlite:///{Path.home()}/study.db"
        True
    """
    text = os.fspath(storage)
    kind, sign, path = text.partition(":///") if text.startswith("sqlite") else ("", "", text)
    return f"{kind}{sign}{expand_home(path)}" if path.startswith("~") else text


def check_storage(storage: Any) -> None:
    """Check what can be known of a storage without opening it."""
    if storage is None or isinstance(storage, BaseStorage):
        return
    if not isinstance(storage, (str, os.PathLike)):
        raise ConfigurationError(
            "storage must be a URL such as 'sqlite:///study.db', the path of a journal file, or an Optuna storage, "
            f"but got {storage!r}."
        )
    text = os.fspath(storage)
    if isinstance(storage, str) and re.match(r"[a-z]\w+(\+\w+)?:/?[^/\\]", text):
        # redact() does not find the password in what is no URL
        shown = f"{text.partition(':')[0]}:***" if "@" in text else text
        raise ConfigurationError(f"storage={shown!r} is no URL. A URL begins with a name and '://': sqlite:///study.db")
    if _AT_IN_PASSWORD.match(text):
        raise ConfigurationError(
            f"storage={storage!r} has more than one '@'. Write an '@' in the user or the password as %40."
        )
    path = expand_home(text)
    if path.is_file():
        with path.open("rb") as file:
            if file.read(15) == b"SQLite format 3":
                raise ConfigurationError(
                    f"storage='{storage}' is an SQLite database. Open it by its URL: 'sqlite:///{storage}'."
                )


def stop_waiting(study: optuna.Study) -> None:
    """Stop waiting for a study's storage if it is away now. A signal handler may call this."""
    storage = get_storage(study)
    if isinstance(storage, PatientStorage):
        storage.stop_waiting()


def call_at_once(study: optuna.Study, call: Callable[[], _T], otherwise: _T) -> _T:
    """Call a function that uses a study's storage without waiting; return ``otherwise`` where the storage is away."""
    storage = get_storage(study)
    return storage.call_at_once(call, otherwise) if isinstance(storage, PatientStorage) else call()


def _pass_on(name: str, writes: bool = False) -> Callable[..., Any]:
    """Return a method that calls the storage's method of that name until it answers."""

    def method(self: PatientStorage, *args: Any, **kwargs: Any) -> Any:
        return self._call(lambda storage: getattr(storage, name)(*args, **kwargs), writes=writes)

    return method


def _pass_on_for_trial(name: str, writes: bool = True) -> Callable[..., Any]:
    """Return such a method that first sends the values which the trial has reported."""

    def method(self: PatientStorage, trial_id: int, *args: Any, **kwargs: Any) -> Any:
        return self._call(lambda s: getattr(s, name)(trial_id, *args, **kwargs), writes=writes, trial_id=trial_id)

    return method


class PatientStorage(BaseStorage):
    """A storage around another one that may be away: its server restarts, another process locks it, its disk is full.

    - Each call is tried again until the storage has been away for ``outage_seconds``. From then on each call raises the
      storage's own error.
    - A call may have written although its answer was lost. The next try then looks for what the first has written, so
      that nothing is written twice.
    - The values that a trial reports never wait: while the storage is away they are collected here, and sent before
      anything else is asked about the trial or written to it.
    """

    def __init__(self, storage: BaseStorage, outage_seconds: float = OUTAGE_SECONDS) -> None:
        self.storage = storage
        self._outage_seconds = outage_seconds
        self._lock = threading.Condition()
        self._of_thread = threading.local()
        self._directions: dict[int, list[StudyDirection]] = {}
        self._unsent: dict[int, dict[int, float]] = {}
        """Trial id -> step -> value: what is not stored yet."""
        self._failed: Exception | None = None
        """The storage's last error; None while it is there."""
        self._failed_to_write = False
        """Whether a write has failed in this outage: a read that works (a full disk) does not end it then."""
        self._since = 0.0
        """When this outage began; minus infinity where nobody is to wait for its end."""
        self._last_failure = 0.0
        self._not_before = 0.0
        """When the storage may be tried again by who does not wait for it."""
        self._stopped_waiting = -math.inf
        self._pauses = waits()

    def __reduce__(self) -> tuple[Any, ...]:  # a lock cannot be pickled
        return type(self), (self.storage, self._outage_seconds)

    def call_at_once(self, call: Callable[[], _T], otherwise: _T) -> _T:
        """Call a function that uses this storage without waiting; return ``otherwise`` where the storage is away."""
        # the function reaches this storage through Optuna: its thread is how its calls are known
        self._of_thread.is_hurried = True
        try:
            return call()
        except Exception as error:
            if not is_away(error):
                raise
            return otherwise
        finally:
            self._of_thread.is_hurried = False

    def stop_waiting(self) -> None:
        """Stop waiting in this outage. A signal handler may call this."""
        with self._lock:
            self._since, self._stopped_waiting = -math.inf, time.monotonic()
            self._lock.notify_all()

    def _call(
        self,
        call: Callable[[BaseStorage], _T],
        again: Callable[[BaseStorage], _T] | None = None,
        writes: bool = False,
        trial_id: int | None = None,
    ) -> _T:
        """Call the storage until it answers, or the outage has lasted too long.

        The collected values of the trial are sent first. Once an answer may have been lost, ``again`` is called
        instead, where it is given.
        """
        if trial_id is not None and trial_id in self._unsent:
            self._send(trial_id, self._call)
        is_hurried, failed = getattr(self._of_thread, "is_hurried", False), self._failed
        nobody_waits = is_hurried or self._since == -math.inf
        if failed is not None and nobody_waits and time.monotonic() < self._not_before:
            raise failed.with_traceback(None)  # else each raising would lengthen the traceback
        if is_hurried:
            return self._try(call, writes)
        pauses = waits()
        while True:
            try:
                return self._try(call, writes)
            except Exception as error:
                with self._lock:
                    left = self._since + self._outage_seconds - time.monotonic()
                    if not is_away(error) or left <= 0:
                        raise
                    self._lock.wait(min(next(pauses), left))
                call = again or call

    def _try(self, call: Callable[[BaseStorage], _T], writes: bool) -> _T:
        """Call the storage once, and note whether it is there."""
        begun = time.monotonic()
        try:
            answer = call(self.storage)
        except Exception as error:
            if is_away(error):
                mark(error)
                self._note_failure(error, writes, time.monotonic() - begun)
            raise
        if self._failed is not None and (writes or not self._failed_to_write):
            self._note_return()
        return answer

    def _note_failure(self, error: Exception, writes: bool, duration: float) -> None:
        with self._lock:
            now = time.monotonic()
            began = now - duration
            is_new = self._failed is None or began - self._last_failure > _NEW_OUTAGE_SECONDS
            if is_new:
                # a try that began before stop_waiting() was called belongs to the outage that nobody waits for
                self._since = -math.inf if began <= self._stopped_waiting else began
                self._failed_to_write, self._pauses = False, waits()
            self._failed, self._last_failure = error, now
            self._failed_to_write |= writes
            # a try may block for long: collecting values must not spend more than a tenth of the time on tries
            self._not_before = now + max(next(self._pauses), _SHARE * duration)
            if isinstance(self.storage, GrpcStorageProxy):
                # a gRPC channel that found nobody waits up to two minutes before it looks again; a copy has a new one
                self.storage = copy.copy(self.storage)
        if is_new:
            reason = redact(" ".join(str(error.__cause__ or error).split()))[:200]
            log.warning(
                "The study's storage is away; it is tried again for %g seconds. %s", self._outage_seconds, reason
            )

    def _note_return(self) -> None:
        with self._lock:
            was_away, self._failed = self._failed is not None, None
        if was_away:
            log.warning("The study's storage is back after %.1f seconds.", time.monotonic() - self._since)

    def _send(self, trial_id: int, send: Callable[..., Any]) -> None:
        """Send a trial's collected values, in the order in which they were reported."""
        waiting = self._unsent.get(trial_id, {})
        try:
            for step, value in [*waiting.items()]:
                send(
                    lambda s, step=step, value=value: s.set_trial_intermediate_value(trial_id, step, value), writes=True
                )
                waiting.pop(step, None)
        except Exception as error:
            if not is_away(error):  # the trial has ended, and another goes on in its place: nobody will take them
                self._unsent.pop(trial_id, None)
            raise
        if not waiting:
            self._unsent.pop(trial_id, None)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Send a value, or collect it with those before it; never wait."""
        self._unsent.setdefault(trial_id, {})[step] = intermediate_value
        if self._failed is not None and time.monotonic() < self._not_before:
            return
        try:
            self._send(trial_id, self._try)
        except Exception as error:
            if not is_away(error):
                raise

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Create a study. If a later try finds it with these directions, the first try has created it."""
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
        """Delete a study. If a later try does not find it, the first try has deleted it."""

        def again(storage: BaseStorage) -> None:
            with contextlib.suppress(KeyError):
                storage.delete_study(study_id)

        self._directions.pop(study_id, None)
        self._call(lambda storage: storage.delete_study(study_id), again, writes=True)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial. It carries a random mark, by which a later try finds what the first has created."""
        mark_of_trial = secrets.token_hex(8)
        if template_trial is None:
            template = create_trial(state=TrialState.RUNNING)
            template.datetime_start = datetime.now()
        else:
            template = copy.copy(template_trial)
        template.system_attrs = {**template.system_attrs, ASKED: mark_of_trial}

        def again(storage: BaseStorage) -> int:
            trials = storage.get_all_trials(study_id, deepcopy=False)
            found = [get_id(trial) for trial in trials if trial.system_attrs.get(ASKED) == mark_of_trial]
            return found[0] if found else storage.create_new_trial(study_id, template)

        return self._call(lambda storage: storage.create_new_trial(study_id, template), again, writes=True)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Set a trial's state. If a later try finds that state and these values, the first try has set them."""

        def again(storage: BaseStorage) -> bool:
            try:
                has_changed = storage.set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                trial = storage.get_trial(trial_id)
                if (trial.state, trial.values) != (state, None if values is None else [*values]):
                    raise
                return True
            # a trial that already runs was taken by the first try, or by another host. While no host is written on it,
            # this host goes on as if it had taken it: claim() finds out who holds it.
            return has_changed or WORKER not in storage.get_trial(trial_id).user_attrs

        return self._call(lambda s: s.set_trial_state_values(trial_id, state, values), again, True, trial_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return a study's directions. They never change, so they are asked for once."""
        if study_id not in self._directions:
            self._directions[study_id] = self._call(lambda storage: storage.get_study_directions(study_id))
        return self._directions[study_id]

    def remove_session(self) -> None:
        """Close the connections of this thread."""
        self.storage.remove_session()

    set_study_user_attr = _pass_on("set_study_user_attr", writes=True)
    set_study_system_attr = _pass_on("set_study_system_attr", writes=True)
    set_trial_param = _pass_on_for_trial("set_trial_param")
    set_trial_user_attr = _pass_on_for_trial("set_trial_user_attr")
    set_trial_system_attr = _pass_on_for_trial("set_trial_system_attr")
    get_trial = _pass_on_for_trial("get_trial", writes=False)
    get_all_trials = _pass_on("get_all_trials")
    get_best_trial = _pass_on("get_best_trial")
    get_trial_id_from_study_id_trial_number = _pass_on("get_trial_id_from_study_id_trial_number")
    get_all_studies = _pass_on("get_all_studies")
    get_study_id_from_name = _pass_on("get_study_id_from_name")
    get_study_name_from_id = _pass_on("get_study_name_from_id")
    get_study_user_attrs = _pass_on("get_study_user_attrs")
    get_study_system_attrs = _pass_on("get_study_system_attrs")
