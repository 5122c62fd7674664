"""Work on data that is done once for all trials: ``prepare_data``, and with ``share_data`` also ``setup``.

What trials share must not hold a position in a file, a lock or a connection: that is refused.
"""

from __future__ import annotations

import contextlib
import copyreg
import functools
import hashlib
import inspect
import io
import itertools
import logging
import mmap
import pickle
import random
import sys
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from torch.utils.data import DataLoader

from lightningtune.config.importing import find_class
from lightningtune.errors import ConfigurationError
from lightningtune.training.data import DATA_HOOKS

_LOADING = frozenset(inspect.signature(DataLoader).parameters) - {"dataset"}
"""The parameters of a DataLoader: they say how data is loaded, and not which."""
_LARGE = 64 * 1024**2
"""Bytes of a tensor above which it is not compared, to see whether it has changed."""
_MAX_ITEMS = 10_000
"""Items of one container that are searched."""
_MAX_OBJECTS = 500_000
"""Objects that are searched in all."""


def which_data(section: Mapping[str, Any] | None) -> str:
    """Name the data that a config's ``data`` section stands for, however it is loaded.

    Example:
        >>> which_data({"root": "data", "batch_size": 32}) == which_data({"root": "data", "batch_size": 64})
        True
    """
    arguments = dict(section or {})
    arguments.update(arguments.pop("init_args", None) or {})
    return repr(sorted((name, value) for name, value in arguments.items() if name not in _LOADING))


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


def has_preparation(target: Callable[..., Any] | None, section: Mapping[str, Any] | None) -> bool:
    """Whether a datamodule has a ``prepare_data`` of its own, as far as that can be told without building it."""
    if section and "class_path" in section:
        target = find_class(str(section["class_path"]))
    while isinstance(target, functools.partial):
        target = target.func
    is_class = isinstance(target, type) and issubclass(target, LightningDataModule)
    return is_class and target.prepare_data is not LightningDataModule.prepare_data  # type: ignore[union-attr]


def prepare(trainer: Trainer, model: LightningModule, data: LightningDataModule, folder: Path) -> bool:
    """Call ``prepare_data`` as a fit does, and return whether this has certainly done it for all trials.

    That is so if nothing was left on the datamodule, inside an object that it holds, or in the trial's folder.
    ``setup`` may need what was left, although Lightning advises against it.
    """
    _attach(trainer, model, data)
    before, files = _digest_state(data), sorted(folder.rglob("*"))
    data.prepare_data()
    after = _digest_state(data)
    return before == after and None not in after.values() and files == sorted(folder.rglob("*"))


def skip_preparation(data: LightningDataModule) -> None:
    """Have Lightning find the data prepared."""
    data.prepare_data = _do_nothing  # type: ignore[method-assign]


@dataclass(frozen=True)
class SharedData:
    """What ``prepare_data`` and ``setup`` have left on a datamodule."""

    values: Mapping[str, Any]
    """Attributes that they have set."""
    added: Mapping[str, Mapping[Any, Any]]
    """Items that they have added to the dictionaries in attributes, such as ``hparams``: a trial has others, too."""
    generators: Sequence[tuple[Any, Any]]
    """Random generators that these hold, with their states."""


def load(trainer: Trainer, model: LightningModule | None, data: LightningDataModule) -> SharedData:
    """Prepare and set up a datamodule for training as a fit does, and return what that has left on it.

    Raises:
        ConfigurationError: when trials cannot share it.
    """
    _attach(trainer, model, data)
    before = _get_state(data)
    items = {name: _digest_items(value) for name, value in before.items() if isinstance(value, dict)}
    digests = _digest_state(data)
    data.prepare_data()
    if trainer.world_size > 1:
        trainer.__class__ = type(type(trainer).__name__, (_WithoutRank, type(trainer)), {})
    data.setup(stage=TrainerFn.FITTING)
    data.trainer = None
    values: dict[str, Any] = {}
    added: dict[str, dict[Any, Any]] = {}
    for name, value in _get_state(data).items():
        if name not in before or value is not before[name]:
            values[name] = value
        elif isinstance(value, dict):
            new = {key: item for key, item in value.items() if items[name].get(key) != _digest(item)}
            added |= {name: new} if new else {}
        elif (digest := _digest(value)) != digests[name] or (digest is None and name not in _LOADING):
            values[name] = value
    refuse_unshareable({**values, **added})
    found = [value for _, value in iterate_held({**values, **added})]
    return SharedData(values, added, [(one, state) for one in found if (state := _get_random_state(one)) is not None])


def give(data: LightningDataModule, shared: SharedData) -> None:
    """Have a datamodule take what another one of the same data has loaded."""
    for generator, state in shared.generators:  # the trial before may have drawn from it
        _set_random_state(generator, state)
    own = vars(data)
    own.update(shared.values)
    for name, items in shared.added.items():
        if isinstance(own.get(name), dict):
            own[name].update(items)
        else:
            own[name] = dict(items)
    skip_preparation(data)
    data.setup = _do_nothing  # type: ignore[method-assign]


class _WithoutRank:
    """A Trainer that refuses to tell its rank, since the data that is loaded is that of all ranks."""

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


def _get_state(data: LightningDataModule) -> dict[str, Any]:
    """Return the attributes of a datamodule that are neither its Trainer nor one of its hooks."""
    return {name: value for name, value in vars(data).items() if name not in ("trainer", *DATA_HOOKS)}


def _do_nothing(*args: Any, **kwargs: Any) -> None:
    """Replace a hook whose work is done."""


# Whether an object has changed


def _digest_state(data: LightningDataModule) -> dict[str, bytes | None]:
    return _digest_items(_get_state(data))


def _digest_items(values: Mapping[Any, Any]) -> dict[Any, bytes | None]:
    return {key: _digest(value) for key, value in values.items()}


def _digest(value: Any) -> bytes | None:
    """Return what changes with an object, or with anything inside it; None where that cannot be told."""
    digest = hashlib.blake2b()
    try:
        _StatePickler(types.SimpleNamespace(write=digest.update)).dump(value)
    except Exception:  # objects that cannot be pickled raise anything
        return None
    return digest.digest()


class _StatePickler(pickle.Pickler):
    """Pickles state; of classes, modules and functions, which may not be importable, only the identity."""

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, (torch.Tensor, np.ndarray)) and value.nbytes > _LARGE:
            raise pickle.PicklingError
        is_closure = isinstance(value, types.FunctionType) and value.__closure__
        is_code = isinstance(value, (type, types.ModuleType, types.FunctionType)) and not is_closure
        return id(value) if is_code else None


# What trials can share

_SAFE = (
    *(type(None), bool, int, float, complex, str, bytes, bytearray, range, np.generic),
    *(torch.Tensor, torch.Generator, random.Random, np.random.Generator, np.random.RandomState),
    *(type, types.ModuleType, types.BuiltinFunctionType, logging.Logger, weakref.ReferenceType),
)
"""What trials can share, and is not searched."""
_SEARCHED: tuple[type, ...] = (
    *(dict, list, tuple, set, frozenset, deque, np.ndarray, memoryview, functools.partial, slice),
    *(types.FunctionType, types.MethodType, types.MappingProxyType, types.CodeType, type({}.keys()), type({}.values())),
)
"""Besides objects with attributes: what trials can share if they can share what it holds."""
_ADVICE = (
    "Open or make it where it is used: in train_dataloader and val_dataloader, or in the dataset when its first item "
    "is read. Or leave share_data out."
)


def refuse_unshareable(values: Mapping[str, Any]) -> None:
    """Refuse attributes of a datamodule that all trials cannot share, whatever they hold inside.

    Raises:
        ConfigurationError: naming the attribute that holds what cannot be shared, and what to do.
    """
    for path, value in iterate_held(values):
        what = _why_unshareable(value)
        if what is not None:
            raise ConfigurationError(f"share_data shares what the datamodule loads, but {path} is {what}. {_ADVICE}")


def iterate_held(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every object that attributes of a datamodule hold, with its path, the nearest first, each once.

    Example:
        >>> [path for path, value in iterate_held({"rows": [{"a": 1}]})]
        ['datamodule.rows', 'datamodule.rows[0]', "datamodule.rows[0]['a']"]
    """
    waiting = deque((f"datamodule.{name}", value) for name, value in values.items())
    seen: dict[int, Any] = {}  # holds the objects, so that no other one can get the id of one
    while waiting and len(seen) < _MAX_OBJECTS:
        path, value = waiting.popleft()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        yield path, value
        if not isinstance(value, _SAFE):
            waiting.extend(itertools.islice(_iterate_inside(path, value), _MAX_ITEMS))


def _iterate_inside(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, np.memmap) or (isinstance(value, io.IOBase) and _is_open_file(value)):
        return  # `_why_unshareable` knows these as a whole
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            yield from ((f"{path}.flat[{i}]", item) for i, item in enumerate(value.flat))
        if value.base is not None:
            yield f"{path}.base", value.base
        return
    if isinstance(value, memoryview):
        yield f"{path}.obj", value.obj
        return
    if isinstance(value, types.FunctionType):
        names = value.__code__.co_freevars
        for name, cell in zip(names, value.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # the cell is empty
                yield f"'{name}' in {path}", cell.cell_contents
        yield from ((f"a default of {path}", default) for default in value.__defaults__ or ())
        return
    yield from ((f"{path}.{name}", item) for name, item in _iterate_attributes(value))
    if isinstance(value, dict):
        yield from ((f"{path}[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, (list, tuple, deque)):
        yield from ((f"{path}[{i}]", item) for i, item in enumerate(value))
    elif isinstance(value, Set):
        yield from ((f"an item of {path}", item) for item in value)


def _iterate_attributes(value: Any) -> Iterator[tuple[str, Any]]:
    yield from getattr(value, "__dict__", {}).items()
    for kind in type(value).__mro__:
        for name, member in vars(kind).items():
            if isinstance(member, types.MemberDescriptorType):  # a slot, or an attribute of an object of C code
                with contextlib.suppress(AttributeError):  # it has not been set
                    yield name, member.__get__(value)


def _why_unshareable(value: Any) -> str | None:
    """Say what an object is that trials cannot share; None where they can."""
    if isinstance(value, _SAFE):
        return None
    name = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    if isinstance(value, io.IOBase):
        if not _is_open_file(value) or value in (sys.stdin, sys.stdout, sys.stderr):
            return None
        given = getattr(value, "name", None)
        where = f" of '{given}'" if isinstance(given, str) else ""
        return f"an open file{where}: all trials would move one position in it"
    if isinstance(value, np.memmap):
        is_private = value.mode in ("r", "c")
        return None if is_private else f"a memory map with mode='{value.mode}': trials would write to one file, use 'r'"
    if isinstance(value, mmap.mmap):
        return None if _is_read_only(value) else "a memory map that can be written to: use mmap.ACCESS_READ"
    has_attributes = hasattr(value, "__dict__")
    if isinstance(value, Iterator) and not has_attributes:
        return f"an iterator ({name}): what one trial takes from it, another does not get"
    if isinstance(value, Trainer):
        return "a Trainer, and each trial has its own"
    if has_attributes or isinstance(value, _SEARCHED) or type(value) in copyreg.dispatch_table:
        return None
    try:
        value.__reduce_ex__(4)
    except Exception:  # objects that cannot be pickled raise anything
        return f"a {name}, which cannot be pickled and so belongs to one process, as locks and connections do"
    return None


def _is_open_file(file: io.IOBase) -> bool:
    """Whether it is a file of the system, and neither closed nor in memory."""
    try:
        return not file.closed and file.fileno() is not None
    except (OSError, ValueError, AttributeError):
        return False


def _is_read_only(mapped: mmap.mmap) -> bool:
    try:
        with memoryview(mapped) as view:
            return view.readonly
    except ValueError:  # it is closed
        return True


# The random generators that shared data holds


def _get_random_state(generator: Any) -> Any:
    """Return the state of a random generator; None for what is none."""
    if isinstance(generator, (torch.Generator, np.random.RandomState)):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.getstate() if isinstance(generator, random.Random) else None


def _set_random_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)
