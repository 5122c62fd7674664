"""One section of a config becomes what it stands for, by jsonargparse."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightningtune.config.base import as_list, has_block, is_block, read_block
from lightningtune.config.importing import find_class, require_class
from lightningtune.config.schema import Schema
from lightningtune.config.signatures import (
    check_arguments,
    dump_all,
    given_hyperparameters,
    instantiate,
    signature_of,
    type_hints,
)
from lightningtune.errors import InvalidConfigError, did_you_mean
from lightningtune.files import load_yaml
from lightningtune.training.messages import refusal

BASES: dict[str, type] = {"model": LightningModule, "data": LightningDataModule}
NAMED: tuple[type, ...] = (LightningModule, LightningDataModule, Callback, Logger, Optimizer, LRScheduler)
"""Classes that a config may name without their module derive from these."""
_ARGUMENTS = {"model": "model_class", "data": "datamodule_class"}


class ConfigSection:
    """Parses and instantiates one section of configs."""

    def __init__(self, schema: Schema, name: str, example: Any) -> None:
        self._target = schema.targets[name]
        self._name = name
        self._parser = ArgumentParser(exit_on_error=False)
        if name in BASES:
            _add_section(self._parser, name, self._target, example)
        else:
            self._parser.add_class_arguments(Trainer, name, instantiate=False, fail_untyped=False, sub_configs=True)
        self._parsed: tuple[str, Namespace] | None = None

    def parse(self, config: Mapping[str, Any]) -> Namespace | None:
        """Parse the section, unless it is as it was the last time: most trials differ in the model's alone."""
        values = config.get(self._name)
        known = self._without_swallowed(values) if values else None
        if not known:
            return None
        written = repr(values)
        if self._parsed is None or self._parsed[0] != written:
            try:
                parsed = self._parser.parse_object({self._name: copy.deepcopy(known)})  # the parser writes into it
            except Exception as error:  # jsonargparse raises several kinds, each with its own causes
                raise InvalidConfigError(f"The config is not valid. {refusal(error)}") from None
            self._parsed = written, parsed
        return copy.deepcopy(self._parsed[1])

    def build(self, config: Mapping[str, Any], instantiators: Sequence[Any] = ()) -> Any:
        """Return the instance that a ``class_path`` asks for; otherwise the arguments by name, instances in them.

        The instantiators are what jsonargparse is to make those instances with.
        """
        parsed = self.parse(config)
        if parsed is None:
            return {}
        values = config[self._name]
        if is_block(values):
            instantiators = [(functools.partial(self._construct, config), BASES[self._name], True)]
            return instantiate(self._parser, parsed, instantiators)[self._name]
        try:
            built = vars(instantiate(self._parser, parsed, instantiators)[self._name])
        except ValueError as error:
            if self._name in BASES:
                raise
            raise InvalidConfigError(f"The config is not valid. {refusal(error, self._name)}") from error
        return {**built, **_misread_texts(built, values, self._target)}

    def _construct(self, config: Mapping[str, Any], class_type: type, *args: Any, **kwargs: Any) -> Any:
        """Construct the class of a ``class_path``, or a module that is an argument of it, which is built as it is."""
        values = config[self._name]
        if class_type is not find_class(values["class_path"]):
            return class_type(*args, **kwargs)
        given = values.get("init_args") or {}
        kwargs |= _misread_texts(kwargs, given, class_type)
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

    def _without_swallowed(self, values: Any) -> Any:
        """Leave out what only ``**kwargs`` swallows: no type is known for it, and it is passed on as it is."""
        target = self._target
        if not isinstance(values, Mapping) or is_block(values) or target is None:
            return values
        signature = signature_of(target)
        if not signature.open:
            return dict(values)
        bound = target.keywords if isinstance(target, functools.partial) else {}
        known = {name for name, default in signature.defaults.items() if _is_plain(default) or name not in bound}
        return {name: value for name, value in values.items() if name in known}


def _add_section(parser: ArgumentParser, section: str, target: Any, values: Any) -> None:
    if is_block(values):
        if target is not None and not inspect.isclass(target):
            raise InvalidConfigError(
                f"The config's '{section}' has a class_path, and {_ARGUMENTS[section]} is a function: both say what "
                "to build. Leave one out."
            )
        parser.add_subclass_arguments(target or BASES[section], section, fail_untyped=False, required=True)
    elif inspect.isclass(target):
        parser.add_class_arguments(target, section, instantiate=False, fail_untyped=False, sub_configs=True)
    elif target is not None:
        parser.add_function_arguments(_named_parameters(target), section, fail_untyped=False, sub_configs=True)
    elif values or section == "model":
        hints = {name: did_you_mean(str(name), ["class_path"]) for name in values or ()}
        misspelt = next((f" There is '{name}'.{hint}" for name, hint in hints.items() if hint), "")
        raise InvalidConfigError(
            f"The config's '{section}' has no class_path, and {_ARGUMENTS[section]} is not given: "
            f"one of them must say what to build.{misspelt}"
        )


def _named_parameters(target: Callable[..., Any]) -> Callable[..., None]:
    """Return a function with the parameters of ``target`` that a config can give, for jsonargparse to read."""
    hints = type_hints(target)
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints.get(name, Any))
        for name, default in signature_of(target).defaults.items()
        if default is inspect.Parameter.empty or _is_plain(default)
    ]

    def described(**values: Any) -> None: ...

    described.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    described.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return described


def _is_plain(default: Any) -> bool:
    return isinstance(default, (type(None), bool, int, float, str, list, tuple, dict))


def _misread_texts(built: Mapping[str, Any], given: Mapping[str, Any], target: Any) -> dict[str, str]:
    """Return the arguments that were text, and are not any more.

    jsonargparse reads ``"1"`` as 1 where no annotation forbids it; what is recorded, and what runs, is the text.
    """
    read_as = (type(None), bool, int, float, list, dict)
    texts = {name: value for name, value in given.items() if isinstance(value, str)}
    changed = {name: value for name, value in texts.items() if isinstance(built.get(name, value), read_as)}
    hints = type_hints(target) if changed else {}
    return {name: value for name, value in changed.items() if _admits_text(hints.get(name, Any))}


def _admits_text(hint: Any) -> bool:
    return hint in (Any, str, object) or (
        get_origin(hint) in (Union, UnionType) and any(map(_admits_text, get_args(hint)))
    )


def check_classes(trainer: Mapping[str, Any]) -> None:
    """Check the loggers and callbacks of a Trainer's section; what jsonargparse says of them fills a page."""
    for setting, base in (("logger", Logger), ("callbacks", Callback)):
        given = trainer.get(setting)
        for i, block in enumerate(as_list(given)):
            path = f"trainer.{setting}.{i}" if isinstance(given, list) else f"trainer.{setting}"
            is_file = isinstance(block, str) and Path(block).is_file()
            is_name = isinstance(block, str) and not is_file
            # what else it may be, and init_args for a class that is named elsewhere, jsonargparse judges
            if is_name or (isinstance(block, Mapping) and block and next(iter(block)) != "init_args"):
                name, arguments = read_block(path, block)
                check_arguments(path, require_class(path, name, base), arguments)
