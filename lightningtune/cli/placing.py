"""Putting a value at a dotted path of the command line into what a study file holds."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from lightningtune.errors import InvalidConfigError, did_you_mean


def place_at(whole: Any, name: str, path: str, value: Any) -> Any:
    """Return a copy with a value at a path; ``init_args`` may be written or left out.

    A class that stands there as a name becomes a ``class_path`` block. A path of a config that leads nowhere is not
    noticed here: what a class accepts is not known without importing it.

    Args:
        whole: what the study file holds under ``name``; it is left as it is.
        name: as it is called in an error.
        path: dotted; a number for a place in a list. A key with dots in it is found.
        value: what is put there.

    Raises:
        InvalidConfigError: when there is no such place.

    Example:
        >>> place_at({"model": {"class_path": "net.Net"}}, "base_config", "model.lr", 0.1)
        {'model': {'class_path': 'net.Net', 'init_args': {'lr': 0.1}}}
        >>> place_at({"model.lr": ["loguniform", 1e-4, 1e-1]}, "search_space", "model.lr.2", 1.0)
        {'model.lr': ['loguniform', 0.0001, 1.0]}
        >>> place_at({"model.lr": ["loguniform", 1e-4, 1e-1]}, "search_space", "model.lr.low", 1e-5)
        {'model.lr': ['loguniform', 1e-05, 0.1]}
        >>> place_at(["EarlyStopping"], "callbacks", "0.patience", 5)
        [{'class_path': 'EarlyStopping', 'init_args': {'patience': 5}}]
    """
    placed: Any = {} if whole is None else copy.deepcopy(whole)
    _place(placed, name, path.split("."), value)
    return placed


def _place(node: Any, at: str, parts: list[str], value: Any) -> None:
    if isinstance(node, list):
        key: Any = int(parts[0]) if parts[0].isdigit() and int(parts[0]) < len(node) else None
        if key is None and at.startswith("search_space."):
            from lightningtune.search.parameters import FORMS  # deferred import: keeps `--help` fast

            arguments = FORMS.get(str(*node[:1]), ())
            if parts[0] in arguments:
                key = 1 + arguments.index(parts[0])
                node += [None] * (key + 1 - len(node))  # what may be left out
        if key is None:
            raise InvalidConfigError(
                f"'{at}' is a list: '{parts[0]}' is none of its places, which are 0 to {len(node) - 1}. "
                "It can also be given whole."
            )
        rest = parts[1:]
    elif isinstance(node, dict):
        key, rest = _in_mapping(node, at, parts, value)
    else:
        raise InvalidConfigError(f"'{at}' is {node!r}: there is no '{'.'.join(parts)}' in it.")
    if not rest:
        node[key] = value
        return
    if not isinstance(node, list) and node.get(key) is None:
        node[key] = {}
    elif isinstance(node[key], str) and not at.startswith("search_space"):
        node[key] = {"class_path": node[key]}
    _place(node[key], f"{at}.{key}", rest, value)


def _in_mapping(node: dict[str, Any], at: str, parts: list[str], value: Any) -> tuple[str, list[str]]:
    """Return the key of a mapping at which a path goes on, and what of the path is left then."""
    is_block = "class_path" in node
    if parts[0] == "init_args" and len(parts) > 1 and not is_block and "init_args" not in node:
        parts = parts[1:]
    elif is_block and parts[0] not in ("class_path", "init_args"):
        parts = ["init_args", *parts]
    for length in range(len(parts), 0, -1):
        key = ".".join(parts[:length])
        if key in node:
            return key, parts[length:]
    if at == "search_space":
        # a new parameter, whose name is a path; anything else is a name that is misspelt
        if not isinstance(value, (list, Mapping)):
            name = ".".join(parts[:-1]) or parts[0]
            raise InvalidConfigError(
                f"search_space has no '{name}'.{did_you_mean(name, node)} It has: {', '.join(node)}."
            )
        return ".".join(parts), []
    return parts[0], parts[1:]
