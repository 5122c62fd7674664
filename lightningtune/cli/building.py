"""A study file becomes an `OptunaDrivenOptimizer`: what it names is imported and built."""

from __future__ import annotations

import builtins
import dataclasses
import inspect
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import optuna

from lightningtune.cli.study_file import StudyFile
from lightningtune.config.base import read_block
from lightningtune.config.importing import find_script, import_named, search_also
from lightningtune.config.signatures import REQUIRED, Misfit, check_arguments, fit, signature_of, type_hints
from lightningtune.errors import InvalidConfigError, did_you_mean

if TYPE_CHECKING:
    from lightningtune.optimizer import OptunaDrivenOptimizer
    from lightningtune.training.cli_call import CliCall


def build_optimizer(study: StudyFile, folder: Path, cli: CliCall | None = None) -> OptunaDrivenOptimizer:
    """Build the optimizer that a study file asks for; modules and scripts are found in its folder, and in this one.

    A LightningCLI may be given, where that is not to be found by its name.
    """
    search_also(folder, Path())
    values = {field.name: getattr(study, field.name) for field in dataclasses.fields(study)}
    values["sampler"] = build_part("sampler", study.sampler, optuna.samplers, optuna.samplers.BaseSampler, folder)
    values["pruner"] = build_part("pruner", study.pruner, optuna.pruners, optuna.pruners.BasePruner, folder)
    if study.catch is not None:
        values["catch"] = tuple(_find("catch", name, builtins, Exception, folder) for name in study.catch)
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

    # cheap checks first: torch takes seconds to import
    from lightningtune.optimizer import OptunaDrivenOptimizer

    return OptunaDrivenOptimizer(**{name: value for name, value in values.items() if value is not None})


def build_part(what: str, given: Any, module: ModuleType, base: type, folder: Path) -> Any:
    """Build a sampler or a pruner from a name or a ``class_path`` block; None from None."""
    if given is None:
        return None
    name, arguments = read_block(what, given)
    return _construct(what, _find(what, name, module, base, folder), arguments)


def _find(what: str, name: str, module: ModuleType, base: type, folder: Path) -> Any:
    """Import a class that derives from another; one of a certain module is named without it."""
    if "." in name or ":" in name:
        target: Any = import_named(what, name, [folder])
    else:
        target = getattr(module, name, None)
    if inspect.isclass(target) and issubclass(target, base) and not inspect.isabstract(target):
        return target
    if target is not None:
        raise InvalidConfigError(
            f"{what}: '{name}' must be a class that derives from {module.__name__}.{base.__name__}."
        )
    known = [key for key, kind in vars(module).items() if inspect.isclass(kind) and issubclass(kind, base)]
    near = did_you_mean(name, known) or f" It has: {', '.join(known)}."
    raise InvalidConfigError(f"{what}: {module.__name__} has no '{name}'.{near}")


def _construct(what: str, target: Any, arguments: Mapping[str, Any]) -> Any:
    name = getattr(target, "__name__", str(target))
    signature, hints = signature_of(target), type_hints(target)
    check_arguments(what, target, arguments)
    made = {}
    for argument, value in arguments.items():
        try:
            made[argument] = fit(hints.get(argument, Any), value)
        except Misfit:
            annotation = inspect.formatannotation(hints[argument]).replace("NoneType", "None")
            raise InvalidConfigError(f"{what}: {name}'s {argument} must be {annotation}, but got {value!r}.") from None
    missing = [key for key, default in signature.defaults.items() if default is REQUIRED and key not in made]
    if missing:
        raise InvalidConfigError(f"{what}: {name} needs {' and '.join(missing)}, under init_args.")
    try:
        with warnings.catch_warnings():  # an experimental sampler is the user's choice
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return target(**made)
    except Exception as error:  # each class has its own
        raise InvalidConfigError(f"{what}: {name} cannot be made: {' '.join(str(error).split())}") from error


def _callback(what: str, given: Any, folder: Path) -> Any:
    """Build a Lightning callback, or an Optuna callback, or take a function as it is.

    A study file may come from anyone, so nothing else is called.
    """
    name, arguments = read_block(what, given)
    name = name if "." in name or ":" in name else f"lightning.pytorch.callbacks.{name}"
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
    return _construct(what, target, arguments)
