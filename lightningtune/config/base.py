"""The base config: read from the files that hold it, checked, and given what stands on the command line."""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lightningtune.config.values import plain
from lightningtune.errors import InvalidConfigError, did_you_mean
from lightningtune.files import expand_home, read_mapping

SECTIONS = ("model", "data", "trainer")
"""Those of every config; a LightningCLI may have more."""
SEED = "seed_everything"
TOP_NAMES = (*SECTIONS, SEED)
"""What stands at the top of every config."""
FIT = "fit"
"""What holds the sections in a config of a LightningCLI's whole command."""
FILE_ENDINGS = (".yaml", ".yml", ".json")
_IN_FILES = (*SECTIONS, "optimizer", "lr_scheduler")
"""Sections that may be in a file of their own; an argument that a user's CLI adds may be the name of one."""
LIMITS = frozenset({"max_epochs", "max_steps", "max_time"})
"""The trainer's limits, which say when a fit ends by itself."""
NOT_HYDRA = (
    "'_target_' is Hydra's, and is not read here: write a model, data, callback or logger as class_path and init_args, "
    "and a trainer as its arguments alone."
)
"""What to do where a config names a class in Hydra's way."""


def load_base_config(source: Any, sections: Sequence[str] = SECTIONS, owner: str = "The config") -> dict[str, Any]:
    """Read a base config as `read_config` does, and check what stands at its top; null is left out there.

    Example:
        >>> load_base_config({"model": "nets.Net", "trainer": {"max_epochs": 3}, "ckpt_path": None})
        {'model': {'class_path': 'nets.Net'}, 'trainer': {'max_epochs': 3}}
    """
    given = {} if source is None else read_config(source, sections)
    config = {name: value for name, value in given.items() if value is not None}
    allowed = (*sections, SEED)
    for name, value in config.items():
        if name not in allowed:
            is_limit = name in LIMITS and "trainer" in sections
            hint = f" Did you mean 'trainer.{name}'?" if is_limit else did_you_mean(str(name), allowed)
            raise InvalidConfigError(f"{owner} has no section '{name}'.{hint} Allowed: {', '.join(allowed)}.")
        if isinstance(value, str) and name in ("model", "data"):
            config[name] = {"class_path": value}
        elif name in SECTIONS and not isinstance(value, Mapping):
            raise InvalidConfigError(f"The config's '{name}' must be a mapping, but is {value!r}.")
        elif name in SECTIONS and "_target_" in value:
            raise InvalidConfigError(f"{name}: {NOT_HYDRA}")
    seed = config.get(SEED, True)
    if not isinstance(seed, int) or seed < 0:
        raise InvalidConfigError(f"{SEED} must be true, false or an integer from 0, but got {seed!r}.")
    return config


def read_config(source: Any, sections: Sequence[str] = SECTIONS, folder: Path | None = None) -> dict[str, Any]:
    """Read a config from a file or a mapping, and the sections that are in files of their own.

    Of a config of a LightningCLI's whole command, what its ``fit`` holds is read.
    """
    folder = folder or Path()
    if isinstance(source, (str, os.PathLike)):
        path = folder / expand_home(source)
        source, folder = _read_named("base_config", path), path.parent
    elif not isinstance(source, (Mapping, argparse.Namespace)):
        raise InvalidConfigError(f"base_config must be a file's path or a mapping, but got {source!r}.")
    try:
        config: dict[str, Any] = plain(source)
    except TypeError as error:
        hint = " Pass objects as callbacks=[...]." if str(error).startswith("trainer.callbacks") else ""
        raise InvalidConfigError(f"{error}.{hint}") from error
    if isinstance(config.get(FIT), dict) and not {*sections} & {*config}:
        config = config[FIT]
    for name, value in config.items():
        if name in _IN_FILES and isinstance(value, str) and value.endswith(FILE_ENDINGS):
            config[name] = _read_named(f"base_config.{name}", folder / expand_home(value))
    return config


def with_files(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a study file's values with the files in a folder read that hold the config and the space."""
    read = dict(values)
    config, space = read.get("base_config"), read.get("search_space")
    if isinstance(config, (str, dict)):
        read["base_config"] = read_config(config, folder=folder)
    if isinstance(space, str) and space.endswith(FILE_ENDINGS):
        read["search_space"] = _read_named("search_space", folder / expand_home(space))
    return read


def _read_named(name: str, path: Path) -> dict[str, Any]:
    try:
        return read_mapping(path)
    except InvalidConfigError as error:
        raise InvalidConfigError(f"{name}: {error}") from error


def with_limits_of(config: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the trainer's limits of another, and no others.

    Example:
        >>> with_limits_of({"trainer": {"max_epochs": 5, "max_time": "1h"}}, {"trainer": {"max_epochs": 9}})
        {'trainer': {'max_epochs': 9}}
    """
    kept = {name: value for name, value in config.get("trainer", {}).items() if name not in LIMITS}
    limits = {name: value for name, value in now.get("trainer", {}).items() if name in LIMITS}
    return {**config, "trainer": {**kept, **limits}}


def walk(value: Any) -> Iterator[Any]:
    """Yield a plain value, and everything in it at any depth."""
    yield value
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from walk(inner)


def is_block(value: Any) -> bool:
    """Whether a value is a ``class_path`` block."""
    return isinstance(value, Mapping) and "class_path" in value


def read_block(path: str, block: Any) -> tuple[str, Mapping[str, Any]]:
    """Take a ``class_path`` block, or the name of a class alone, apart: the name, and the arguments."""
    full = {"class_path": block} if isinstance(block, str) else block
    allowed = ("class_path", "init_args", "dict_kwargs")  # as jsonargparse has it
    if not isinstance(full, Mapping):
        raise InvalidConfigError(f"{path} must be a class's name, or a class_path block, but got {block!r}.")
    if "class_path" not in full:
        name = next((str(key) for key in full if key != "init_args"), "package.Class")
        form = did_you_mean(name, ["class_path"]) or f" Write it as {{'class_path': '{name}', 'init_args': {{...}}}}."
        if any("_target_" in each for each in (full, *full.values()) if isinstance(each, Mapping)):
            form = f" {NOT_HYDRA}"
        raise InvalidConfigError(f"{path} names no class_path.{form}")
    for name in full.keys() - {*allowed}:
        near = did_you_mean(str(name), allowed) or f" Arguments belong into '{path}.init_args'."
        raise InvalidConfigError(f"'{path}.{name}' may not stand beside class_path.{near}")
    arguments = full.get("init_args") or {}
    if not isinstance(arguments, Mapping):
        raise InvalidConfigError(f"{path}.init_args must be a mapping of arguments, but is {arguments!r}.")
    return str(full["class_path"]), arguments


def has_block(value: Any) -> bool:
    """Whether a ``class_path`` block is somewhere in a plain value."""
    return any(map(is_block, walk(value)))


def as_list(setting: Any) -> list[Any]:
    """Return what a config has for a setting that takes one thing or several."""
    return setting if isinstance(setting, list) else [setting]


def place_at(
    whole: Any, name: str, path: str, value: Any, forms: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> Any:
    """Return a copy with a value at a dotted path of the command line; ``init_args`` may be written or left out.

    A class that stands there as a name becomes a ``class_path`` block. A path that leads nowhere is not noticed here:
    what a class accepts is not known without importing it, and a command is not to wait for that.

    Example:
        >>> place_at({"model": {"class_path": "net.Net"}}, "base_config", "model.lr", 0.1)
        {'model': {'class_path': 'net.Net', 'init_args': {'lr': 0.1}}}
        >>> place_at(["EarlyStopping"], "callbacks", "0.patience", 5)
        [{'class_path': 'EarlyStopping', 'init_args': {'patience': 5}}]
        >>> place_at({"model.lr": ["uniform", 0, 1]}, "search_space", "model.lr.high", 2, {"uniform": ("low", "high")})
        {'model.lr': ['uniform', 0, 2]}
    """
    placed: Any = {} if whole is None else copy.deepcopy(whole)
    node, at, parts = placed, name, path.split(".")
    while True:
        if isinstance(node, list):
            key: Any = _index_in(node, at, parts[0], forms)
            parts = parts[1:]
        elif not isinstance(node, dict):
            raise InvalidConfigError(f"'{at}' is {node!r}: there is no '{'.'.join(parts)}' in it.")
        else:
            key, parts = _key_in(node, parts)
            if forms and node is placed and key not in node:
                key, parts = _new_parameter(node, name, [key, *parts], value), []
        if not parts:
            node[key] = value
            return placed
        if isinstance(node, dict) and node.get(key) is None:
            node[key] = {}
        elif isinstance(node[key], str) and not forms:
            node[key] = {"class_path": node[key]}
        node, at = node[key], f"{at}.{key}"


def _index_in(node: list[Any], at: str, part: str, forms: Mapping[str, Sequence[str]]) -> int:
    if part.isdigit() and int(part) < len(node):
        return int(part)
    arguments = forms.get(node[0], ()) if node and isinstance(node[0], str) else ()
    if part not in arguments:
        raise InvalidConfigError(
            f"'{at}' is a list: '{part}' is none of its places, which are 0 to {len(node) - 1}. "
            "It can also be given whole."
        )
    index = 1 + arguments.index(part)
    node += [None] * (index + 1 - len(node))  # an argument that may be left out
    return index


def _key_in(node: dict[str, Any], parts: list[str]) -> tuple[str, list[str]]:
    """Return the key of a mapping at which a path goes on, and the rest of the path; a key may have dots in it."""
    has_block_form = node.keys() & {"class_path", "init_args"}
    if parts[0] == "init_args" and len(parts) > 1 and not has_block_form:
        parts = parts[1:]
    elif is_block(node) and parts[0] not in ("class_path", "init_args"):
        parts = ["init_args", *parts]
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in node:
            return ".".join(parts[:length]), parts[length:]
    return parts[0], parts[1:]


def _new_parameter(space: dict[str, Any], name: str, parts: list[str], value: Any) -> str:
    if isinstance(value, (list, Mapping)):
        return ".".join(parts)
    wrong = ".".join(parts[:-1]) or parts[0]  # anything else goes into a parameter, whose name is misspelt
    raise InvalidConfigError(f"{name} has no '{wrong}'.{did_you_mean(wrong, space)} It has: {', '.join(space)}.")
