"""Every trial starts from the weights that its model is made with, not from those of an earlier trial."""

from __future__ import annotations

import weakref

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightningtune.errors import SharedWeightsError

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
        """Look at the parameters, once all layers are made and a checkpoint is loaded.

        Raises:
            SharedWeightsError: naming a parameter that an earlier trial has trained.
        """
        versions = _versions(pl_module)
        for name, parameter in pl_module.named_parameters():
            known, version = _trained.get(id(parameter), (None, -1))
            if known is not None and known() is parameter and versions.get(name) == version:
                raise SharedWeightsError(
                    f"'{name}' of the model is a parameter that an earlier trial has already trained: both models hold "
                    "the same network. Make it in the model's __init__, or copy it there with copy.deepcopy(); or set "
                    "isolate=True, where each trial starts from the weights that the script has made."
                )
        self._model, self._before = pl_module, versions

    def remember(self) -> None:
        """Note the parameters that the fit has changed."""
        for key in [key for key, (known, _) in _trained.items() if known() is None]:
            del _trained[key]
        after = {} if self._model is None else _versions(self._model)
        for name, parameter in () if self._model is None else self._model.named_parameters():
            if name in after and after[name] != self._before.get(name):
                _trained[id(parameter)] = weakref.ref(parameter), after[name]
        self._model = None


def _versions(model: nn.Module) -> dict[str, int]:
    """Return how often each parameter has been changed in place.

    torch counts that in ``Tensor._version``; its notes on autograd describe the counter, and there is no public name
    for it. Comparing the values themselves would take a copy of all weights. A lazy parameter has no values yet, and a
    tensor of the inference mode has no counter.
    """
    named = model.named_parameters()
    return {name: p._version for name, p in named if not is_lazy(p) and not p.is_inference()}
