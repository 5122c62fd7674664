"""Dotted paths into a config: where each one leads, and merging values there on a copy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from lightningtune.config.importing import class_path_of, classes_by_name, find_class
from lightningtune.config.signatures import (
    REQUIRED,
    UNKNOWN,
    Signature,
    inner_class,
    is_structure,
    signature_of,
    type_hints,
    with_defaults_of,
)
from lightningtune.config.values import plain
from lightningtune.errors import InvalidConfigError, did_you_mean

SECTIONS = ("model", "data", "trainer")
Place: TypeAlias = tuple[str | int, ...]


_FEW = 20
"""Paths that are named where none is near; a Trainer has more."""


@dataclass(frozen=True)
class Schema:
    """What each section of a config builds.

    Attributes:
        model: the class or callable of ``model``; None where the config names it by ``class_path``.
        data: the same for ``data``.
        trainer: the Trainer class.
    """

    model: Callable[..., Any] | None = None
    data: Callable[..., Any] | None = None
    trainer: Callable[..., Any] | None = None

    @property
    def parts(self) -> Mapping[str, Any]:
        """What builds the model and the data, under the names by which users give it."""
        return {"model_class": self.model, "datamodule_class": self.data}

    @property
    def sections(self) -> Sequence[str]:
        """The parts of a config into which paths may lead."""
        return SECTIONS

    def locate(self, config: Mapping[str, Any], path: str) -> Place:
        """Find where a dotted path, or a bare parameter name, leads in a config.

        ``init_args`` may be written or left out, whichever form the config has.

        Raises:
            InvalidConfigError: when it leads nowhere, or a bare name leads to two places.

        Example:
            >>> Schema(model=dict).locate({"model": {"class_path": "collections.Counter"}}, "trainer.x")
            Traceback (most recent call last):
            ...
            lightningtune.errors.InvalidConfigError: 'trainer.x' leads nowhere in the config.
        """
        head, *rest = path.split(".")
        if not rest:
            head, rest = self._section_of(config, path), [path]
        place = self._walk(config, head, rest) if head in self.sections else None
        if place is None:
            known = [known for known in (*self.paths(config), *self._beside(config, path)) if known != path]
            beside = [name for name in known if name.startswith(f"{head}.") and rest]
            hint = did_you_mean(path, known) or (f" There: {', '.join(beside)}." if 0 < len(beside) <= _FEW else "")
            raise InvalidConfigError(f"'{path}' leads nowhere in the config.{hint}")
        return place

    def lookup(self, config: Mapping[str, Any], path: str) -> Any:
        """Return the value at a path: the config's own, or the default of the parameter.

        Raises:
            InvalidConfigError: when the path leads nowhere, or the parameter is required and not given.
        """
        place = self.locate(config, path)
        try:
            return get_at(config, place)
        except LookupError:
            signature = self._signature(config, place)
            default = signature.defaults.get(str(place[-1]), REQUIRED) if signature else REQUIRED
            if default is UNKNOWN:
                owner = ".".join(map(str, _owner_of(place)))
                raise InvalidConfigError(
                    f"the config does not give '{owner}', so that '{path}' has no default."
                ) from None
            if default is REQUIRED:
                raise InvalidConfigError(f"'{path}' has no default, and the config gives no value for it.") from None
            return default

    def merge(self, config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of ``config`` with each value at its path; the shorter paths first.

        Raises:
            InvalidConfigError: when a path leads nowhere, two lead to the same place, or a value is no YAML value.
        """
        merged: dict[str, Any] = copy.deepcopy(dict(config))
        taken: dict[Place, str] = {}
        for path in sorted(overrides, key=lambda path: (path.count("."), not path.endswith(".class_path"))):
            place = self.locate(merged, path)
            if place in taken:
                raise InvalidConfigError(f"'{path}' and '{taken[place]}' are the same place in the config.")
            taken[place] = path
            self._name_classes(merged, place)
            try:
                _set_at(merged, place, plain(overrides[path], path))
            except TypeError as error:
                raise InvalidConfigError(f"{error}.") from error
        return merged

    def paths(self, config: Mapping[str, Any]) -> list[str]:
        """List the paths that lead somewhere, for suggestions."""
        return [path for section in self.sections for path in self._paths(config, (section,))]

    def _beside(self, config: Mapping[str, Any], path: str) -> list[str]:
        """List what the path could end with, where the config does not mention what stands before its last name."""
        before = path.rpartition(".")[0]
        head, *rest = before.split(".")
        place = self._walk(config, head, rest) if rest and head in self.sections else None
        is_left_out = place is not None and _get(config, place) is None
        signature = self._signature(config, (*place, "?")) if place is not None and is_left_out else None
        return [f"{before}.{name}" for name in signature.defaults] if signature else []

    def _section_of(self, config: Mapping[str, Any], name: str) -> str:
        """Return whether a bare name belongs to the model or to the data."""
        signatures = {section: self._signature(config, (section, name)) for section in ("model", "data")}
        known = {section: signature for section, signature in signatures.items() if signature}
        homes = [section for section, signature in known.items() if name in signature.defaults]
        homes = homes or [section for section, signature in known.items() if signature.open]
        if len(homes) == 1:
            return homes[0]
        if homes:
            raise InvalidConfigError(
                f"'{name}' is a parameter of both the model and the data; write 'model.{name}' or 'data.{name}'."
            )
        options = [parameter for signature in known.values() for parameter in signature.defaults]
        raise InvalidConfigError(
            f"'{name}' is a parameter of neither the model nor the data.{did_you_mean(name, options)} "
            f"They take: {', '.join(dict.fromkeys(options)) or 'nothing'}."
        )

    def _walk(self, config: Mapping[str, Any], section: str, rest: list[str]) -> Place | None:
        place: Place = (section,)
        parts = list(rest)
        while parts:
            node = _get(config, place)
            part = parts.pop(0)
            if isinstance(node, list):
                if not part.isdigit() or int(part) >= len(node):
                    return None
                place += (int(part),)
                continue
            signature = self._signature(config, (*place, part))
            is_block = _is_block(node) or self._named_class(config, place) is not None
            if is_block and part == "class_path" and not parts:
                return (*place, part)
            if signature is not None or is_block:
                if part == "init_args":
                    if not parts:
                        return None
                    part = parts.pop(0)
                    signature = self._signature(config, (*place, part))
                if signature is not None and not signature.accepts(part):
                    return None
                place += ("init_args", part) if is_block else (part,)
            elif isinstance(node, Mapping) and part in node:
                place += (part,)
            else:
                return None
        return place

    def _signature(self, config: Mapping[str, Any], place: Place) -> Signature | None:
        """Return what the class accepts whose parameter ``place`` is, where it is one and can be told."""
        owner = _owner_of(place)
        own = None if _is_block(_get(config, owner)) else self._own_signature(owner)
        target = self._target(config, owner) if own is None else None
        if target is None:
            return own
        node = _get(config, owner)
        if len(owner) == 1 or (node is not None and not is_structure(target)):
            return signature_of(target)
        outer = self._signature(config, owner)
        default = outer.defaults.get(str(owner[-1]), REQUIRED) if outer else REQUIRED
        return with_defaults_of(
            target, REQUIRED if (default is None or default is UNKNOWN) and node is not None else default
        )

    def _target(self, config: Mapping[str, Any], place: Place) -> Callable[..., Any] | None:
        """Return what is built at a place: what the config names there, or the class of the parameter's annotation."""
        node, annotated = _get(config, place), self._annotated(config, place)
        name = node.get("class_path") if isinstance(node, Mapping) else node if len(place) > 1 else None
        if isinstance(name, str):
            return self.class_at(name) or (classes_by_name(annotated).get(name) if annotated is not None else None)
        return annotated if len(place) > 1 else getattr(self, str(place[0]), None)

    def annotation(self, config: Mapping[str, Any], place: Place) -> tuple[Callable[..., Any], Any] | None:
        """Return what has the parameter at a place, and the parameter's annotation; None where that cannot be told."""
        target = self._target(config, _owner_of(place)) if len(place) > 1 and isinstance(place[-1], str) else None
        return None if target is None else (target, type_hints(target).get(str(place[-1]), Any))

    def _annotated(self, config: Mapping[str, Any], place: Place) -> type | None:
        """Return the class of a parameter's annotation whose own parameters a config can give."""
        name = place[-1]
        outer = self._target(config, _owner_of(place)) if len(place) > 1 and isinstance(name, str) else None
        return None if outer is None else inner_class(outer, str(name))

    def _named_class(self, config: Mapping[str, Any], place: Place) -> str | None:
        """Return the ``class_path`` that is meant where a config gives only the name of a class, or nothing at all."""
        node, annotated = _get(config, place), self._annotated(config, place)
        if annotated is None or is_structure(annotated) or not (node is None or isinstance(node, str)):
            return None
        return node or class_path_of(annotated)

    def _name_classes(self, config: dict[str, Any], place: Place) -> None:
        """Write the ``class_path`` that a place within its ``init_args`` needs."""
        for i, key in enumerate(place):
            named = self._named_class(config, place[:i]) if key == "init_args" else None
            if named is not None:
                _set_at(config, place[:i], {"class_path": named})

    def class_at(self, class_path: str) -> Callable[..., Any] | None:
        """Return the class that a ``class_path`` names, where that can be told."""
        return find_class(class_path)

    def _own_signature(self, place: Place) -> Signature | None:
        """Return what is accepted at a place that is no ``class_path`` block."""
        target = getattr(self, str(place[0])) if len(place) == 1 else None
        return signature_of(target) if target is not None else None

    def _paths(self, config: Mapping[str, Any], place: Place) -> Iterator[str]:
        node = _get(config, place)
        signature = self._signature(config, (*place, "?"))
        if len(place) > 1 and not isinstance(node, (Mapping, list)):
            yield ".".join(map(str, place))
        elif isinstance(node, list):
            for i in range(len(node)):
                yield from self._paths(config, (*place, i))
        else:
            is_block = isinstance(node, Mapping) and "class_path" in node
            inner: Place = (*place, "init_args") if is_block else place
            values = _get(config, inner)
            names = [
                *(values if isinstance(values, Mapping) else ()),
                *(signature.defaults if signature else ()),
            ]
            for name in dict.fromkeys(names):
                yield from self._paths(config, (*inner, name))


def _is_block(node: Any) -> bool:
    return isinstance(node, Mapping) and "class_path" in node


def _owner_of(place: Place) -> Place:
    """Return the place of what has the parameter at a place."""
    return place[:-2] if len(place) > 1 and place[-2] == "init_args" else place[:-1]


def get_at(config: Any, place: Place) -> Any:
    """Return the value at a place.

    Raises:
        LookupError: when there is none.
    """
    for key in place:
        if not isinstance(config, (Mapping, list)):
            raise LookupError(key)
        config = config[key]  # type: ignore[index]
    return config


def _get(config: Any, place: Place) -> Any:
    try:
        return get_at(config, place)
    except LookupError:
        return None


def _set_at(config: Any, place: Place, value: Any) -> None:
    for key in place[:-1]:
        if isinstance(config, dict) and not isinstance(config.get(key), (dict, list)):
            config[key] = {}
        config = config[key]
    config[place[-1]] = value
