"""Who works on a study: which process holds a trial, whether it lives, the rescue of its trials, and how it is paused.

A host writes on each trial which process holds it. On the same machine the death of that process is seen at once.
Across machines each host changes its heartbeat, an attribute of the study, every 20 seconds. A watcher measures by its
own clock for how long a heartbeat stays the same: after two minutes the host has died, or can do nothing. No two clocks
are compared.

A host that comes back after its trials were given to others cannot write into them: the trials of old have failed,
which is final in every storage, and those that go on have new numbers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import random
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from lightningtune.contract import StopReason
from lightningtune.errors import redact
from lightningtune.search.parameters import parse_parameter
from lightningtune.study.identity import WORKER, Worker, is_dead, read_worker
from lightningtune.study.reporter import DETAIL, REASON, SEED
from lightningtune.study.sampling import EnqueuingStudy
from lightningtune.study.storage import call_at_once, get_id, get_storage
from lightningtune.study.succession import (
    ATTEMPTS,
    CONTINUES,
    WANTED,
    find_successors,
    get_lineage,
    next_attempt,
    requeue,
    withdraw,
)
from lightningtune.study.tally import TrialTally

log = logging.getLogger(__name__)

HEARTBEAT = "lightningtune:host:"
"""Prefix of the study attribute that holds a host's heartbeat."""
HEARTBEAT_SECONDS = 20.0
"""Seconds after which a host changes its heartbeat."""
LEASE_SECONDS = 120.0
"""Seconds without a changed heartbeat after which a host of another machine is given up."""
PAUSE = "lightningtune:pause"
"""Study attribute that changes with each request for a pause."""

_CLAIM_SECONDS = 10.0
"""Seconds for which hosts that were handed the same trial try to agree on who runs it."""
_MONITORS: list[weakref.ref[ProcessMonitor]] = []
"""The monitors of this process."""


def heartbeat_name(worker: Worker) -> str:
    """Return the name of the study attribute that holds a host's heartbeat."""
    return f"{HEARTBEAT}{worker.machine}:{worker.process}:{worker.started}"


class HostedStudy(EnqueuingStudy):
    """A study that this host runs, perhaps beside others: who asks it for a trial holds that trial."""

    stopped = False

    def stop(self) -> None:
        """Ask for no further trial, as within ``optimize``."""
        self.stopped = True

    def ask(self, fixed_distributions: dict[str, BaseDistribution] | None = None) -> optuna.Trial:
        """Ask for a trial, and claim it."""
        while True:
            trial = super().ask()
            if claim(trial):
                break
        for name, distribution in (fixed_distributions or {}).items():
            parse_parameter(name, distribution).suggest(trial)
        return trial


def claim(trial: optuna.Trial) -> bool:
    """Write on a trial that this process holds it; return False if another host runs it, or its successor."""
    try:
        was_queued = "fixed_params" in trial.storage.get_trial(get_id(trial)).system_attrs
        if was_queued and not _wins(trial):
            return False
        trial.set_user_attr(WORKER, dataclasses.asdict(Worker.this()))
        if CONTINUES not in trial.user_attrs:
            return True
        successor = find_successors(trial.study.get_trials(deepcopy=False)).get(trial.number)
        if successor is not None:
            withdraw(trial.storage, get_id(trial), successor)
    except UpdateFinishedTrialError:  # another host has withdrawn it in between
        return False
    return successor is None


def _wins(trial: optuna.Trial) -> bool:
    """Agree on who runs a queued trial: on SQLite, Optuna may hand it to several hosts that ask at the same time.

    Each host writes that it wants the trial, and then reads whether another does too. Who sees nobody else has won:
    all others read later, and see this host. Where two see each other, both withdraw and try again after a random time.
    """
    mine = f"{WANTED}{secrets.token_hex(4)}"
    deadline = time.monotonic() + _CLAIM_SECONDS
    while time.monotonic() < deadline and WORKER not in (attrs := _read_attrs(trial)):
        if not _is_wanted(attrs, mine):
            trial.set_user_attr(mine, True)
            if not _is_wanted(_read_attrs(trial), mine):
                return True
            trial.set_user_attr(mine, False)
        time.sleep(random.uniform(0.001, 0.05))
    return False


def _is_wanted(attrs: Mapping[str, Any], mine: str) -> bool:
    """Whether another host wants a trial, or any has it."""
    return WORKER in attrs or any(attrs[name] for name in attrs if name.startswith(WANTED) and name != mine)


def _read_attrs(trial: optuna.Trial) -> dict[str, Any]:
    return trial.storage.get_trial(get_id(trial)).user_attrs


class ProcessMonitor:
    """One host's heartbeat in a study, and its watch over the other hosts. Kept for as long as the host runs."""

    def __init__(
        self,
        study: optuna.Study,
        attempts: int = ATTEMPTS,
        lease: float = LEASE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study, self._attempts, self._lease, self._clock = study, attempts, lease, clock
        self._tally = TrialTally(study)
        self._last_beat: float | None = None
        self._has_begun = False
        self._looked = clock()
        self._silence: dict[str, tuple[Any, float]] = {}
        """Heartbeat or unclaimed trial -> its last sign of life, and the seconds since."""

    def beat(self) -> None:
        """Change this host's heartbeat, where it is older than `HEARTBEAT_SECONDS`."""
        now = self._clock()
        if self._last_beat is None or now - self._last_beat >= HEARTBEAT_SECONDS:
            me = Worker.this()
            self._study.set_user_attr(heartbeat_name(me), {**dataclasses.asdict(me), "word": secrets.token_hex(4)})
            self._last_beat = now

    def rescue(self, interrupted: bool = False) -> list[int]:
        """Fail the trials whose process has died, queue them again, and return the numbers of those that go on.

        A host calls this before it asks for its first trial and every `HEARTBEAT_SECONDS` from then on, from one thread
        at a time. Trials that a user has interrupted are queued again where ``interrupted`` says so.
        """
        # the heartbeat comes first: else another host could take a trial that this one is about to claim for abandoned
        self.beat()
        if not self._has_begun:
            _MONITORS.append(weakref.ref(self))
        self._tally.update()
        unfinished = [self._tally.trials[number] for number in sorted(self._tally.unfinished)]
        running = [trial for trial in unfinished if trial.state is TrialState.RUNNING]
        hosts = _read_hosts(self._study)
        self._measure_silence(running, hosts)
        # a host may have died after it failed a trial and before it queued that again
        reasons = {StopReason.KILLED, StopReason.INTERRUPTED} if interrupted else {StopReason.KILLED}
        ended = self._find_cut_short(reasons)
        for trial in running:
            why = self._why_over(trial, hosts)
            if why is not None:
                self._fail(trial, why)
                ended.append(trial.number)
        self._has_begun = True
        again = [requeue(self._study, number, self._attempts) for number in sorted(ended)]
        return [number for number in again if number is not None]

    def has_others(self) -> bool:
        """Whether another host works on the study, or may do so."""
        return self._has_others(_read_hosts(self._study))

    def find_given_up(self) -> list[int]:
        """Return the trials that were cut short too often to be queued again."""
        self._tally.update()
        ended = self._find_cut_short({StopReason.KILLED})
        return [number for number in ended if next_attempt(get_lineage(self._tally.trials, number)) > self._attempts]

    def _find_cut_short(self, reasons: Collection[StopReason]) -> list[int]:
        """Return this library's trials that ended for one of these reasons, and that no other goes on from."""
        found = [self._tally.trials[number] for number in sorted(self._tally.cut_short)]
        return [
            trial.number
            for trial in found
            if trial.state is TrialState.FAIL and trial.user_attrs.get(REASON) in reasons and WORKER in trial.user_attrs
        ]

    def _why_over(self, trial: FrozenTrial, hosts: Mapping[Worker, Any]) -> str | None:
        """Say why a running trial is over; None while it is not, or where it is none of this library's."""
        if WORKER in trial.user_attrs:
            worker = read_worker(trial.user_attrs[WORKER])
            if worker is None or not self._has_ended(worker):
                return None
            return f"the process that ran it ended: {worker}"
        is_untouched = not trial.params and not trial.intermediate_values and REASON not in trial.user_attrs
        if SEED not in self._study.user_attrs or not is_untouched:
            return None
        # its host has asked for it and not claimed it: it has died in between, or is about to claim it.
        # Where nobody else works on the study it has died, unless this process asks for trials itself by now.
        may_be_claimed = self._has_begun or self._has_others(hosts) or self._runs_in_another_thread()
        if may_be_claimed and self._silent_seconds(f"trial {trial.number}") < self._lease:
            return None
        return "the process that ran it ended before it could say which it was"

    def _runs_in_another_thread(self) -> bool:
        """Whether another thread of this process works on the study too."""
        monitors = [one for reference in _MONITORS if (one := reference()) is not None and one is not self]
        return any(monitor._study.study_name == self._study.study_name for monitor in monitors)

    def _has_others(self, hosts: Iterable[Worker]) -> bool:
        me = Worker.this()
        return any(worker != me and not self._has_ended(worker) for worker in hosts)

    def _has_ended(self, worker: Worker) -> bool:
        dead = is_dead(worker)
        return self._silent_seconds(heartbeat_name(worker)) >= self._lease if dead is None else dead

    def _silent_seconds(self, name: str) -> float:
        return self._silence.get(name, (None, 0.0))[1]

    def _measure_silence(self, running: list[FrozenTrial], hosts: Mapping[Worker, Any]) -> None:
        """Note for how long each host and each unclaimed trial has given no new sign of life."""
        workers = {worker for trial in running if (worker := read_worker(trial.user_attrs.get(WORKER))) is not None}
        signs = {heartbeat_name(worker): hosts.get(worker) for worker in {*workers, *hosts}}
        signs |= {f"trial {trial.number}": None for trial in running if WORKER not in trial.user_attrs}
        now = self._clock()
        # between two looks the storage may have been away, for the others too: that time counts for nobody
        passed, self._looked = min(now - self._looked, HEARTBEAT_SECONDS), now
        known = self._silence
        self._silence = {
            name: (sign, known[name][1] + passed if name in known and known[name][0] == sign else 0.0)
            for name, sign in signs.items()
        }

    def _fail(self, trial: FrozenTrial, why: str) -> None:
        storage, trial_id = get_storage(self._study), get_id(trial)
        attrs: dict[str, Any] = {REASON: StopReason.KILLED.value, DETAIL: why}
        if WORKER not in trial.user_attrs:  # by this it is known as a trial of this library
            attrs = {WORKER: dataclasses.asdict(Worker.this()), **attrs}
        with contextlib.suppress(UpdateFinishedTrialError):  # another host fails it at this moment
            for name, value in attrs.items():
                storage.set_trial_user_attr(trial_id, name, value)
            # not through study.tell(): that tells the sampler, and a GridSampler could end the study
            storage.set_trial_state_values(trial_id, TrialState.FAIL)


def find_busy_hosts(study: optuna.Study) -> list[Worker]:
    """Return the live processes of this machine that hold a running trial of a study."""
    return [worker for worker in dict.fromkeys(_read_holders(study)) if is_dead(worker) is False]


def find_idle_hosts(study: optuna.Study) -> list[Worker]:
    """Return the processes that have worked on a study and may still live: whether they still do so is not known.

    A notebook lives on when its study has ended. Of a process of another machine not even that is known.
    """
    known = dict.fromkeys([*_read_hosts(study), *_read_holders(study)])
    return [worker for worker in known if not is_dead(worker) and worker != Worker.this()]


def await_heartbeats(
    study: optuna.Study,
    workers: list[Worker],
    seconds: float = 1.5 * HEARTBEAT_SECONDS,  # a host may be a little late
    wait: Callable[[float], Any] = time.sleep,
) -> list[Worker]:
    """Wait until a process changes its heartbeat, and return those that have; none after so many seconds."""
    before = study.user_attrs
    left = seconds if workers else 0.0
    while left > 0:
        pause = min(1.0, left)
        wait(pause)
        left -= pause
        now = study.user_attrs
        names = {worker: heartbeat_name(worker) for worker in workers}
        changed = [worker for worker, name in names.items() if now.get(name) != before.get(name)]
        if changed:
            return changed
    return []


def _read_hosts(study: optuna.Study) -> dict[Worker, Any]:
    """Return the hosts that have worked on a study, with their heartbeats."""
    stored = [value for name, value in study.user_attrs.items() if name.startswith(HEARTBEAT)]
    return {worker: value.get("word") for value in stored if (worker := read_worker(value)) is not None}


def _read_holders(study: optuna.Study) -> list[Worker]:
    """Return the processes that hold running trials; one for each trial."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    workers = (read_worker(trial.user_attrs.get(WORKER)) for trial in running)
    return [worker for worker in workers if worker is not None]


def pause(study: optuna.Study) -> None:
    """Have every host of a study pause it: running trials end at their next validation, and are saved.

    Who runs the study again, here or elsewhere, goes on where it was.
    """
    study.set_user_attr(PAUSE, secrets.token_hex(8))


def get_pause_request(study: optuna.Study) -> str | None:
    """Return what tells the latest request for a pause from all before it."""
    request: str | None = study.user_attrs.get(PAUSE)
    return request


def watch_for_pause(
    study: optuna.Study, before: str | None, react: Callable[[], Any], interval: float = 1.0
) -> contextlib.AbstractContextManager[None]:
    """Call ``react`` once, from a thread of its own, when someone asks for a pause after the request ``before``."""

    def react_if_asked() -> bool:
        try:
            # waiting for the storage here would hold up the study's end
            is_asked = call_at_once(study, lambda: get_pause_request(study), before) != before
        except Exception as error:  # what is wrong with the storage, the trials will say
            log.debug("Cannot read whether the study is to be paused: %s", redact(str(error)))
            return False
        if is_asked:
            react()
        return is_asked

    return call_every(interval, react_if_asked, "lightningtune-pause")


@contextlib.contextmanager
def call_every(seconds: float, act: Callable[[], object], thread_name: str) -> Iterator[None]:
    """Call a function at intervals, in a thread of its own, until it returns something true. It must not raise."""
    end = threading.Event()

    def work() -> None:
        while not end.wait(seconds) and not act():
            pass

    thread = threading.Thread(target=work, name=thread_name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
