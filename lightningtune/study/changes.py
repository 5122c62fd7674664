"""What has changed between two runs of one study, as far as what was written down tells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_COMPARED = ("model_class", "datamodule_class", "search_space", "base_config", "sampler", "pruner", "versions")
"""The other parts of a definition may not change, or change nothing of a trial."""
_SHOWN = 8


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Say in a sentence what differs between two definitions of a study; None where nothing does.

    Args:
        before: as it was read from ``study.yaml``.
        now: as it will be written there.

    Example:
        >>> print(describe_changes({"base_config": {"trainer": {"max_epochs": 5}}}, {
        ...     "base_config": {"trainer": {"max_epochs": 9}, "model": {"width": 4}}}))
        Changed since the last run, for the trials that follow: base_config.model.width added: 4; \
base_config.trainer.max_epochs 5 → 9.
    """
    old, new = (dict(_leaves({name: part.get(name) for name in _COMPARED})) for part in (before, now))
    found = []
    for path in sorted({*old, *new}):
        if path not in old:
            found.append(f"{path} added: {new[path]}")
        elif path not in new:
            found.append(f"{path} removed, which was {old[path]}")
        elif old[path] != new[path]:
            found.append(f"{path} {old[path]} → {new[path]}")
    if not found:
        return None
    more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return f"Changed since the last run, for the trials that follow: {'; '.join([*found[:_SHOWN], *more])}."


def name_of(target: Any) -> str | None:
    """Name a class or a function so that another one has another name; None for none.

    Example:
        >>> name_of(dict)
        'builtins.dict'
    """
    if target is None:
        return None
    own = getattr(target, "__qualname__", None)
    return f"{target.__module__}.{own}" if own else re.sub(r" at 0x[0-9a-f]+", "", repr(target))


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what is no mapping, by its dotted path; an empty mapping and None are nothing."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    elif value is not None:
        yield path, value
