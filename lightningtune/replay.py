"""Train any trial of a study again from its record, to see whether it comes to the same."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from lightningtune.contract import Objective, Reporter, Stop, StopReason, TrialOutcome, TrialSpec, Values
from lightningtune.errors import ConfigurationError, NoResultError, TrialError, redact
from lightningtune.files import write_text
from lightningtune.study.comparison import Replay, Training, find_differences
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.provenance import find_provenance
from lightningtune.study.reporter import (
    DETAIL,
    PLACEMENT,
    PRUNED_BY,
    REASON,
    read_config_sum,
    read_data_seed,
    read_facts,
    read_provenance,
)
from lightningtune.training.build import Blueprint
from lightningtune.training.failures import failure
from lightningtune.training.run import load_data, prepare_data
from lightningtune.workers.devices import Slot
from lightningtune.workers.inline import Preparation, run_inline
from lightningtune.workers.processes import TrialProcesses

_BY_THEMSELVES = {
    StopReason.COMPLETED,
    StopReason.FAILED,
    StopReason.REFUSED,
    StopReason.OUT_OF_MEMORY,
    StopReason.NON_FINITE,
}
"""How a trial ends that nobody stops."""


def replay(
    study: optuna.Study,
    number: int,
    directory: StudyDirectory,
    blueprint: Blueprint,
    objective: Objective,
    callbacks: Sequence[Any] = (),
    tolerance: float = 1e-5,
) -> Replay:
    """Train a trial again, from the beginning and as far as it was recorded, and compare.

    It is trained as the trial was: with its config, its seed and its number of threads, and in a process of its own if
    the trial had one. The study stays as it is; only the folder ``replay/0007`` of trial 7 is written.
    """
    trial = _get_finished(study, number)
    recorded = _read_record(trial)
    config = directory.read_config(number, read_config_sum(study, number))
    _, _, facts = read_facts(trial)
    blueprint = copy.copy(blueprint)
    blueprint.data_seed = read_data_seed(trial)
    try:
        ranks = blueprint.check_trainer(config)
        folder = directory.replay(number)
        directory.begin(folder, config)
        copies = tuple(copy.deepcopy(callback) for callback in callbacks)
        seed = blueprint.data_seed
        spec = TrialSpec(number, config, folder, objective, copies, False, data_seed=seed, pruned_by=PRUNED_BY)
        follower = _Follower(recorded, len(study.directions) == 1)
        placement = trial.user_attrs.get(PLACEMENT)
        threads = facts.threads or (placement and placement["threads"] // ranks) or torch.get_num_threads()
        if placement is None and ranks == 1:
            outcome = _train_here(spec, blueprint, follower, threads)
        else:
            outcome = _train_apart(spec, blueprint, follower, threads, ranks)
        # the trial has trained once with this config: now the classes, or the machine, do not fit it any more
        if isinstance(outcome.error, ConfigurationError) and (recorded.curve or recorded.values):
            raise outcome.error
    except ConfigurationError as error:
        raise TrialError(
            f"Trial {number} cannot be trained with the classes, or on the machine, as they are now: {error}"
        ) from error
    if isinstance(outcome.error, (KeyboardInterrupt, SystemExit)):
        raise outcome.error
    if outcome.error is not None:
        write_text(folder / "error.txt", redact(outcome.traceback or outcome.detail))
    ending = None if follower.has_stopped else outcome.detail or outcome.reason.value
    return Replay(
        number,
        recorded,
        Training(follower.curve, outcome.score, ending),
        tolerance,
        tuple(find_differences(read_provenance(trial), find_provenance(blueprint.schema), facts, outcome.facts)),
        is_seeded=config.get("seed_everything") is not False,
        directory=folder,
    )


def _get_finished(study: optuna.Study, number: int) -> FrozenTrial:
    trials = study.get_trials(deepcopy=False)
    if not isinstance(number, int) or not 0 <= number < len(trials):
        there = f"It has trials 0 to {len(trials) - 1}." if trials else "It has none."
        raise NoResultError(f"Study '{study.study_name}' has no trial {number!r}. {there}")
    trial = trials[number]
    if not trial.state.is_finished():
        raise NoResultError(f"Trial {number} has not ended yet: it is {trial.state.name.lower()}.")
    if read_config_sum(study, number) is None:
        why = trial.user_attrs.get(DETAIL, "another program ran it, or it ended before it began")
        raise NoResultError(f"Of trial {number} no config was recorded, so that it cannot be trained again: {why}.")
    return trial


def _read_record(trial: FrozenTrial) -> Training:
    reason, detail = trial.user_attrs.get(REASON, ""), trial.user_attrs.get(DETAIL, "")
    values = tuple(trial.values) if trial.state is TrialState.COMPLETE else None
    ending = (detail or reason) if reason in _BY_THEMSELVES else None
    recorded = Training(dict(trial.intermediate_values), values, ending)
    if not recorded.curve and ending is None:
        raise NoResultError(f"Trial {trial.number} has no values to compare with: {detail or 'it was cut short'}.")
    return recorded


class _Follower:
    """A reporter that keeps what is reported, and stops the training where the trial's record ends.

    Where the trial ended by itself, the training may go one validation further: then it has not ended as the trial did.
    """

    def __init__(self, recorded: Training, has_curve: bool) -> None:
        self.curve: dict[int, float] = {}
        self.has_stopped = False
        last = max(recorded.curve, default=-1)
        self._end = (last if recorded.ending is None else last + 1) if has_curve else None

    def report(self, values: Values, step: int) -> Stop | None:
        """Keep the value as `OptunaReporter` does: an infinite one as NaN."""
        if self._end is None:
            return None
        self.curve[step] = math.nan if math.isinf(values[0]) else values[0]
        if step < self._end:
            return None
        self.has_stopped = True
        return Stop(StopReason.PRUNED, "it was trained as far as its record goes")

    def notice(self, text: str) -> None:
        """Ignore it: the study has logged it."""


def _train_here(spec: TrialSpec, blueprint: Blueprint, reporter: Reporter, threads: int) -> TrialOutcome:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        if blueprint.share_data:
            load_data(blueprint)
        else:
            is_prepared = Preparation(blueprint).of(spec.config, lambda: prepare_data(blueprint, spec))
            spec = dataclasses.replace(spec, data_is_prepared=is_prepared)
        return run_inline(spec, blueprint, reporter)
    except Exception as error:  # the classes may not fit, preparing the data may fail
        return failure(error, PRUNED_BY)
    finally:
        torch.set_num_threads(before)


def _train_apart(spec: TrialSpec, blueprint: Blueprint, reporter: Reporter, threads: int, ranks: int) -> TrialOutcome:
    slot = Slot(threads=threads * ranks)
    with TrialProcesses(blueprint) as processes:
        try:
            if not blueprint.share_data:
                prepare = Preparation(blueprint).of
                is_prepared = prepare(spec.config, lambda: processes.prepare_data(spec, slot, ranks))
                spec = dataclasses.replace(spec, data_is_prepared=is_prepared)
            return processes.run(spec, slot, reporter, ranks)
        except Exception as error:  # preparing the data may fail
            return failure(error, PRUNED_BY)
