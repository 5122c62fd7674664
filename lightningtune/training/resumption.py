"""Where a trial stands, as its checkpoints say it; and from which of them a trial can go on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lightningtune.contract import Objective, Values
from lightningtune.errors import TrialError
from lightningtune.training.checkpoint_file import STATE, read_checkpoint
from lightningtune.training.decisions import best_index

log = logging.getLogger(__name__)

BEST = "best.ckpt"
LAST = "last.ckpt"
_LIGHTNING = ("state_dict", "loops", "callbacks", "optimizer_states", "lr_schedulers")


@dataclass(frozen=True)
class TrialState:
    """What a checkpoint holds of a trial beyond what Lightning writes.

    Attributes:
        training: which training it is of, as `training_of` says it.
        monitor: the metrics that ``history`` is of.
        history: the values of each validation so far that logged the metrics.
        steps: the step of each of them.
        step: how many validations, or training epochs, have passed.
        old: the monitored metrics whose value in ``metrics`` is not new to the next validation.
        global_step: how many steps the optimizers have made.
        at_epoch_end: whether values come from training epochs instead of validations.
        epoch_batches: how many batches the last whole epoch had.
        between_epochs: whether the last epoch was over in all respects, and nothing of the next had begun.
        should_stop: whether a callback had asked for the fit's end.
        metrics: the last value of whatever was logged: a scheduler may look at one before it is logged again.
        random: the random state of each rank.
    """

    training: str
    monitor: tuple[str, ...]
    history: list[Values]
    steps: list[int]
    step: int
    old: list[str]
    global_step: int
    at_epoch_end: bool
    epoch_batches: float
    between_epochs: bool
    should_stop: bool
    metrics: dict[str, torch.Tensor]
    random: list[dict[str, Any]]


@dataclass(frozen=True)
class Start:
    """A checkpoint that is whole and belongs to the trial.

    Attributes:
        checkpoint: the file.
        best: the checkpoint of the best validation until then, where there was one.
        weights_only: whether it loads without unpickling objects.
        global_step: how many steps the optimizers have made.
        epochs: how many epochs have begun.
    """

    checkpoint: Path
    best: Path | None
    weights_only: bool
    global_step: int
    epochs: int

    def is_within(self, trainer: Mapping[str, Any]) -> bool:
        """Whether a trainer's limits, which may have become narrower, let a fit come this far.

        Args:
            trainer: that section of a config.
        """
        limits = ((trainer.get("max_epochs"), self.epochs), (trainer.get("max_steps"), self.global_step))
        return all(limit in (None, -1) or reached <= limit for limit, reached in limits)


@dataclass(frozen=True)
class _Checkpoint:
    path: Path
    state: TrialState
    weights_only: bool
    epochs: int

    def start(self, best: Path | None) -> Start:
        return Start(self.path, best, self.weights_only, self.state.global_step, self.epochs)


def find_start(checkpoint: Path, objective: Objective, training: str) -> Start | None:
    """Find out from where a trial goes on.

    A file that is torn, or is no checkpoint of such a trial, is noticed here, before the fit: then it is the
    ``best.ckpt`` beside it from which the trial goes on. That one must be whole in any case, for its weights are the
    trial's result unless a better validation follows.

    Args:
        checkpoint: a file from the study's own folder: it is unpickled where it does not load with weights only.
        objective: what is tuned.
        training: which training is to go on, as `training_of` says it.

    Returns:
        None where the trial has to start afresh.
    """
    last, best = (_read(path, objective, training) for path in (checkpoint, checkpoint.with_name(BEST)))
    start = max((found for found in (last, best) if found), key=lambda found: found.state.step, default=None)
    if start is None:
        log.warning("There is nothing to go on from in %s: the trial starts afresh.", checkpoint.parent)
        return None
    index = _index_of_best(start.state, objective)
    if index is None:
        return start.start(best=None)
    if best is None or len(best.state.history) != index + 1:
        log.warning("%s does not hold the best of %s: the trial starts afresh.", BEST, checkpoint)
        return None
    return start.start(best.path)


def _index_of_best(state: TrialState, objective: Objective) -> int | None:
    return len(state.history) - 1 if objective.score == "last" else best_index(state.history, objective.mode[0])


def _read(path: Path, objective: Objective, training: str) -> _Checkpoint | None:
    """Return a checkpoint of a trial, or None where the file is torn, foreign or not there."""
    if not path.exists():
        return None
    try:
        loaded, weights_only = read_checkpoint(path)
        state = TrialState(**loaded[STATE])
        absent = [key for key in _LIGHTNING if key not in loaded]
        is_own = state.training == training and tuple(state.monitor) == objective.monitor
        if absent or not is_own or not state.history:
            raise ValueError(f"it is of another training: no {absent}, or not of {objective.monitor} with this config")
    except (TrialError, KeyError, TypeError, ValueError) as error:
        log.warning("%s cannot be gone on from: %s: %s", path, type(error).__name__, error)
        return None
    return _Checkpoint(path, state, weights_only, loaded["epoch"] + 1)
