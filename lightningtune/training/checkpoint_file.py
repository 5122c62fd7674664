"""One checkpoint file: read only if it is whole, without unpickling where that suffices, and known by its training."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lightningtune.config.limits import with_limits_of
from lightningtune.errors import TrialError
from lightningtune.files import check_sums

STATE = "lightningtune"
"""The key of a checkpoint under which a trial's state stands."""


def read_checkpoint(path: Path) -> tuple[Mapping[str, Any], bool]:
    """Read a checkpoint, its tensors on the CPU and not before they are needed.

    Args:
        path: a file from the study's own folder: it is unpickled where it does not load with weights only.

    Returns:
        What it holds, and whether it loaded with weights only.

    Raises:
        TrialError: when it is not there, is torn, or is no checkpoint.
    """
    try:
        check_sums(path)
        loaded, weights_only = _load(path)
        if not isinstance(loaded, Mapping):
            raise TypeError(f"it holds a {type(loaded).__name__}")
    except Exception as error:  # a torn file may make the unpickler raise anything
        why = f"{type(error).__name__}: {error}"
        raise TrialError(f"The checkpoint '{path}' is not whole, or is none: {why}") from error
    return loaded, weights_only


def training_of(config: Mapping[str, Any]) -> str:
    """Return what tells a training from every other: a digest of its config, without the trainer's limits.

    Example:
        >>> wider = {"seed_everything": 1, "trainer": {"max_epochs": 9}}
        >>> training_of(wider) == training_of({"seed_everything": 1, "trainer": {"max_epochs": 5}})
        True
        >>> training_of(wider) == training_of({"seed_everything": 2})
        False
    """
    text = json.dumps(with_limits_of(config, {}), sort_keys=True, default=repr)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _load(path: Path) -> tuple[Any, bool]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True), True
    except pickle.UnpicklingError:  # objects of the user's, such as a model's hyperparameters
        return torch.load(path, map_location="cpu", weights_only=False, mmap=True), False
