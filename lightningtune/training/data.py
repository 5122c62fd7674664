"""Data once: what ``prepare_data`` and ``setup`` do need not be done again for each trial."""

from __future__ import annotations

import functools
import hashlib
import inspect
import pickle
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from torch.utils.data import DataLoader

from lightningtune.config.importing import find_class
from lightningtune.errors import ConfigurationError
from lightningtune.training.data_seed import HOOKS
from lightningtune.training.shareable import held, refuse_unshareable

_LOADING = frozenset(inspect.signature(DataLoader).parameters) - {"dataset"}
"""The parameters of a DataLoader: they say how data is loaded, and not which."""
_LARGE = 64 * 1024**2
"""Bytes of a tensor that is not looked at to see whether it changes."""


def which_data(section: Mapping[str, Any] | None) -> str:
    """Name the data that a config's ``data`` section stands for, however it is loaded.

    Example:
        >>> which_data({"root": "data", "batch_size": 32}) == which_data({"root": "data", "batch_size": 64})
        True
    """
    arguments = dict(section or {})
    arguments.update(arguments.pop("init_args", None) or {})
    return repr(sorted((name, value) for name, value in arguments.items() if name not in _LOADING))


def has_preparation(target: Callable[..., Any] | None, section: Mapping[str, Any] | None) -> bool:
    """Whether a datamodule has a ``prepare_data`` of its own, as far as that can be told without building it."""
    if section and "class_path" in section:
        target = find_class(str(section["class_path"]))
    while isinstance(target, functools.partial):
        target = target.func
    is_class = isinstance(target, type) and issubclass(target, LightningDataModule)
    return is_class and target.prepare_data is not LightningDataModule.prepare_data  # type: ignore[union-attr]


def prepare(trainer: Trainer, model: LightningModule, data: LightningDataModule, folder: Path) -> bool:
    """Call ``prepare_data`` as a fit does.

    Args:
        trainer: of the fit.
        model: of the fit.
        data: the datamodule.
        folder: the trial's own.

    Returns:
        Whether it is certain that this has done it for every datamodule of the same data: nothing was left on the
        datamodule, inside an object that it holds, or in the trial's folder. ``setup`` may need what was left,
        although Lightning advises against it.
    """
    _attach(trainer, model, data)
    before, files = _digests(data), sorted(folder.rglob("*"))
    data.prepare_data()
    after = _digests(data)
    return before == after and None not in after.values() and files == sorted(folder.rglob("*"))


def skip_preparation(data: LightningDataModule) -> None:
    """Have Lightning find the data prepared."""
    data.prepare_data = _done  # type: ignore[method-assign]


@dataclass(frozen=True)
class Loaded:
    """What all trials share.

    Attributes:
        values: attributes of the datamodule. Of a dictionary that was there before, what was added to it.
        generators: random generators that the values hold, with their states.
    """

    values: Mapping[str, Any]
    generators: Sequence[tuple[Any, Any]] = ()


def load(trainer: Trainer, model: LightningModule | None, data: LightningDataModule) -> Loaded:
    """Prepare and set up a datamodule for training as a fit does, and return what that has left on it.

    Raises:
        ConfigurationError: when trials cannot share it.
    """
    _attach(trainer, model, data)
    before = {name: (value, _items(value)) for name, value in _attributes(data).items()}
    digests = _digests(data)
    data.prepare_data()
    if trainer.world_size > 1:
        trainer.__class__ = type(type(trainer).__name__, (_OfAllRanks, type(trainer)), {})
    data.setup(stage=TrainerFn.FITTING)
    data.trainer = None  # it is no trial's
    values: dict[str, Any] = {}
    for name, value in _attributes(data).items():
        was, items = before.get(name, (before, {}))
        if value is not was:
            values[name] = value
        elif isinstance(value, dict):  # such as hparams, of which trials have their own values
            added = {key: item for key, item in value.items() if items.get(key) != _digest(item)}
            values |= {name: _Added(added)} if added else {}
        elif (digest := _digest(value)) != digests[name] or (digest is None and name not in _LOADING):
            values[name] = value
    refuse_unshareable(values)
    generators = [(found, state) for _, found in held(values) if (state := _state_of(found)) is not None]
    return Loaded(values, generators)


def give(data: LightningDataModule, loaded: Loaded) -> None:
    """Have a datamodule take what another one of the same data has loaded."""
    for generator, state in loaded.generators:  # the trial before may have drawn from it
        _set_state(generator, state)
    own = vars(data)
    for name, value in loaded.values.items():
        if isinstance(value, _Added) and isinstance(own.get(name), dict):
            own[name].update(value)
        else:
            own[name] = value
    skip_preparation(data)
    data.setup = _done  # type: ignore[method-assign]


def refuse_other_data(which: str, section: Mapping[str, Any] | None) -> None:
    """Refuse a trial whose data is not that which all trials share.

    Raises:
        ConfigurationError: saying what may vary.
    """
    if which_data(section) != which:
        raise ConfigurationError(
            f"share_data loads the data once, so it cannot vary from trial to trial: a trial asks for data={section}. "
            "Parameters that a DataLoader has, such as batch_size, may vary; otherwise leave share_data out."
        )


class _Added(dict[Any, Any]):
    """Items that were added to a dictionary."""


class _OfAllRanks:
    """A Trainer that is asked for its rank where the data is that of all ranks."""

    @property
    def global_rank(self) -> int:
        raise ConfigurationError(
            "share_data loads the data once for all ranks, but setup asks the Trainer for its rank. Divide the data "
            "among ranks in the dataloaders, as Lightning does by itself, or leave share_data out."
        )

    local_rank = global_rank


def _attach(trainer: Trainer, model: LightningModule | None, data: LightningDataModule) -> None:
    """Introduce a Trainer, a model and a datamodule to each other, as ``Trainer.fit`` does before its hooks."""
    if model is not None:
        trainer.strategy.connect(model)
        model.trainer = trainer
    trainer.datamodule, data.trainer = data, trainer  # type: ignore[attr-defined]
    trainer.state.fn, trainer.state.status, trainer.training = TrainerFn.FITTING, TrainerStatus.RUNNING, True


def _attributes(data: LightningDataModule) -> dict[str, Any]:
    """Return the state of a datamodule: what is neither its Trainer nor one of its hooks."""
    return {name: value for name, value in vars(data).items() if name not in ("trainer", *HOOKS)}


def _digests(data: LightningDataModule) -> dict[str, bytes | None]:
    return {name: _digest(value) for name, value in _attributes(data).items()}


def _items(value: Any) -> dict[Any, bytes | None]:
    return {key: _digest(item) for key, item in value.items()} if isinstance(value, dict) else {}


def _digest(value: Any) -> bytes | None:
    """Return what changes with an object, or with anything inside it; None where that cannot be told."""
    found = hashlib.blake2b()
    try:
        _Picture(_Sink(found.update)).dump(value)
    except Exception:  # what cannot be pickled says so in any way it likes
        return None
    return found.digest()


class _Sink:
    """A file that passes on what is written."""

    def __init__(self, write: Callable[[Any], None]) -> None:
        self.write = write


class _Picture(pickle.Pickler):
    """Pickles state; classes, modules and functions, which may not be importable, stand for themselves."""

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, (torch.Tensor, np.ndarray)) and value.nbytes > _LARGE:
            raise pickle.PicklingError
        is_closure = isinstance(value, FunctionType) and value.__closure__
        return id(value) if isinstance(value, (type, ModuleType, FunctionType)) and not is_closure else None


def _state_of(generator: Any) -> Any:
    """Return the state of a random generator; None for what is none."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state()
    return generator.getstate() if isinstance(generator, random.Random) else None


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)


def _done(*args: Any, **kwargs: Any) -> None:
    """What this hook does has been done."""
