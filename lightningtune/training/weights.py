"""The weights of a trial's model: those that it starts from, and those that its training came to."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightningtune.contract import Values
from lightningtune.errors import SharedWeightsError, TrialError
from lightningtune.training.build import Blueprint
from lightningtune.training.messages import one_line
from lightningtune.training.process_state import own_process_state
from lightningtune.training.resumption import STATE, digest_training, read_checkpoint

_trained: dict[int, tuple[weakref.ref[Tensor], int]] = {}
"""Parameters that trials of this process have changed, by `id`, with the version that each had afterwards."""


class InitialWeights(Callback):
    """Refuses a model that shares parameters with the model of an earlier trial in this process, which trained them.

    That happens where a script makes a network once, for example a pretrained backbone, and each model takes it: from
    the second trial on, the scores would be those of a longer training. A parameter that no training has changed, such
    as a frozen one, may be shared, and so may one whose values were set again in the meantime.
    """

    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        self._model: nn.Module | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the parameters, once all layers are made and a checkpoint is loaded.

        Raises:
            SharedWeightsError: naming a parameter that an earlier trial has trained.
        """
        self._model, self._before = pl_module, _count_changes(pl_module)
        for name, parameter in pl_module.named_parameters():
            known, version = _trained.get(id(parameter), (None, -1))
            if known is not None and known() is parameter and self._before.get(name) == version:
                raise SharedWeightsError(
                    f"'{name}' of the model is a parameter that an earlier trial has already trained: both models hold "
                    "the same network. Make it in the model's __init__, or copy it there with copy.deepcopy(); or set "
                    "isolate=True, where each trial starts from the weights that the script has made."
                )

    def remember(self) -> None:
        """Note the parameters that the fit has changed."""
        for key in [key for key, (known, _) in _trained.items() if known() is None]:
            del _trained[key]
        if self._model is not None:
            after = _count_changes(self._model)
            for name, parameter in self._model.named_parameters():
                if name in after and after[name] != self._before.get(name):
                    _trained[id(parameter)] = weakref.ref(parameter), after[name]
        self._model = None


def _count_changes(model: nn.Module) -> dict[str, int]:
    """Return how often each parameter has been changed in place.

    torch counts that in ``Tensor._version``; its notes on autograd describe the counter, and there is no public name
    for it. Comparing the values themselves would take a copy of all weights. A lazy parameter has no values yet, and a
    tensor of the inference mode has no counter.
    """
    named = model.named_parameters()
    return {name: p._version for name, p in named if not is_lazy(p) and not p.is_inference()}


def trained_model(
    blueprint: Blueprint, config: Mapping[str, Any], checkpoint: Path, score: Values | None
) -> LightningModule:
    """Build the model of a trial and load a checkpoint into it, as ``load_from_checkpoint`` does.

    Where the weights do not fit the model as it is built, ``setup`` may make some of its layers, or
    ``configure_model`` may need the trainer. Then Lightning sets the model up with the trial's data, and the weights
    are loaded after that.

    The checkpoint must be the trial's, of a validation with the values of ``score``; None for any.

    Raises:
        TrialError: when the file is torn, or of another training or validation; or when ``setup`` raises.
        RuntimeError: when the weights do not fit the model.
    """
    content, _ = read_checkpoint(checkpoint)
    if not _is_of(content.get(STATE), digest_training(config), score):
        raise TrialError(f"The checkpoint '{checkpoint}' is not of the validation that gave the trial its score.")
    model = blueprint.build_model(config)
    may_grow = is_overridden("setup", model) or is_overridden("configure_model", model)
    try:
        model.configure_model()
        left = _load(model, content)
    except Exception as error:  # hooks of the user's may raise anything
        if not may_grow:
            raise
        mismatch = one_line(error)
    else:
        if not left or not may_grow:
            return model
        mismatch = f"{type(model).__name__} has no '{left[0]}'"
    try:
        with own_process_state():
            model = blueprint.set_up_model(config)
    except Exception as error:  # of the user's hooks: the data may not be there any more
        raise TrialError(
            f"The weights in '{checkpoint}' need setup() of the model: {mismatch}. It was called with the data of the "
            f"trial, as a fit does, and raised {type(error).__name__}: {one_line(error)}. Make the data available, or "
            "make the layers in __init__."
        ) from error
    _load(model, content)
    return model


def _load(model: LightningModule, content: Mapping[str, Any]) -> list[str]:
    """Load the weights, and return the names of those that a model with ``strict_loading=False`` has no place for."""
    model.on_load_checkpoint(dict(content))
    result = model.load_state_dict(content["state_dict"], strict=model.strict_loading)
    return list(getattr(result, "unexpected_keys", ()))


def _is_of(state: Any, training: str, score: Values | None) -> bool:
    """Whether the state in a checkpoint is of a training, and of a validation with these values."""
    if not isinstance(state, Mapping) or state.get("training") != training:
        return False
    return score is None or all(map(math.isclose, state["history"][-1], score))  # a database may round
