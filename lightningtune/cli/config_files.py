"""The files that a study file names: of the config, of its sections, and of the space."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightningtune.errors import InvalidConfigError
from lightningtune.files import expand_home, read_mapping

FILES = (".yaml", ".yml", ".json")
SECTIONS = ("model", "data", "trainer")
"""Those of every config; a LightningCLI may have more."""
OF_A_CONFIG = (*SECTIONS, "seed_everything")
"""What stands at the top of every config."""
_IN_FILES = (*SECTIONS, "optimizer", "lr_scheduler")
"""Sections that LightningCLI takes from a file of their own; an argument that a user adds may be the name of one."""
_OF_A_COMMAND = "fit"
"""What holds the sections in a config of a LightningCLI's whole command."""


def with_files(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a study file's values with the files read that hold the config and the space.

    Args:
        values: of the study file.
        folder: where their paths begin.

    Raises:
        InvalidConfigError: when a file is missing or malformed.

    Example:
        >>> with_files({"base_config": {"fit": {"model": {"lr": 0.1}}}}, Path())
        {'base_config': {'model': {'lr': 0.1}}}
    """
    read = dict(values)
    named = read.get("base_config")
    beside = (folder / expand_home(named)).parent if isinstance(named, str) else folder
    for name in ("base_config", "search_space"):
        value = read.get(name)
        if isinstance(value, str) and (name == "base_config" or value.endswith(FILES)):
            read[name] = _read(name, folder / expand_home(value))
    config = read.get("base_config")
    if isinstance(config, dict) and isinstance(config.get(_OF_A_COMMAND), dict) and not {*SECTIONS} & {*config}:
        config = config[_OF_A_COMMAND]
    if isinstance(config, dict):
        read["base_config"] = {key: _section(key, value, beside) for key, value in config.items()}
    return read


def _section(key: str, value: Any, folder: Path) -> Any:
    is_file = key in _IN_FILES and isinstance(value, str) and value.endswith(FILES)
    return _read(f"base_config.{key}", folder / expand_home(value)) if is_file else value


def _read(name: str, path: Path) -> dict[str, Any]:
    try:
        return read_mapping(path)
    except InvalidConfigError as error:
        raise InvalidConfigError(f"{name}: {error}") from error
