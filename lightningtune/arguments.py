"""Check the arguments of `OptunaDrivenOptimizer` before anything else happens."""

from __future__ import annotations

import copy
import inspect
import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import nn

from lightningtune.config.base import load_base_config
from lightningtune.config.schema import Schema
from lightningtune.errors import ConfigurationError, did_you_mean, redact
from lightningtune.search.spaces import SearchSpace, SearchSpaceLike, as_search_space, combine, in_section
from lightningtune.search.tunable import search_space_of
from lightningtune.training.build import Blueprint
from lightningtune.training.callback import TrialCallback
from lightningtune.training.mixture import of_pytorch_lightning
from lightningtune.training.sections import NAMED
from lightningtune.training.tracker_names import refuse_logger_objects

if TYPE_CHECKING:
    from lightningtune.training.cli_call import CliLike

log = logging.getLogger(__name__)

OPTUNA_KWARGS = ("catch", "gc_after_trial", "show_progress_bar")


def check_injected(sampler: Any, pruner: Any) -> None:
    """Refuse what is no Optuna sampler or pruner, such as a class or a name."""
    for name, value, base in (
        ("sampler", sampler, optuna.samplers.BaseSampler),
        ("pruner", pruner, optuna.pruners.BasePruner),
    ):
        if value is not None and not isinstance(value, base):
            hint = f" Did you mean {value.__name__}()?" if inspect.isclass(value) and issubclass(value, base) else ""
            if isinstance(value, str):
                kinds = {kind.lower().removesuffix(name): kind for kind in getattr(optuna, f"{name}s").__all__}
                kind = kinds.get(value.lower().removesuffix(name))
                hint = f" Did you mean optuna.{name}s.{kind}()?" if kind else ""
            raise ConfigurationError(f"{name} must be an object of optuna.{name}s, but got {value!r}.{hint}")


def check_integers(at_least: Mapping[str, tuple[Any, int]]) -> None:
    """Check integers, given as name to (value, lowest allowed value); ``n_jobs`` may be -1 too."""
    for name, (value, least) in at_least.items():
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        if not is_integer or (value < least and (name, value) != ("n_jobs", -1)):
            also = ", or -1 for as many as fit" if name == "n_jobs" else ""
            raise ConfigurationError(f"{name} must be an integer from {least}{also}, but got {value!r}.")


def check_seeds(seeds: int | Sequence[int]) -> Sequence[int]:
    """Check one seed, or several, and return all."""
    chosen: Sequence[Any] = [seeds] if isinstance(seeds, (int, str, float)) else seeds
    check_integers({f"seeds[{i}]": (seed, 0) for i, seed in enumerate(chosen)})
    if len({*chosen}) < len(chosen):
        raise ConfigurationError(f"seeds names a seed twice: {list(chosen)}.")
    return chosen


def check_optuna_kwargs(given: Mapping[str, Any], own: Iterable[str]) -> None:
    """Refuse unknown keywords, with the nearest known one, and wrong values."""
    for name in given:
        if name not in OPTUNA_KWARGS:
            hint = did_you_mean(name, (*OPTUNA_KWARGS, *own))
            raise ConfigurationError(
                f"'{name}' is not an argument of OptunaDrivenOptimizer.{hint} Of Optuna's arguments it takes: "
                f"storage, load_if_exists, timeout, {', '.join(OPTUNA_KWARGS)}."
            )
    catch = given.get("catch", ())
    for error in catch if isinstance(catch, Iterable) else (catch,):
        if not (inspect.isclass(error) and issubclass(error, Exception)):
            raise ConfigurationError(f"catch must be a class of exceptions, or several, but got {catch!r}.")
    flags = ("gc_after_trial", "show_progress_bar")
    check_flags({name: given[name] for name in flags if name in given})


def check_seconds(name: str, value: Any, may_be_zero: bool = False) -> None:
    """Check a time limit; None means none."""
    if value is None or (_is_number(value) and 0 <= value < math.inf and (value or may_be_zero)):
        return
    allowed = "from 0" if may_be_zero else "above 0"
    raise ConfigurationError(f"{name} must be a number of seconds {allowed}, or None for no limit, but got {value!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_flags(given: Mapping[str, Any]) -> None:
    """Check flags, given by name."""
    for name, value in given.items():
        if not isinstance(value, bool):
            raise ConfigurationError(f"{name} must be True or False, but got {value!r}.")


def sort_callbacks(callbacks: Sequence[Any]) -> tuple[list[Callback], list[Callable[..., None]]]:
    """Split callbacks into Lightning's and Optuna's."""
    if not isinstance(callbacks, Sequence):
        raise ConfigurationError(f"callbacks must be a list, but got {callbacks!r}.")
    for callback in callbacks:
        if isinstance(callback, TrialCallback):
            raise ConfigurationError(
                f"{type(callback).__name__} is for an objective of your own; OptunaDrivenOptimizer adds what it needs."
            )
        if not isinstance(callback, Callback) and (inspect.isclass(callback) or not _takes_study_and_trial(callback)):
            raise ConfigurationError(
                "callbacks takes Lightning callbacks, and Optuna callbacks (called with study and trial), "
                f"but got {callback!r}.{of_pytorch_lightning(callback)}"
            )
    lightning = [callback for callback in callbacks if isinstance(callback, Callback)]
    for callback in lightning:
        try:
            copy.deepcopy(callback)
        except Exception as error:  # user code may raise anything
            kind = type(callback).__name__
            held = next((name for name, value in vars(callback).items() if not _can_be_copied(value)), None)
            raise ConfigurationError(
                f"Each trial gets a copy of {kind}, which cannot be copied: {f'its {held}: ' if held else ''}{error}. "
                f"Open files, connections and locks in a hook of {kind}, such as setup."
            ) from error
    return lightning, [without_failures(callback) for callback in callbacks if not isinstance(callback, Callback)]


def _can_be_copied(value: Any) -> bool:
    try:
        copy.deepcopy(value)
    except Exception:  # user code may raise anything
        return False
    return True


def _takes_study_and_trial(callback: Any) -> bool:
    try:
        inspect.signature(callback).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # some builtins have no signature
        return callable(callback)
    return True


def check_target(what: str, target: Any) -> None:
    """Refuse a ``model_class`` or ``datamodule_class`` that cannot be one."""
    base = LightningModule if what == "model_class" else LightningDataModule
    if callable(target):
        _check_names(what, target)
    function = "" if what == "model_class" else " Dataloaders are returned by a function."
    if inspect.isclass(target) and not issubclass(target, base):
        raise ConfigurationError(
            f"{what}={target.__name__} must derive from lightning.pytorch.{base.__name__}.{function}"
            f"{of_pytorch_lightning(target)}"
        )
    if target is not None and (not callable(target) or isinstance(target, (base, nn.Module))):
        given = f"a {type(target).__name__} that is built already" if isinstance(target, nn.Module) else repr(target)
        raise ConfigurationError(f"{what} must be a class or a callable that builds one, but got {given}.{function}")


def _check_names(what: str, target: Callable[..., Any]) -> None:
    """Refuse positional-only parameters: a config passes arguments by name."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # some builtins have no signature
        return
    nameless = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_ONLY]
    if nameless:
        raise ConfigurationError(
            f"{what}={getattr(target, '__name__', target)}: {', '.join(nameless)} cannot be given by name, for a '/' "
            "comes after, and a config gives every argument by its name."
        )


def what_to_train(
    base_config: str | os.PathLike[str] | Mapping[str, Any] | None,
    model_class: Callable[..., Any] | None,
    datamodule_class: Callable[..., Any] | None,
    cli: CliLike | None,
) -> tuple[dict[str, Any], Schema, type[Blueprint]]:
    """Return the base config, what its sections build, and what builds trials: from classes, or by a LightningCLI."""
    refuse_logger_objects(base_config)
    if cli is None:
        check_target("model_class", model_class)
        check_target("datamodule_class", datamodule_class)
        return load_base_config(base_config), Schema(model_class, datamodule_class, Trainer, NAMED), Blueprint
    for name, target in (("model_class", model_class), ("datamodule_class", datamodule_class)):
        if target is not None:
            raise ConfigurationError(f"{name} and cli both say what to train. Leave {name} out: the CLI has its own.")
    # deferred import: Lightning's CLI module changes settings of jsonargparse
    from lightningtune.training.lightning_cli import CliBlueprint, CliSchema, read_cli_config

    cli_schema = CliSchema.of(cli)
    return read_cli_config(cli_schema, base_config), cli_schema, CliBlueprint


def space_of(given: SearchSpaceLike | None, schema: Schema, config: Mapping[str, Any]) -> SearchSpace:
    """Return the given space, or those that the model's and the datamodule's classes declare."""
    if given is not None:
        return as_search_space(given)
    spaces = []
    for section in ("model", "data"):
        block = config.get(section, {})
        target = getattr(schema, section)
        space = search_space_of(schema.class_at(str(block.get("class_path")))) or search_space_of(target)
        if space is not None:
            spaces.append(in_section(section, space))
    if not spaces:
        raise ConfigurationError(
            "There is nothing to tune: pass search_space, or decorate the model's or the datamodule's class "
            "with @tunable."
        )
    return combine(*spaces)


def without_failures(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a tracker callback of optuna-integration so that it never raises; others may mean to.

    Example:
        >>> without_failures(print) is print
        True
    """
    if not any(base.__module__.partition(".")[0] == "optuna_integration" for base in type(callback).__mro__):
        return callback
    has_failed = False

    def call(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        nonlocal has_failed
        try:
            callback(study, trial)
        except Exception as error:  # a tracker, its server and the network may fail in any way
            text = "%s failed for trial %d: %s: %s. The study goes on, and nothing more is said of it."
            if not has_failed:
                has_failed = True
                reason = redact(" ".join(str(error).split()))
                log.warning(text, type(callback).__name__, trial.number, type(error).__name__, reason)

    return call
