"""Two methods of jsonargparse's parsers that have other names, or other parameters, before version 4.53."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser, Namespace

_IS_4_49 = hasattr(ArgumentParser, "instantiate")
_IS_4_53 = _IS_4_49 and "instantiators" in inspect.signature(ArgumentParser.instantiate).parameters


def instantiate(parser: ArgumentParser, parsed: Namespace, instantiators: Sequence[tuple[Any, type, bool]] = ()) -> Any:
    """Return a parsed config with an instance in place of each ``class_path``.

    Args:
        parser: what has parsed it.
        parsed: the config.
        instantiators: what makes the instances of some classes: a function, the class, and whether its subclasses too.
    """
    if _IS_4_53:
        return parser.instantiate(parsed, instantiators=instantiators)
    own = copy.copy(parser)  # to which an instantiator is added; the parser itself stays without
    with warnings.catch_warnings():  # deprecated from 4.49 on, and before 4.53 there is no other way
        warnings.simplefilter("ignore", DeprecationWarning)
        for make, kind, with_subclasses in instantiators:
            own.add_instantiator(make, kind, subclasses=with_subclasses)
        return own.instantiate_classes(parsed)


def dump_all(parser: ArgumentParser, parsed: Namespace) -> str:
    """Return a parsed config as YAML, with every argument that is null or not given."""
    unset = "skip_unset" if _IS_4_49 else "skip_none"
    text: str = parser.dump(parsed, skip_validation=True, **{unset: False})
    return text
