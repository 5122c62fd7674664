"""What a config builds: where dotted paths lead in it, what stands there by default, and merging values there.

A section has one of two forms: plain, the arguments of a class that is given, or a ``class_path`` block. A third
source, the parser of a LightningCLI, is a schema of its own in `lightningtune.training.lightning_cli`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from lightningtune.config.base import SECTIONS, is_block, read_block
from lightningtune.config.importing import class_path_of, classes_by_name, find_class, require_class
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

Place: TypeAlias = tuple[str | int, ...]
"""The keys that lead to a value: names, and numbers in a list."""
_FEW = 20
"""Names that are listed where none is near; a Trainer has more."""


@dataclass(frozen=True)
class Node:
    """A place in a config: what it holds, and what is built from that."""

    schema: Schema
    place: Place  # with ``init_args``
    value: Any  # None where the config holds nothing
    parent: Node | None = None  # has this value, or has it as an argument; None for a section

    @property
    def path(self) -> str:
        """The place as a dotted path."""
        return ".".join(map(str, self.place))

    def at(self, *keys: str | int) -> Node:
        """Return the node at some keys below this one."""
        return Node(self.schema, (*self.place, *keys), _get(self.value, keys), self)

    def argument(self, name: str) -> Node:
        """Return an argument of what is built here, in the form that the config has or will have."""
        return self.at("init_args", name) if self.takes_init_args else self.at(name)

    @property
    def takes_init_args(self) -> bool:
        """Whether the arguments stand in ``init_args``."""
        return is_block(self.value) or self.class_name is not None

    @cached_property
    def annotated(self) -> type | None:
        """The class of the parameter's annotation, where a config can give that its own arguments."""
        owner = self.parent.target if self.parent is not None and isinstance(self.place[-1], str) else None
        return None if owner is None else inner_class(owner, str(self.place[-1]))

    @cached_property
    def class_name(self) -> str | None:
        """The ``class_path`` that is meant where the config has only the name of a class, or nothing at all."""
        if self.annotated is None or is_structure(self.annotated) or not isinstance(self.value, str | None):
            return None
        return self.value or class_path_of(self.annotated)

    @cached_property
    def target(self) -> Callable[..., Any] | None:
        """What is built here: the class that the config names, the one given for the section, or the annotation's."""
        is_section = self.parent is None
        name = self.value.get("class_path") if isinstance(self.value, Mapping) else None if is_section else self.value
        if isinstance(name, str):
            found = self.schema.class_at(name)
            return found or (None if self.annotated is None else classes_by_name(self.annotated).get(name))
        return self.schema.targets.get(str(self.place[0])) if is_section else self.annotated

    @cached_property
    def signature(self) -> Signature | None:
        """The arguments that may be given here, where that can be told."""
        own = None if is_block(self.value) else self.schema.own_signature(self.place)
        if own is not None or self.target is None:
            return own
        is_given, default = self.value is not None, self.default
        if self.parent is None or (is_given and not is_structure(self.target)):
            return signature_of(self.target)
        has_none = default is None or default is UNKNOWN
        return with_defaults_of(self.target, REQUIRED if has_none and is_given else default)

    @property
    def default(self) -> Any:
        """The default of the parameter that stands here; `REQUIRED` where it has none."""
        outer = self.schema.own_signature(()) if self.parent is None else self.parent.signature
        return outer.defaults.get(str(self.place[-1]), REQUIRED) if outer else REQUIRED

    def leaves(self) -> Iterator[Node]:
        """Yield the values that stand here or could stand here, down to those that hold no others."""
        if isinstance(self.value, list):
            for i in range(len(self.value)):
                yield from self.at(i).leaves()
        elif self.parent is not None and not isinstance(self.value, Mapping):
            yield self
        else:
            inner = ("init_args",) if is_block(self.value) else ()
            values = _get(self.value, inner)
            given = values if isinstance(values, Mapping) else {}
            for name in {**given, **(self.signature.defaults if self.signature else {})}:
                yield from self.at(*inner, name).leaves()


@dataclass(frozen=True)
class Schema:
    """What each section of a config builds; None where the config names that by ``class_path``."""

    model: Callable[..., Any] | None = None
    data: Callable[..., Any] | None = None
    trainer: Callable[..., Any] | None = None
    bases: tuple[type, ...] = ()  # classes that derive from these may be named without their module

    @property
    def targets(self) -> Mapping[str, Callable[..., Any] | None]:
        """What is given for each section."""
        return {"model": self.model, "data": self.data, "trainer": self.trainer}

    @property
    def parts(self) -> Mapping[str, Any]:
        """What builds the model and the data, under the names by which users give it."""
        return {"model_class": self.model, "datamodule_class": self.data}

    @property
    def sections(self) -> Sequence[str]:
        """The parts of a config into which paths may lead."""
        return SECTIONS

    def class_at(self, class_path: str) -> Callable[..., Any] | None:
        """Return the class that a ``class_path`` names; None where that cannot be told."""
        return find_class(class_path, *self.bases)

    def own_signature(self, place: Place) -> Signature | None:
        """Return the names that this schema itself knows at a place, before any class is asked."""
        return None

    def find(self, config: Mapping[str, Any], path: str) -> Node:
        """Find where a dotted path, or a bare parameter name, leads in a config.

        ``init_args`` may be written or left out, whichever form the config has.
        """
        head, *rest = path.split(".")
        if not rest:
            head, rest = self._section_of(config, path), [path]
        node = reached = self._section(config, head) if head in self.sections else None
        while node is not None and rest:
            reached = node
            node = _step(node, rest)
        if node is not None:
            return node
        known, takes = self.paths(config), ""
        if reached is not None and reached.signature is not None:
            names = reached.signature.defaults
            known += [] if is_block(reached.value) else [f"{reached.path}.{name}" for name in names]
            takes = f" '{reached.path}' takes: {', '.join(names)}." if 0 < len(names) <= _FEW else ""
        elif reached is not None and reached.parent is None and reached.target is None and reached.value is None:
            takes = f" The config names no class for '{head}': give it as '{head}.class_path'."
        hint = did_you_mean(path, [other for other in known if other != path])
        raise InvalidConfigError(f"'{path}' leads nowhere in the config.{hint or takes}")

    def locate(self, config: Mapping[str, Any], path: str) -> Place:
        """Return the place to which a path leads, as `find` does."""
        return self.find(config, path).place

    def lookup(self, config: Mapping[str, Any], path: str) -> Any:
        """Return the value at a path: the config's own, or the default of the parameter."""
        node = self.find(config, path)
        try:
            return get_at(config, node.place)
        except LookupError:
            default = node.default
        if default is UNKNOWN and node.parent is not None:
            raise InvalidConfigError(f"the config does not give '{node.parent.path}', so that '{path}' has no default.")
        if default is REQUIRED:
            raise InvalidConfigError(f"'{path}' has no default, and the config gives no value for it.")
        return default

    def merge(self, config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of ``config`` with each value at its path; the shorter paths first."""
        merged: dict[str, Any] = copy.deepcopy(dict(config))
        taken: dict[Place, str] = {}
        for path in sorted(overrides, key=lambda path: (path.count("."), not path.endswith(".class_path"))):
            node = self.find(merged, path)
            if node.place in taken:
                raise InvalidConfigError(f"'{path}' and '{taken[node.place]}' are the same place in the config.")
            taken[node.place] = path
            _name_classes(merged, node)
            try:
                _set_at(merged, node.place, plain(overrides[path], path))
            except TypeError as error:
                raise InvalidConfigError(f"{error}.") from error
        return merged

    def paths(self, config: Mapping[str, Any]) -> list[str]:
        """List the paths that lead somewhere, for suggestions."""
        return [leaf.path for section in self.sections for leaf in self._section(config, section).leaves()]

    def annotation(self, config: Mapping[str, Any], place: Place) -> tuple[Callable[..., Any], Any] | None:
        """Return what has the parameter at a place, and the parameter's annotation; None where that cannot be told."""
        node = self._section(config, str(place[0]))
        inner: Place = ()
        for key in place[1:]:
            inner += (key,)
            if key != "init_args":
                node, inner = node.at(*inner), ()
        target = node.parent.target if node.parent is not None and isinstance(place[-1], str) else None
        return None if target is None else (target, type_hints(target).get(str(place[-1]), Any))

    def _section(self, config: Mapping[str, Any], name: str) -> Node:
        return Node(self, (name,), config.get(name))

    def _section_of(self, config: Mapping[str, Any], name: str) -> str:
        """Return whether a bare name belongs to the model or to the data."""
        found = {section: self._section(config, section).signature for section in ("model", "data")}
        known = {section: signature for section, signature in found.items() if signature}
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


def _step(node: Node, rest: list[str]) -> Node | None:
    """Take the first names off a path, and return the node below to which they lead; None where there is none."""
    part = rest.pop(0)
    if isinstance(node.value, list):
        return node.at(int(part)) if part.isdigit() and int(part) < len(node.value) else None
    if node.takes_init_args and part == "class_path" and not rest:
        return node.at(part)
    if node.signature is None and not node.takes_init_args:
        return node.at(part) if isinstance(node.value, Mapping) and part in node.value else None
    if part == "init_args":
        if not rest:
            return None
        part = rest.pop(0)
    return node.argument(part) if node.signature is None or node.signature.accepts(part) else None


def _name_classes(config: dict[str, Any], node: Node) -> None:
    """Write the ``class_path`` that is meant above a node, the outermost first."""
    if node.parent is not None:
        _name_classes(config, node.parent)
        if node.parent.class_name is not None:
            _set_at(config, node.parent.place, {"class_path": node.parent.class_name})


def check_names(schema: Schema, config: Mapping[str, Any]) -> None:
    """Check every name in a config that can be checked, down to nested ``class_path`` blocks."""
    for section in schema.sections:
        _check_names(schema, config, section, config.get(section, {}), is_section=True)


def _check_names(schema: Schema, config: Mapping[str, Any], path: str, value: Any, is_section: bool = False) -> None:
    if isinstance(value, list):
        for i, item in enumerate(value):
            _check_names(schema, config, f"{path}.{i}", item)
    if not isinstance(value, Mapping):
        return
    arguments, inner = value, path
    if is_block(value):
        known = ("class_path", "init_args")  # beside which a mapping that no class is built from may have others
        block = value if is_section else {name: value[name] for name in known if name in value}
        class_path, arguments = read_block(path, block)
        inner = f"{path}.init_args"
        if "." in class_path:  # one without a dot is jsonargparse's to find
            require_class(path, class_path)
    for name, item in arguments.items():
        if is_section or is_block(value):
            schema.find(config, f"{inner}.{name}")
        _check_names(schema, config, f"{inner}.{name}", item)


def get_at(config: Any, place: Place) -> Any:
    """Return the value at a place."""
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
