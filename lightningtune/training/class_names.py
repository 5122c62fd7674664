"""The classes that a config names for a Trainer's loggers and callbacks, and the arguments that it gives them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.loggers import Logger

from lightningtune.config.base import NOT_HYDRA
from lightningtune.config.importing import classes_by_name, find_class
from lightningtune.config.overrides import Schema
from lightningtune.config.signatures import signature_of
from lightningtune.errors import InvalidConfigError, did_you_mean
from lightningtune.training.messages import one_line

NAMED: tuple[type, ...] = (
    LightningModule,
    LightningDataModule,
    Callback,
    Logger,
    torch.optim.Optimizer,
    torch.optim.lr_scheduler.LRScheduler,
)
"""Classes that a config may name without their module are of these."""


class LightningSchema(Schema):
    """What each section of a config builds, in which classes may be named without their module."""

    def class_at(self, class_path: str) -> Callable[..., Any] | None:
        """Return the class that a ``class_path`` names, where that can be told."""
        return find_class(class_path, *NAMED)


def blocks_of(setting: Any) -> list[Any]:
    """Return what a config has for a setting that takes one thing or several."""
    return setting if isinstance(setting, list) else [setting]


def check_classes(trainer: Mapping[str, Any]) -> None:
    """Check what a Trainer's section names for its loggers and callbacks; what jsonargparse says of it fills a page.

    Args:
        trainer: that section of a config.

    Raises:
        InvalidConfigError: naming the first that is wrong, and the nearest that is right.

    Example:
        >>> check_classes({"logger": ["CSVLogger", "WandbLoger"]})
        Traceback (most recent call last):
        ...
        lightningtune.errors.InvalidConfigError: trainer.logger.1: there is no 'WandbLoger'. Did you mean 'WandbLogger'?
    """
    bases: dict[str, type] = {"logger": Logger, "callbacks": Callback}
    for setting, base in bases.items():
        given = trainer.get(setting)
        for i, block in enumerate(blocks_of(given)):
            _check_block(f"trainer.{setting}.{i}" if isinstance(given, list) else f"trainer.{setting}", block, base)


def _check_block(path: str, block: Any, base: type) -> None:
    full = block if isinstance(block, Mapping) else {"class_path": block}
    name = full.get("class_path")
    if full and not full.keys() & {"class_path", "init_args"}:
        name = next(iter(full))
        near = did_you_mean(name, ["class_path", "init_args"])
        form = f" Write it as {{'class_path': '{name}', 'init_args': {{...}}}}."
        if any("_target_" in each for each in (full, *full.values()) if isinstance(each, Mapping)):
            form = f" {NOT_HYDRA}"
        raise InvalidConfigError(f"{path} names no class_path.{near or form}")
    if not isinstance(name, str) or (block is name and Path(name).is_file()):
        return
    target = find_class(name, base)
    if target is None:
        raise _unknown(path, name, base)
    signature = signature_of(target)
    given = full.get("init_args")
    for argument in given if isinstance(given, Mapping) else {}:
        if not signature.accepts(argument):
            known = [f"{path}.init_args.{known}" for known in signature.defaults]
            place = f"{path}.init_args.{argument}"
            takes = f" {target.__name__} takes: {', '.join(signature.defaults) or 'nothing'}."
            raise InvalidConfigError(f"'{place}' leads nowhere in the config.{did_you_mean(place, known) or takes}")


def _unknown(path: str, name: str, base: type) -> InvalidConfigError:
    """Return the error of a name that leads to nothing."""
    module, _, leaf = name.rpartition(".")
    if not module:
        near = did_you_mean(name, sorted(classes_by_name(base)))
        own = f" A {base.__name__} of your own is named with its module, as 'package.{name}'."
        return InvalidConfigError(f"{path}: there is no '{name}'.{near or own}")
    try:
        near = did_you_mean(leaf, vars(importlib.import_module(module)))
    except Exception as error:
        return InvalidConfigError(f"{path}: '{name}' cannot be imported: {one_line(error)}")
    return InvalidConfigError(f"{path}: there is no '{name}'.{near}")
