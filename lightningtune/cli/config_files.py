"""The files that a study file names: of the config, of its sections, and of the space."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightningtune.errors import ConfigError
from lightningtune.files import read_mapping

FILES = (".yaml", ".yml", ".json")
SECTIONS = ("model", "data", "trainer")
"""Those of every config; a LightningCLI may have more."""
_OF_A_COMMAND = "fit"
"""What holds the sections in a config of a LightningCLI's whole command."""


def with_files(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a study file's values with the files read that hold the config and the space.

    Args:
        values: of the study file.
        folder: where their paths begin.

    Raises:
        ConfigError: when a file is missing or malformed.

    Example:
        >>> with_files({"base_config": {"fit": {"model": {"lr": 0.1}}}}, Path())
        {'base_config': {'model': {'lr': 0.1}}}
    """
    read = dict(values)
    for name in ("base_config", "search_space"):
        value = read.get(name)
        if isinstance(value, str) and (name == "base_config" or value.endswith(FILES)):
            read[name] = _read(name, folder / value)
    config = read.get("base_config")
    if isinstance(config, dict) and isinstance(config.get(_OF_A_COMMAND), dict) and not {*SECTIONS} & {*config}:
        read["base_config"] = config[_OF_A_COMMAND]
    return read


def _read(name: str, path: Path) -> dict[str, Any]:
    try:
        return read_mapping(path)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
