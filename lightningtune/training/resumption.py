"""From which checkpoint a trial can go on, and what such a checkpoint holds beyond what Lightning writes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from lightningtune.config.base import with_limits_of
from lightningtune.contract import Objective, Values
from lightningtune.errors import TrialError
from lightningtune.files import check_sums
from lightningtune.training.loops import begin_next_epoch, call_between_epochs
from lightningtune.training.metrics import best_index
from lightningtune.training.process_state import restore_random_state

log = logging.getLogger(__name__)

BEST = "best.ckpt"
LAST = "last.ckpt"
STATE = "lightningtune"
"""The key of a checkpoint under which the `ResumeState` stands."""
_NEEDED = ("state_dict", "loops", "callbacks", "optimizer_states", "lr_schedulers")
"""What Lightning writes into a checkpoint that is not of weights only."""


@dataclass(frozen=True)
class ResumeState:
    """What a checkpoint holds of a trial beyond what Lightning writes; stored under these names."""

    training: str  # a digest of the config
    monitor: tuple[str, ...]  # the metrics that the history is of
    history: list[Values]  # of each validation so far that logged the metrics
    steps: list[int]  # of each value in the history
    step: int  # validations, or training epochs, that have passed
    old: list[str]  # the monitored metrics whose value in `metrics` is not new to the next validation
    global_step: int  # steps that the optimizers have made
    at_epoch_end: bool  # whether values come from training epochs instead of validations
    epoch_batches: float  # of the last whole epoch
    between_epochs: bool  # whether the last epoch was over in all respects, and nothing of the next had begun
    should_stop: bool  # whether a callback had asked for the fit's end
    metrics: dict[str, torch.Tensor]  # the last value of all that was logged: a scheduler may read one before the next
    random: list[dict[str, Any]]  # the random state of each rank


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint that is whole and belongs to the trial."""

    checkpoint: Path
    state: ResumeState
    epochs: int  # that have begun
    weights_only: bool  # whether it loads without unpickling objects
    best: Path | None = None  # the checkpoint of the best validation until then

    def is_within(self, trainer: Mapping[str, Any]) -> bool:
        """Whether the limits in a config's ``trainer`` section, which may have become narrower, allow this point."""
        limits = ((trainer.get("max_epochs"), self.epochs), (trainer.get("max_steps"), self.state.global_step))
        return all(limit in (None, -1) or reached <= limit for limit, reached in limits)


def digest_training(config: Mapping[str, Any]) -> str:
    """Return a digest of a config that is the same whatever the trainer's limits are.

    Example:
        >>> wider = {"seed_everything": 1, "trainer": {"max_epochs": 9}}
        >>> digest_training(wider) == digest_training({"seed_everything": 1, "trainer": {"max_epochs": 5}})
        True
        >>> digest_training(wider) == digest_training({"seed_everything": 2})
        False
    """
    text = json.dumps(with_limits_of(config, {}), sort_keys=True, default=repr)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def read_checkpoint(path: Path) -> tuple[Mapping[str, Any], bool]:
    """Read a checkpoint, its tensors on the CPU and not before they are needed; say whether weights only sufficed.

    It must be from the study's own folder: it is unpickled where it does not load with weights only.

    Raises:
        TrialError: when it is not there, is torn, or is no checkpoint.
    """
    try:
        check_sums(path)
        try:
            loaded, weights_only = torch.load(path, map_location="cpu", weights_only=True, mmap=True), True
        except pickle.UnpicklingError:  # it holds objects of the user's, such as a model's hyperparameters
            loaded, weights_only = torch.load(path, map_location="cpu", weights_only=False, mmap=True), False
        if not isinstance(loaded, Mapping):
            raise TypeError(f"it holds a {type(loaded).__name__}")
    except Exception as error:  # a torn file may make the unpickler raise anything
        why = f"{type(error).__name__}: {error}"
        raise TrialError(f"The checkpoint '{path}' is not whole, or is none: {why}") from error
    return loaded, weights_only


def find_resume_point(checkpoint: Path, objective: Objective, training: str) -> ResumePoint | None:
    """Find the checkpoint from which a trial goes on; None where it has to start afresh.

    A file that is torn, or is no checkpoint of such a trial, is noticed here, before the fit. Then the trial goes on
    from the ``best.ckpt`` beside it. That one must be whole in any case: its weights are the trial's result unless a
    better validation follows.
    """
    last, best = (_read(path, objective, training) for path in (checkpoint, checkpoint.with_name(BEST)))
    start = max((found for found in (last, best) if found), key=lambda found: found.state.step, default=None)
    if start is None:
        log.warning("There is nothing to go on from in %s: the trial starts afresh.", checkpoint.parent)
        return None
    history = start.state.history
    index = len(history) - 1 if objective.score == "last" else best_index(history, objective.mode[0])
    if index is None:
        return start
    if best is None or len(best.state.history) != index + 1:
        log.warning("%s does not hold the best of %s: the trial starts afresh.", BEST, checkpoint)
        return None
    return dataclasses.replace(start, best=best.checkpoint)


def _read(path: Path, objective: Objective, training: str) -> ResumePoint | None:
    """Return a checkpoint of a trial, or None where the file is torn, foreign or not there."""
    if not path.exists():
        return None
    try:
        loaded, weights_only = read_checkpoint(path)
        state = ResumeState(**loaded[STATE])
        absent = [key for key in _NEEDED if key not in loaded]
        is_own = state.training == training and tuple(state.monitor) == objective.monitor
        if absent or not is_own or not state.history:
            raise ValueError(f"it is of another training: no {absent}, or not of {objective.monitor} with this config")
    except (TrialError, KeyError, TypeError, ValueError) as error:
        log.warning("%s cannot be gone on from: %s: %s", path, type(error).__name__, error)
        return None
    return ResumePoint(path, state, loaded["epoch"] + 1, weights_only)


def restore_fit(trainer: Trainer, state: ResumeState) -> None:
    """Restore, in ``on_train_start``, what Lightning does not restore from a checkpoint.

    Raises:
        TrialError: when Lightning has not restored the rest.
    """
    if trainer.global_step != state.global_step:
        raise TrialError(
            f"The trial cannot go on from its checkpoint: it is at step {state.global_step}, and the fit would begin "
            f"at step {trainer.global_step}. Does a callback load another checkpoint before the training?"
        )
    trainer.callback_metrics.update(state.metrics)
    trainer.should_stop = state.should_stop
    if not state.between_epochs:
        restore_random_state(trainer, state.random)
        return
    begin_next_epoch(trainer)
    # Not before the first hook of the next epoch: other callbacks may draw random numbers in the on_train_start that is
    # going on, and there was no such hook between these two epochs in the fit that wrote the checkpoint.
    call_between_epochs(trainer, lambda trainer, goes_on: restore_random_state(trainer, state.random))
