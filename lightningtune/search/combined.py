"""Several search spaces as one, and a class's space as a section's, where a function of the trial is among them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lightningtune.errors import SearchSpaceError
from lightningtune.search.base import Answer, SearchSpace
from lightningtune.search.distributions import Parameter


class CombinedSearchSpace(SearchSpace):
    """Several spaces as one; made by ``|`` and by `override`, where at least one is a function.

    Args:
        parts: the spaces. The first to define a name keeps it when ``override`` is true; otherwise a second
            definition is an error.
        override: whether earlier parts win.
    """

    def __init__(self, parts: tuple[SearchSpace, ...], override: bool = False) -> None:
        self.parts = parts
        self.override = override

    def collect(self, trial: Any, answer: Answer, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Collect from each part in turn."""
        values: dict[str, Any] = {}
        answered: dict[str, Any] = {}
        for part in self.parts:
            own: dict[str, Any] = {}
            once = functools.partial(_answer_once, answer, answered, own)
            found = part.collect(trial, once, {**fixed, **answered, **values} if self.override else fixed)
            twice = values.keys() & found.keys()
            if twice:
                raise defined_twice(min(twice))
            answered |= own
            values |= found
        return values

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CombinedSearchSpace):
            return NotImplemented
        return (self.parts, self.override) == (other.parts, other.override)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"override({self.parts!r})" if self.override else " | ".join(map(repr, self.parts))


class SectionSearchSpace(SearchSpace):
    """A space with a function in it, whose names are parameters of one section; made by `in_section`.

    Args:
        section: ``model`` or ``data``.
        space: the space.
    """

    def __init__(self, section: str, space: SearchSpace) -> None:
        self.section = section
        self.space = space

    def collect(self, trial: Any, answer: Answer, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Collect from the space, and put the section before each path."""
        found = self.space.collect(trial, lambda parameter: answer(placed(self.section, parameter)), fixed)
        return {f"{self.section}.{path}": value for path, value in found.items()}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SectionSearchSpace):
            return NotImplemented
        return (self.section, self.space) == (other.section, other.space)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"in_section({self.section!r}, {self.space!r})"


def _answer_once(answer: Answer, earlier: Mapping[str, Any], own: dict[str, Any], parameter: Parameter) -> Any:
    if parameter.name in earlier:
        raise defined_twice(parameter.name)
    own[parameter.name] = answer(parameter)
    return own[parameter.name]


def placed(section: str, parameter: Parameter) -> Parameter:
    """Return a parameter that feeds the same paths within a section."""
    return replace(parameter, paths=tuple(f"{section}.{path}" for path in parameter.paths))


def defined_twice(name: str) -> SearchSpaceError:
    """Say that two spaces define a name, and what to do about it."""
    remedy = (
        "Leave one out."
        if "." in name
        else f'Call one of them differently, {{"other_{name}": {{"type": ..., "paths": ["{name}"]}}}}; or, for a model '
        f"and a datamodule, pass search_space= to the optimizer, with 'model.{name}' and 'data.{name}'."
    )
    return SearchSpaceError(f"'{name}' is defined twice in a combined search space. {remedy}")
