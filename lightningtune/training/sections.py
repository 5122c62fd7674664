"""One section of a config becomes what it stands for, by jsonargparse."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from lightningtune.config.importing import find_class
from lightningtune.config.overrides import Schema
from lightningtune.config.signatures import (
    dump_all,
    given_hyperparameters,
    has_block,
    instantiate,
    signature_of,
    type_hints,
)
from lightningtune.errors import InvalidConfigError, did_you_mean
from lightningtune.files import load_yaml
from lightningtune.training.messages import refusal

BASES: dict[str, type] = {"model": LightningModule, "data": LightningDataModule}


class Section:
    """Parses and instantiates one section of configs.

    Args:
        schema: what the sections build.
        name: which section it is.
        example: any values of it that have its form.

    Raises:
        InvalidConfigError: when it cannot be built at all.
    """

    def __init__(self, schema: Schema, name: str, example: Any) -> None:
        self._schema = schema
        self._name = name
        self._parser = ArgumentParser(exit_on_error=False)
        if name in BASES:
            _add_section(self._parser, name, getattr(schema, name), example)
        else:
            self._parser.add_class_arguments(Trainer, name, instantiate=False, fail_untyped=False, sub_configs=True)
        self._parsed: tuple[str, Namespace] | None = None

    def parse(self, config: Mapping[str, Any]) -> Namespace | None:
        """Parse the section, unless it is as it was the last time: most trials differ in the model's alone."""
        values = config.get(self._name)
        known = _known(self._schema, self._name, values) if values else None
        if not known:
            return None
        shown = repr(values)
        if self._parsed is None or self._parsed[0] != shown:
            try:
                parsed = self._parser.parse_object({self._name: copy.deepcopy(known)})  # the parser writes into it
            except Exception as error:  # jsonargparse raises several kinds, each with its own causes
                raise InvalidConfigError(f"The config is not valid. {refusal(error)}") from None
            self._parsed = shown, parsed
        return copy.deepcopy(self._parsed[1])

    def build(self, config: Mapping[str, Any], instantiators: Sequence[Any] = ()) -> Any:
        """Return the instance that a ``class_path`` asks for; otherwise the arguments by name, instances in them.

        Args:
            config: a resolved config.
            instantiators: what jsonargparse is to make those instances with.
        """
        parsed = self.parse(config)
        if parsed is None:
            return {}
        values = config[self._name]
        if "class_path" not in values:
            try:
                built = vars(instantiate(self._parser, parsed, instantiators)[self._name])
            except ValueError as error:
                if self._name in BASES:
                    raise
                raise InvalidConfigError(f"The config is not valid. {refusal(error, self._name)}") from error
            return {**built, **_texts(built, values, getattr(self._schema, self._name))}
        instantiators = [(functools.partial(self._construct, config), BASES[self._name], True)]
        return instantiate(self._parser, parsed, instantiators)[self._name]

    def _construct(self, config: Mapping[str, Any], class_type: type, *args: Any, **kwargs: Any) -> Any:
        """Construct the class of a ``class_path``, or a module that is an argument of it, which is built as it is."""
        values = config[self._name]
        if class_type is not find_class(values["class_path"]):
            return class_type(*args, **kwargs)
        given = values.get("init_args") or {}
        kwargs |= _texts(kwargs, given, class_type)
        if not has_block(given):
            return class_type(*args, **kwargs)
        plain = self.as_plain(config)
        with given_hyperparameters(class_type, {"_class_path": plain["class_path"], **plain["init_args"]}):
            return class_type(*args, **kwargs)

    def as_plain(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return every argument of the section, defaults too, as a config would hold it."""
        parsed = self.parse(config)
        if parsed is None:
            return {}
        plain: Mapping[str, Any] = load_yaml(dump_all(self._parser, parsed))[self._name]
        return plain


def _add_section(parser: ArgumentParser, section: str, target: Any, values: Any) -> None:
    is_block = isinstance(values, Mapping) and "class_path" in values
    if is_block:
        if target is not None and not inspect.isclass(target):
            raise InvalidConfigError(
                f"The config's '{section}' has a class_path, and {_ARGUMENTS[section]} is a function: both say what "
                "to build. Leave one out."
            )
        base = target if inspect.isclass(target) else BASES[section]
        parser.add_subclass_arguments(base, section, fail_untyped=False, required=True)
    elif target is None:
        if values or section == "model":
            raise InvalidConfigError(
                f"The config's '{section}' has no class_path, and {_ARGUMENTS[section]} is not given: "
                f"one of them must say what to build.{_misspelt(values)}"
            )
    elif inspect.isclass(target):
        parser.add_class_arguments(target, section, instantiate=False, fail_untyped=False, sub_configs=True)
    else:
        parser.add_function_arguments(_named_parameters(target), section, fail_untyped=False, sub_configs=True)


def _misspelt(values: Any) -> str:
    hints = (
        (name, did_you_mean(str(name), ["class_path"])) for name in (values if isinstance(values, Mapping) else ())
    )
    return next((f" There is '{name}'.{hint}" for name, hint in hints if hint), "")


_ARGUMENTS = {"model": "model_class", "data": "datamodule_class"}


def _named_parameters(target: Callable[..., Any]) -> Callable[..., None]:
    """Return a function with the parameters of ``target`` that a config can give, for jsonargparse to read."""
    hints = type_hints(target)
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints.get(name, Any))
        for name, default in signature_of(target).defaults.items()
        if default is inspect.Parameter.empty or isinstance(default, _PLAIN)
    ]

    def described(**values: Any) -> None: ...

    described.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    described.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return described


_PLAIN = (type(None), bool, int, float, str, list, tuple, dict)


def _known(schema: Schema, section: str, values: Any) -> Any:
    """Leave out what only ``**kwargs`` swallows: no type is known for it, and it is passed on as it is."""
    target = getattr(schema, section)
    if not isinstance(values, Mapping) or "class_path" in values or target is None:
        return values
    signature = signature_of(target)
    if not signature.open:
        return dict(values)
    bound = target.keywords if isinstance(target, functools.partial) else {}
    plain = {name for name, default in signature.defaults.items() if isinstance(default, _PLAIN) or name not in bound}
    return {name: value for name, value in values.items() if name in plain}


def _texts(built: Mapping[str, Any], given: Mapping[str, Any], target: Any) -> dict[str, str]:
    """Return the arguments that were text, and are not any more.

    jsonargparse reads ``"1"`` as 1 where no annotation forbids it; what is recorded, and what runs, is the text.
    """
    changed = {name: value for name, value in given.items() if isinstance(value, str)}
    changed = {name: value for name, value in changed.items() if isinstance(built.get(name, value), _VALUES)}
    hints = type_hints(target) if changed else {}
    return {name: value for name, value in changed.items() if _admits_text(hints.get(name, Any))}


_VALUES = (type(None), bool, int, float, list, dict)
"""What text may have been read as."""


def _admits_text(hint: Any) -> bool:
    return hint in (Any, str, object) or (
        get_origin(hint) in (Union, UnionType) and any(map(_admits_text, get_args(hint)))
    )
