"""The model of a trial, with the weights that its training came to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightningtune.contract import Values
from lightningtune.errors import TrialError
from lightningtune.training.build import Blueprint
from lightningtune.training.checkpoint_file import STATE, read_checkpoint, training_of
from lightningtune.training.messages import one_line
from lightningtune.training.quiet import own_interrupts, quiet_lightning
from lightningtune.training.random_state import own_random_state


def trained_model(
    blueprint: Blueprint, config: Mapping[str, Any], checkpoint: Path, score: Values | None
) -> LightningModule:
    """Build the model of a trial and load a checkpoint into it, as ``load_from_checkpoint`` does.

    Where the weights do not fit the model as it is built, ``setup`` may make some of its layers, or
    ``configure_model`` may need the trainer. Then Lightning sets the model up with the trial's data, and the weights
    are loaded after that.

    Args:
        blueprint: builds the model.
        config: the trial's, whose checkpoint it must be.
        checkpoint: a file from the study's own folder: it is unpickled where it does not load with weights only.
        score: the values that its validation must have had; None for any.

    Raises:
        TrialError: when the file is torn, or of another training or validation; or when ``setup`` raises.
        RuntimeError: when the weights do not fit the model.
    """
    state, _ = read_checkpoint(checkpoint)
    if not _is_of(state.get(STATE), training_of(config), score):
        raise TrialError(f"The checkpoint '{checkpoint}' is not of the validation that gave the trial its score.")
    model = blueprint.build_model(config)
    try:
        model.configure_model()
        left = _load(model, state)
    except Exception as error:  # hooks of the user's may raise anything
        if not _is_set_up_late(model):
            raise
        mismatch = one_line(error)
    else:
        if not left or not _is_set_up_late(model):
            return model
        mismatch = f"{type(model).__name__} has no '{left[0]}'"
    model = _set_up(blueprint, config, f"The weights in '{checkpoint}' need setup() of the model: {mismatch}")
    _load(model, state)
    return model


def _set_up(blueprint: Blueprint, config: Mapping[str, Any], why: str) -> LightningModule:
    try:
        with own_random_state(), quiet_lightning(), own_interrupts():
            return blueprint.set_up_model(config)
    except Exception as error:  # of the user's hooks: the data may not be there any more
        raise TrialError(
            f"{why}. It was called with the data of the trial, as a fit does, and raised {type(error).__name__}: "
            f"{one_line(error)}. Make the data available, or make the layers in __init__."
        ) from error


def _is_set_up_late(model: LightningModule) -> bool:
    return is_overridden("setup", model) or is_overridden("configure_model", model)


def _load(model: LightningModule, state: Mapping[str, Any]) -> list[str]:
    """Load the weights, and return the names of those that a model with ``strict_loading=False`` has no place for."""
    model.on_load_checkpoint(dict(state))
    result = model.load_state_dict(state["state_dict"], strict=model.strict_loading)
    return list(getattr(result, "unexpected_keys", ()))


def _is_of(kept: Any, training: str, score: Values | None) -> bool:
    """Whether what stands in a checkpoint of its trial is of a training, and of a validation of these values."""
    if not isinstance(kept, Mapping) or kept.get("training") != training:
        return False
    # a database may round
    return score is None or all(map(math.isclose, kept["history"][-1], score))
