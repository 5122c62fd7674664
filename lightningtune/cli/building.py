"""A study file becomes an `OptunaDrivenOptimizer`: what it names is imported and built."""

from __future__ import annotations

import builtins
import dataclasses
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import optuna

from lightningtune.cli.study_file import StudyFile
from lightningtune.config.importing import find_script, import_named, search_also
from lightningtune.config.signatures import REQUIRED, Misfit, fit, signature_of, type_hints
from lightningtune.errors import InvalidConfigError, did_you_mean

if TYPE_CHECKING:
    from lightningtune.optimizer import OptunaDrivenOptimizer
    from lightningtune.training.cli_call import CliCall


def build_optimizer(study: StudyFile, folder: Path, cli: CliCall | None = None) -> OptunaDrivenOptimizer:
    """Build the optimizer that a study file asks for.

    Args:
        study: the study file, as it was read.
        folder: the one that it lies in, in which its modules and scripts are found; so they are in the working
            directory.
        cli: the LightningCLI, where that is not to be found by its name.

    Raises:
        ConfigurationError: when anything is wrong that can be known before the first epoch.
    """
    search_also(folder, Path())
    values = {field.name: getattr(study, field.name) for field in dataclasses.fields(study)}
    values["sampler"] = build_part("sampler", study.sampler, optuna.samplers, optuna.samplers.BaseSampler, folder)
    values["pruner"] = build_part("pruner", study.pruner, optuna.pruners, optuna.pruners.BasePruner, folder)
    values["catch"] = _exceptions(study.catch, folder)
    for name in ("model_class", "datamodule_class"):
        values[name] = None if values[name] is None else import_named(name, values[name], [folder])
    if cli is not None:
        values["cli"] = cli
    elif study.cli is not None:
        values["cli"] = find_script("cli", study.cli, [folder]) or import_named("cli", study.cli, [folder])
    if isinstance(study.search_space, str):
        values["search_space"] = import_named("search_space", study.search_space, [folder])
    if study.score not in ("best", "last") and not study.score.isidentifier():  # of a bare word, the facade says it
        values["score"] = import_named("score", study.score, [folder])
    values["callbacks"] = [_callback(f"callbacks.{i}", given, folder) for i, given in enumerate(study.callbacks or ())]

    # what is wrong above is told without waiting for torch
    from lightningtune.optimizer import OptunaDrivenOptimizer

    return OptunaDrivenOptimizer(**{name: value for name, value in values.items() if value is not None})


def build_part(what: str, given: Any, module: ModuleType, base: type, folder: Path | None = None) -> Any:
    """Build a sampler or a pruner.

    Args:
        what: what it is, as it is called in an error.
        given: a ``class_path`` block, or None.
        module: of Optuna's, whose classes need no more than their name.
        base: what it must be.
        folder: where a script's path may begin, beside the working directory.

    Raises:
        InvalidConfigError: naming what is wrong in it.

    Example:
        >>> block = {"class_path": "MedianPruner", "init_args": {"n_warmup_steps": 2}}
        >>> build_part("pruner", block, optuna.pruners, optuna.pruners.BasePruner)._n_warmup_steps
        2
    """
    if given is None:
        return None
    name, arguments = _block(what, given)
    own = [key for key, value in vars(module).items() if _is_one(value, base)]
    if "." not in name and ":" not in name:
        if name not in own:
            raise InvalidConfigError(
                f"{what}: Optuna has no {what} '{name}'.{did_you_mean(name, own)} It has: {', '.join(own)}."
            )
        target: Any = getattr(module, name)
    else:
        target = import_named(what, name, [] if folder is None else [folder])
        if not _is_one(target, base):
            raise InvalidConfigError(
                f"{what}: '{name}' must be a class that derives from {module.__name__}.{base.__name__}."
            )
    return _built(what, target, arguments)


def _is_one(value: Any, base: type) -> bool:
    return inspect.isclass(value) and issubclass(value, base) and not inspect.isabstract(value)


def _block(what: str, given: Any) -> tuple[str, Mapping[str, Any]]:
    """Take a name, or a ``class_path`` block, apart."""
    if isinstance(given, str):
        return given, {}
    keys = ("class_path", "init_args")
    if not isinstance(given, Mapping) or not isinstance(given.get("class_path"), str):
        raise InvalidConfigError(
            f"{what} must be a name, or a mapping with class_path and init_args, but got {given!r}."
        )
    for key in given:
        if key not in keys:
            raise InvalidConfigError(
                f"{what} has no '{key}'.{did_you_mean(str(key), keys)} What it takes is under init_args."
            )
    arguments = given.get("init_args") or {}
    if not isinstance(arguments, Mapping):
        raise InvalidConfigError(f"{what}.init_args must be a mapping, but got {arguments!r}.")
    return given["class_path"], arguments


def _built(what: str, target: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    name = getattr(target, "__name__", str(target))
    signature, hints = signature_of(target), type_hints(target)
    made = {}
    for argument, value in arguments.items():
        if not signature.accepts(argument):
            takes = ", ".join(signature.defaults) or "nothing"
            near = did_you_mean(argument, signature.defaults)
            raise InvalidConfigError(f"{what}: {name} has no '{argument}'.{near} It takes: {takes}.")
        try:
            made[argument] = fit(hints.get(argument, Any), value)
        except Misfit:
            annotation = inspect.formatannotation(hints[argument]).replace("NoneType", "None")
            raise InvalidConfigError(f"{what}: {name}'s {argument} must be {annotation}, but got {value!r}.") from None
    missing = [key for key, default in signature.defaults.items() if default is REQUIRED and key not in made]
    if missing:
        raise InvalidConfigError(f"{what}: {name} needs {' and '.join(missing)}, under init_args.")
    try:
        with warnings.catch_warnings():  # that it may change one day is nobody's mistake
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return target(**made)
    except Exception as error:  # each class has its own
        raise InvalidConfigError(f"{what}: {name} cannot be made: {' '.join(str(error).split())}") from error


def _callback(what: str, given: Any, folder: Path) -> Any:
    """Build a Lightning callback, or an Optuna callback, or take a function as it is.

    A study file may come from anyone, so nothing else is called.
    """
    name, arguments = _block(what, given)
    if "." not in name and ":" not in name:
        name = f"lightning.pytorch.callbacks.{name}"
    target = import_named(what, name, [folder])
    if not inspect.isclass(target):
        if arguments:
            raise InvalidConfigError(
                f"{what}: '{name}' is a function, which takes the study and the trial, and no init_args."
            )
        return target
    lightnings: Any = import_named(what, "lightning.pytorch.Callback")
    # of an Optuna callback only this is known: it is called
    if not issubclass(target, lightnings) and not any("__call__" in vars(kind) for kind in target.__mro__):
        from lightningtune.training.mixture import of_pytorch_lightning  # deferred import: it imports torch

        raise InvalidConfigError(
            f"{what}: '{name}' must be a Lightning callback, or an Optuna callback, which is called with study and "
            f"trial.{of_pytorch_lightning(target)}"
        )
    return _built(what, target, arguments)


def _exceptions(names: Sequence[str] | None, folder: Path) -> tuple[Any, ...] | None:
    """Return the classes of exceptions that are named, those of Python by their name alone."""
    if names is None:
        return None
    plain = [name for name, value in vars(builtins).items() if _is_one(value, Exception)]
    for name in names:
        if "." not in name and ":" not in name and name not in plain:
            raise InvalidConfigError(f"catch: Python has no exception '{name}'.{did_you_mean(name, plain)}")
    found = (getattr(builtins, name) if name in plain else import_named("catch", name, [folder]) for name in names)
    return tuple(found)
