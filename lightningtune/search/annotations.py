"""A value and the annotation of the parameter it is for: whether it fits, and what the annotation makes of it."""

from __future__ import annotations

import copy
from enum import Enum
from typing import Any

from jsonargparse import ArgumentParser

from lightningtune.instantiation import instantiate


class Misfit(Exception):  # noqa: N818 - a finding, not an error
    """A value does not fit an annotation."""


def fit(hint: Any, value: Any, build: bool = True) -> Any:
    """Return what an annotation makes of a YAML value, as jsonargparse reads it.

    A list becomes a tuple, a name a member of an Enum, and a ``class_path`` block an instance, wherever the annotation
    asks for it. Two things are stricter than jsonargparse: text is never read as a number, null or a list, and None
    fits only where the annotation says so.

    Args:
        hint: the annotation, resolved.
        value: any YAML value; it is left as it is.
        build: whether blocks are instantiated.

    Raises:
        Misfit: when the value does not fit.

    Example:
        >>> fit(tuple[int, ...], [64, 32])
        (64, 32)
    """
    if type(value) is hint or (hint is Any and not isinstance(value, (list, dict))):
        return value
    parser = _parser(list[hint] if value is None else hint)  # at the top, None means to jsonargparse "not given"
    if value is None:
        _parse(parser, [None])
        return None
    parsed = _parse(parser, value)
    if _with_texts(value, parsed.value) != parsed.value:
        _parse(parser, _with_texts(value, parsed.value, mask="some text"))
    return _with_texts(value, instantiate(parser, parsed).value if build else parsed.value)


def _parser(hint: Any) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_argument("--value", type=hint)
    except ValueError:  # an annotation that jsonargparse does not know, as a TypeVar
        parser.add_argument("--value", type=Any)
    return parser


def _parse(parser: ArgumentParser, value: Any) -> Any:
    try:
        return parser.parse_object({"value": copy.deepcopy(value)})  # the parser writes into it
    except Exception as error:  # jsonargparse raises several kinds
        raise Misfit(str(error)) from error


def _with_texts(value: Any, parsed: Any, mask: str | None = None) -> Any:
    """Return what was parsed, but the text, or the mask for it, where text was read as a number, null or a list.

    Only where the annotation admits any text, the mask can be parsed.
    """
    if isinstance(value, str):
        is_misread = isinstance(parsed, _PLAIN) and not isinstance(parsed, Enum)
        return (mask or value) if is_misread else parsed
    if isinstance(value, list) and type(parsed) in (list, tuple):
        return type(parsed)(_with_texts(v, p, mask) for v, p in zip(value, parsed, strict=True))
    if isinstance(value, dict) and type(parsed) is dict:
        return {key: _with_texts(value.get(key), p, mask) for key, p in parsed.items()}
    return parsed


_PLAIN = (type(None), bool, int, float, list, tuple, set, frozenset, dict)
