"""The Trainer of one trial: what it is given where the user leaves a setting alone, and what it may not be."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelSummary, ProgressBar
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from lightningtune.config.base import as_list
from lightningtune.config.importing import find_class
from lightningtune.errors import ConfigurationError
from lightningtune.training.messages import one_line
from lightningtune.training.process_state import quiet_lightning
from lightningtune.training.sections import ConfigSection


def settings_left_alone(directory: Path, callbacks: Sequence[Callback]) -> dict[str, Any]:
    """Return what a trial's Trainer is given for each setting that the user leaves alone."""
    return {
        "devices": 1,
        "logger": CSVLogger(directory, name="", version=""),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in callbacks),
        "default_root_dir": directory,
    }


def prints_itself(settings: Mapping[str, Any], callbacks: Sequence[Callback]) -> bool:
    """Whether a trial prints a progress bar, or a summary of its model, where it trains.

    Example:
        >>> prints_itself({"max_epochs": 2}, []), prints_itself({"callbacks": {"class_path": "RichProgressBar"}}, [])
        (False, True)
    """
    if settings.get("enable_progress_bar") or settings.get("enable_model_summary"):
        return True
    kinds: list[Any] = [type(callback) for callback in callbacks]
    for block in as_list(settings.get("callbacks")):
        name = block.get("class_path") if isinstance(block, Mapping) else block
        kinds.append(find_class(name, Callback) if isinstance(name, str) else type(name))
    return any(isinstance(kind, type) and issubclass(kind, (ProgressBar, ModelSummary)) for kind in kinds)


def check_trainer(section: ConfigSection, values: Mapping[str, Any]) -> int:
    """Build the Trainer of a section's values, and return how many processes it has.

    It has no loggers, callbacks and profilers, which may write or connect to a server.

    Raises:
        ConfigurationError: with Lightning's reason, where it cannot be had on this machine.
    """
    left_out = ("logger", "callbacks", "profiler")
    given = {name: value for name, value in values.items() if value is not None and name not in left_out}
    built = section.build({"trainer": given})
    given = {name: built[name] for name in given}
    bare = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    with quiet_lightning():
        try:
            trainer = Trainer(**{"devices": 1, **launched_by_us(given), **bare})
        except ConfigurationError:
            raise
        except Exception as error:  # Lightning, torch and plugins raise several kinds
            raise ConfigurationError(f"trainer: {one_line(error)}") from None
    if trainer.num_nodes > 1:
        raise ConfigurationError(f"trainer: a trial trains on one machine, but num_nodes is {trainer.num_nodes}.")
    # only its launcher tells how a strategy starts processes, and the classes of launchers are private
    launcher = trainer.strategy.launcher
    if launcher is not None and not isinstance(launcher, _SubprocessScriptLauncher):
        raise ConfigurationError(
            f"trainer: {type(trainer.strategy).__name__} starts processes in a way of its own "
            f"({type(launcher).__name__}), and LightningTune starts those of a trial by itself. Use a "
            "strategy that can be started by a command for each process, such as ddp or fsdp, without start_method."
        )
    return trainer.world_size


def launched_by_us(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with which Lightning leaves starting processes to us.

    The strategy is ``ddp`` for ``ddp_spawn``. The cluster environment is Lightning's own, which goes by the variables
    that a trial's ranks are given, and by nothing that Slurm, torchrun or MPI tell the study's process.

    Raises:
        ConfigurationError: when they name another cluster environment, or switch off all metrics.
    """
    if settings.get("barebones"):
        raise ConfigurationError("trainer: barebones switches off the metrics that a search needs; remove it.")
    strategy, plugins = settings.get("strategy"), settings.get("plugins") or []
    plugins = [*plugins] if isinstance(plugins, (list, tuple)) else [plugins]
    given = [*plugins, getattr(strategy, "cluster_environment", None)]
    environments = [plugin for plugin in given if isinstance(plugin, ClusterEnvironment)]
    others = [type(plugin).__name__ for plugin in environments if type(plugin) is not LightningEnvironment]
    if others:
        raise ConfigurationError(
            f"trainer: {others[0]} says that a launcher starts the processes of a fit, and LightningTune starts those "
            "of a trial by itself. Remove it."
        )
    if not environments:
        plugins.append(LightningEnvironment())
    if isinstance(strategy, str):
        strategy = re.sub("_(spawn|fork|notebook)", "", strategy)
    return {**settings, "plugins": plugins, **({"strategy": strategy} if strategy is not None else {})}


def refuse_processes(trainer: Trainer) -> None:
    """Raise ConfigurationError for a Trainer that would start processes by itself."""
    if trainer.world_size > 1 and "LOCAL_RANK" not in os.environ:  # by which Lightning, too, knows that it is a rank
        raise ConfigurationError(
            f"trainer: {type(trainer.strategy).__name__} would train this trial in {trainer.world_size} processes, "
            "and its devices or its strategy are sampled. Fix them in the config, or let isolate=True."
        )
