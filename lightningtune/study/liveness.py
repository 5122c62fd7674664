"""Who holds a running trial, whether that process still lives, and the rescue of trials whose process has died.

A host writes on each trial which process holds it. On the same machine that process's death is seen at once. Across
machines each host keeps a word on the study that it changes every 20 seconds. A watcher looks at the word by its
own clock: when it has not changed for two minutes, the host has died, or can do nothing. No two clocks are compared.

A host that comes back after its trials were given to others cannot write into them: they have new numbers, and the old
ones have failed, which is final in every storage.
"""

from __future__ import annotations

import dataclasses
import random
import secrets
import time
import weakref
from collections.abc import Callable, Collection, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from lightningtune.contract import StopReason
from lightningtune.search.parameters import parse_parameter
from lightningtune.study.enqueue import EnqueuingStudy
from lightningtune.study.identity import WORKER, Worker, is_dead, read_worker
from lightningtune.study.reporter import DETAIL, REASON, SEED
from lightningtune.study.storage import get_id, get_storage
from lightningtune.study.succession import (
    ATTEMPTS,
    CONTINUES,
    WANTED,
    line_of,
    next_attempt,
    requeue,
    successors,
    withdraw,
)

HOST = "lightningtune:host:"
"""Begins the name of a host's word on a study."""
RENEWAL = 20.0
"""Seconds after which a host changes its word."""
LEASE = 120.0
"""Seconds without a changed word after which a host of another machine is given up."""

_PATIENCE = 10.0
"""Seconds after which a host that wanted a trial, and has not claimed it, is not waited for any more."""
_WATCHES: list[weakref.ref[Watch]] = []


def word_of(worker: Worker) -> str:
    """Return the name of a host's word on a study."""
    return f"{HOST}{worker.machine}:{worker.process}:{worker.started}"


class SharedStudy(EnqueuingStudy):
    """A study of several hosts: whoever asks it for a trial holds that trial, and nobody else does."""

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
    """Write on a trial that this process holds it, before anything else is done with it.

    Returns:
        Whether the trial is to be run. Otherwise it is to be left alone: another host was handed it too, or it was to
        go on where another does already, and has been ended.
    """
    try:
        was_queued = "fixed_params" in trial.storage.get_trial(get_id(trial)).system_attrs
        if was_queued and not _wins(trial):
            return False
        trial.set_user_attr(WORKER, dataclasses.asdict(Worker.this()))
        if CONTINUES not in trial.user_attrs:
            return True
        heir = successors(trial.study.get_trials(deepcopy=False)).get(trial.number)
        if heir is not None:
            withdraw(trial.storage, get_id(trial), heir)
    except UpdateFinishedTrialError:  # another host has ended it, for it was to go on where another does already
        return False
    return heir is None


def _wins(trial: optuna.Trial) -> bool:
    """Agree on who runs a trial: on SQLite, Optuna may hand a trial that was queued to several that ask at a time.

    Each says that it wants the trial, and looks whether another does too. Whoever is alone has won, since all others
    will see its word when they look. Where two see each other, both stand back, and try again at different moments.
    """
    mine = f"{WANTED}{secrets.token_hex(4)}"
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and WORKER not in (attrs := _attrs(trial)):
        if not _is_wanted(attrs, mine):
            trial.set_user_attr(mine, True)
            if not _is_wanted(_attrs(trial), mine):
                return True
            trial.set_user_attr(mine, False)
        time.sleep(random.uniform(0.001, 0.05))
    return False


def _is_wanted(attrs: Mapping[str, Any], mine: str) -> bool:
    """Whether anyone else wants a trial, or has it."""
    return WORKER in attrs or any(attrs[name] for name in attrs if name.startswith(WANTED) and name != mine)


def _attrs(trial: optuna.Trial) -> dict[str, Any]:
    return trial.storage.get_trial(get_id(trial)).user_attrs


class Watch:
    """One host's presence in a study, and its eye on the others'; to be kept for as long as the host runs.

    Args:
        study: the study; one that `open_study` has opened.
        attempts: how many attempts in a row may be cut short without getting further.
        lease: seconds without a sign of life after which a host of another machine is given up.
        clock: tells seconds, of which only differences matter.
    """

    def __init__(
        self,
        study: optuna.Study,
        attempts: int = ATTEMPTS,
        lease: float = LEASE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study, self._attempts, self._lease, self._clock = study, attempts, lease, clock
        self._renewed: float | None = None
        self._has_begun = False
        self._looked = clock()
        self._silence: dict[str, tuple[Any, float]] = {}

    def renew(self) -> None:
        """Give a sign of life, where the last is more than `RENEWAL` seconds old."""
        now = self._clock()
        if self._renewed is None or now - self._renewed >= RENEWAL:
            me = Worker.this()
            self._study.set_user_attr(word_of(me), {**dataclasses.asdict(me), "word": secrets.token_hex(4)})
            self._renewed = now

    def rescue(self, interrupted: bool = False) -> list[int]:
        """Fail the trials whose process has died, and give them out again.

        To be called before a host asks for its first trial, and every `RENEWAL` seconds from then on, from one thread
        at a time.

        Args:
            interrupted: whether those that a user has interrupted are given out again too.

        Returns:
            The numbers of the trials that go on.
        """
        # first, so that no other takes what this one is about to begin for abandoned
        self.renew()
        if not self._has_begun:
            _WATCHES.append(weakref.ref(self))
        trials = self._study.get_trials(deepcopy=False)
        running = [trial for trial in trials if trial.state is TrialState.RUNNING]
        hosts = self._hosts()
        self._observe(running, hosts)
        replaced = successors(trials)
        # a host may have died after it failed a trial and before it gave it out again
        reasons = {StopReason.KILLED.value, *([StopReason.INTERRUPTED.value] if interrupted else [])}
        ended = [trial.number for trial in trials if _is_cut_short(trial, reasons) and trial.number not in replaced]
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
        me = Worker.this()
        return any(worker != me and not self._has_ended(worker) for worker in self._hosts())

    def given_up(self) -> list[int]:
        """Return the trials that were cut short too often to be given out again."""
        trials = self._study.get_trials(deepcopy=False)
        replaced = successors(trials)
        reasons = {StopReason.KILLED.value}
        ended = [trial.number for trial in trials if _is_cut_short(trial, reasons) and trial.number not in replaced]
        return [number for number in ended if next_attempt(line_of(trials, number)) > self._attempts]

    def _hosts(self) -> dict[Worker, Any]:
        """Return the hosts that have been seen at this study, and their last words."""
        said = [value for name, value in self._study.user_attrs.items() if name.startswith(HOST)]
        return {worker: value.get("word") for value in said if (worker := read_worker(value)) is not None}

    def _why_over(self, trial: FrozenTrial, hosts: Mapping[Worker, Any]) -> str | None:
        """Say why a running trial is over; None when it is not, or is none of this library's."""
        if WORKER in trial.user_attrs:
            worker = read_worker(trial.user_attrs[WORKER])
            if worker is None or not self._has_ended(worker):
                return None
            return f"the process that ran it ended: {worker}"
        if SEED not in self._study.user_attrs or not _is_untouched(trial):
            return None
        # its host has died between asking for it and claiming it, or is about to claim it: this one too, from now on
        me = Worker.this()
        others = [worker for worker in hosts if worker != me and not self._has_ended(worker)]
        if not (others or self._has_begun or self._has_company()) or self._silent(_name(trial)) >= self._lease:
            return "the process that ran it ended before it could say which it was"
        return None

    def _has_company(self) -> bool:
        """Whether this process runs the study a second time, in another thread perhaps."""
        watches = [watch for reference in [*_WATCHES] if (watch := reference()) is not None and watch is not self]
        return any(watch._study.study_name == self._study.study_name for watch in watches)

    def _has_ended(self, worker: Worker) -> bool:
        dead = is_dead(worker)
        return self._silent(word_of(worker)) >= self._lease if dead is None else dead

    def _silent(self, name: str) -> float:
        return self._silence.get(name, (None, 0.0))[1]

    def _observe(self, running: list[FrozenTrial], hosts: Mapping[Worker, Any]) -> None:
        """Note for how long each has given no other sign of life than the last.

        Of the time between two looks no more than `RENEWAL` counts: a storage that was away was so for all.
        """
        workers = {worker for trial in running if (worker := read_worker(trial.user_attrs.get(WORKER))) is not None}
        signs = {word_of(worker): hosts.get(worker) for worker in {*workers, *hosts}}
        signs |= {_name(trial): None for trial in running if WORKER not in trial.user_attrs}
        now = self._clock()
        passed, self._looked = min(now - self._looked, RENEWAL), now
        known = self._silence
        self._silence = {
            name: (sign, known[name][1] + passed if name in known and known[name][0] == sign else 0.0)
            for name, sign in signs.items()
        }

    def _fail(self, trial: FrozenTrial, why: str) -> None:
        storage = get_storage(self._study)
        try:
            if WORKER not in trial.user_attrs:  # so that it is known as this library's
                me = dataclasses.asdict(Worker.this())
                storage.set_trial_user_attr(get_id(trial), WORKER, me)
            storage.set_trial_user_attr(get_id(trial), REASON, StopReason.KILLED.value)
            storage.set_trial_user_attr(get_id(trial), DETAIL, why)
            # not through the study: the sampler would be told of an end, and a GridSampler might end the study
            storage.set_trial_state_values(get_id(trial), TrialState.FAIL)
        except UpdateFinishedTrialError:
            return  # another host has done so at this moment


def _is_cut_short(trial: FrozenTrial, reasons: Collection[str]) -> bool:
    attrs = trial.user_attrs
    return trial.state is TrialState.FAIL and attrs.get(REASON) in reasons and WORKER in attrs


def _is_untouched(trial: FrozenTrial) -> bool:
    return not trial.params and not trial.intermediate_values and REASON not in trial.user_attrs


def _name(trial: FrozenTrial) -> str:
    return f"trial {trial.number}"
