"""Data once: what ``prepare_data`` and ``setup`` do need not be done again for each trial."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from lightningtune.errors import ConfigurationError
from lightningtune.signatures import import_class

_LOADING = frozenset(inspect.signature(DataLoader).parameters) - {"dataset"}
"""The parameters of a DataLoader: they say how data is loaded, and not which."""


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
        target = import_class(str(section["class_path"]))
    while isinstance(target, functools.partial):
        target = target.func
    is_class = isinstance(target, type) and issubclass(target, LightningDataModule)
    return is_class and target.prepare_data is not LightningDataModule.prepare_data  # type: ignore[union-attr]


def prepare(data: LightningDataModule) -> bool:
    """Call ``prepare_data``.

    Returns:
        Whether that has done it for every datamodule of the same data. It has not where something was kept on the
        datamodule, which ``setup`` may count on, although Lightning advises against it.
    """
    before = _state(data)
    data.prepare_data()
    return not _changed(data, before)


def skip_preparation(data: LightningDataModule) -> None:
    """Have Lightning find the data prepared."""
    data.prepare_data = _done  # type: ignore[method-assign]


def load(data: LightningDataModule) -> Mapping[str, Any]:
    """Prepare and set up a datamodule for training, and return what that has set on it."""
    before = _state(data)
    data.prepare_data()
    data.setup("fit")
    return _changed(data, before)


def give(data: LightningDataModule, loaded: Mapping[str, Any]) -> None:
    """Have a datamodule take what another one of the same data has loaded."""
    vars(data).update(loaded)
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


def _state(data: LightningDataModule) -> dict[str, Any]:
    """Return what tells whether an attribute has been set, or a container filled."""
    return {name: (value, _contents(value)) for name, value in vars(data).items()}


def _contents(value: Any) -> list[Any]:
    items = [*value.items()] if isinstance(value, dict) else [*value] if isinstance(value, (list, set)) else []
    return [tuple(map(id, item)) if isinstance(item, tuple) else id(item) for item in items]


def _changed(data: LightningDataModule, before: Mapping[str, Any]) -> dict[str, Any]:
    def is_as_before(name: str, value: Any) -> bool:
        return name in before and before[name][0] is value and before[name][1] == _contents(value)

    return {name: value for name, value in vars(data).items() if not is_as_before(name, value)}


def _done(*args: Any, **kwargs: Any) -> None:
    """What this hook does has been done."""
