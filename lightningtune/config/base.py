"""The base config: read, its sections checked, before anything is merged into it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightningtune.config.importing import find_class
from lightningtune.config.overrides import SECTIONS, Schema
from lightningtune.config.values import plain
from lightningtune.errors import InvalidConfigError, did_you_mean
from lightningtune.files import expand_home, read_mapping

NOT_HYDRA = (
    "'_target_' is Hydra's, and is not read here: write a model, data, callback or logger as class_path and init_args, "
    "and a trainer as its arguments alone."
)
"""What to do where a config names a class in Hydra's way."""


def load_base_config(source: str | os.PathLike[str] | Mapping[str, Any] | None) -> dict[str, Any]:
    """Read a base config from a YAML or JSON file, or copy it from a mapping.

    Keys of a LightningCLI config that hold null are left out.

    Raises:
        InvalidConfigError: when it is neither, or has a section of another name.

    Example:
        >>> load_base_config({"trainer": {"max_epochs": 3}, "ckpt_path": None})
        {'trainer': {'max_epochs': 3}}
    """
    if source is None:
        return {}
    config = {name: value for name, value in read_config(source)[0].items() if value is not None}
    allowed = (*SECTIONS, "seed_everything")
    for name, value in config.items():
        if name not in allowed:
            hint = did_you_mean(str(name), allowed)
            raise InvalidConfigError(f"The config has no section '{name}'.{hint} Allowed: {', '.join(allowed)}.")
        if name in SECTIONS and not isinstance(value, Mapping):
            raise InvalidConfigError(f"The config's '{name}' must be a mapping, but is {value!r}.")
        if name in SECTIONS and "_target_" in value:
            raise InvalidConfigError(f"{name}: {NOT_HYDRA}")
    seed = config.get("seed_everything", True)
    if not isinstance(seed, int) or seed < 0:
        raise InvalidConfigError(f"seed_everything must be true, false or an integer from 0, but got {seed!r}.")
    return config


def read_config(source: Any) -> tuple[dict[str, Any], Path]:
    """Read what a user gives as a base config, and say in which folder the files lie that it may name.

    Raises:
        InvalidConfigError: when it is neither a file nor a mapping, naming a value that no config can hold.
    """
    if isinstance(source, (str, os.PathLike)):
        return _plain(read_mapping(source)), expand_home(source).parent
    if not isinstance(source, (Mapping, argparse.Namespace)):
        raise InvalidConfigError(f"base_config must be a file's path or a mapping, but got {source!r}.")
    return _plain(source), Path()


def _plain(given: Any) -> dict[str, Any]:
    try:
        config: dict[str, Any] = plain(given)
    except TypeError as error:
        hint = " Pass objects as callbacks=[...]." if str(error).startswith("trainer.callbacks") else ""
        raise InvalidConfigError(f"{error}.{hint}") from error
    return config


def check_names(schema: Schema, config: Mapping[str, Any]) -> None:
    """Check every name in a config that can be checked, down to nested ``class_path`` blocks.

    Raises:
        InvalidConfigError: naming the first that leads nowhere, and the nearest that leads somewhere.
    """
    for section in schema.sections:
        _check_block(schema, config, section, config.get(section, {}), owned=True)


def _check_block(schema: Schema, config: Mapping[str, Any], path: str, node: Any, owned: bool = False) -> None:
    if isinstance(node, list):
        for i, item in enumerate(node):
            _check_block(schema, config, f"{path}.{i}", item)
    elif isinstance(node, Mapping):
        is_block = "class_path" in node
        inner = f"{path}.init_args" if is_block else path
        if is_block:
            _check_class_path(path, str(node["class_path"]))
        if is_block and owned:
            _check_beside(path, node)
        given = (node.get("init_args") or {}) if is_block else node
        if not isinstance(given, Mapping):
            raise InvalidConfigError(f"{inner} must be a mapping of arguments, but is {given!r}.")
        for name, value in given.items():
            if owned or is_block:
                schema.locate(config, f"{inner}.{name}")
            _check_block(schema, config, f"{inner}.{name}", value)


def _check_beside(path: str, block: Mapping[str, Any]) -> None:
    allowed = ("class_path", "init_args", "dict_kwargs")  # as jsonargparse has it
    for name in block.keys() - {*allowed}:
        near = did_you_mean(name, allowed) or f" Arguments belong into '{path}.init_args'."
        raise InvalidConfigError(f"'{path}.{name}' may not stand beside class_path.{near}")


def _check_class_path(path: str, class_path: str) -> None:
    """Check that a class can be imported; a name without a dot is jsonargparse's to resolve."""
    module, _, name = class_path.rpartition(".")
    if not module or find_class(class_path) is not None:
        return
    known = vars(sys.modules[module]) if module in sys.modules else ()
    raise InvalidConfigError(f"{path}: '{class_path}' cannot be imported.{did_you_mean(name, known)}")
