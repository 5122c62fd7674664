"""Build a model, its data and a Trainer from a config, with jsonargparse, as LightningCLI does."""

from __future__ import annotations

import contextlib
import inspect
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.compile import from_compiled, to_uncompiled
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn

from lightningtune.config.base import has_block
from lightningtune.config.schema import Schema
from lightningtune.config.signatures import given_hyperparameters
from lightningtune.errors import ConfigurationError
from lightningtune.training.data import data_seeded, name_loaders, seed_hooks
from lightningtune.training.folders import own_folder
from lightningtune.training.mixture import of_pytorch_lightning
from lightningtune.training.resumption import ResumePoint
from lightningtune.training.sections import BASES, ConfigSection, check_classes
from lightningtune.training.shared_data import (
    SharedData,
    give,
    has_preparation,
    load,
    refuse_other_data,
    skip_preparation,
    which_data,
)
from lightningtune.training.tracker_names import refuse_shared_runs, with_folders
from lightningtune.training.trackers import Trackers
from lightningtune.training.trainers import check_trainer, launched_by_us, settings_left_alone


@dataclass(frozen=True)
class Fit:
    """Everything one call of ``Trainer.fit`` needs."""

    model: LightningModule
    trainer: Trainer
    data: Mapping[str, Any]  # a datamodule or dataloaders, under the names that ``Trainer.fit`` has for them
    method: Callable[..., Any] | None = None  # called in place of ``Trainer.fit``, with the same arguments

    def run(self, start: ResumePoint | None = None) -> None:
        """Train, from the beginning or from a checkpoint of the study's own, which is unpickled where it must be."""
        given: dict[str, Any] = {} if start is None else {"ckpt_path": start.checkpoint}
        if start is not None and "weights_only" in inspect.signature(Trainer.fit).parameters:  # new in Lightning 2.6
            given["weights_only"] = start.weights_only
        (self.method or self.trainer.fit)(model=self.model, **self.data, **given)


class Blueprint:
    """Builds trials whose configs have the form of ``config``.

    Args:
        schema: what the sections build.
        config: any config of that form.
        share_data: whether all trials have the data of ``config``.
        data_seed: the study's, for the data that all trials share.

    Raises:
        InvalidConfigError: when a section cannot be built at all.
    """

    def __init__(
        self, schema: Schema, config: Mapping[str, Any], share_data: bool = False, data_seed: int | None = None
    ) -> None:
        self.schema = schema
        self.config = config
        self.share_data = share_data
        self.data_seed = data_seed
        self._sections = self._make_sections()
        self._shared = which_data(config.get("data")) if share_data else None
        self._loaded: SharedData | None = None

    def _make_sections(self) -> Mapping[str, ConfigSection]:
        sections = (*BASES, "trainer")
        return {name: ConfigSection(self.schema, name, self.config.get(name)) for name in sections}

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as what it is made from; the data is loaded where it is needed."""
        return type(self), (self.schema, self.config, self.share_data, self.data_seed)

    @property
    def parts(self) -> Mapping[str, Any]:
        """What must travel to a trial's process, under the names by which users give it."""
        return {**self.schema.parts, "base_config": self.config}

    def check(self, config: Mapping[str, Any]) -> None:
        """Parse a config without building anything; raise a ConfigurationError that names what does not fit."""
        if self._shared is not None:
            refuse_other_data(self._shared, config.get("data"))
        check_classes(config.get("trainer") or {})
        refuse_shared_runs(config.get("trainer") or {})
        for section in self._sections.values():
            section.parse(_with_folders(config, "."))

    def arguments(self, config: Mapping[str, Any], section: str) -> Any:
        """Return a section of a config as jsonargparse reads it, before anything is built; None if it has none."""
        parsed = self._sections[section].parse(_with_folders(config, "."))
        return None if parsed is None else parsed[section]

    def check_trainer(self, config: Mapping[str, Any]) -> int:
        """Build the Trainer of a config, without callbacks and loggers, and return how many processes it has."""
        return check_trainer(self._sections["trainer"], config.get("trainer") or {})

    def has_preparation(self, config: Mapping[str, Any]) -> bool:
        """Whether the datamodule has a ``prepare_data`` of its own, as far as that can be told without building it."""
        return has_preparation(self.schema.data, config.get("data"))

    def load_data(self) -> None:
        """Load the data of the base config, which every fit of this blueprint shares.

        Raises:
            ConfigurationError: when there is no datamodule, or it holds what processes cannot share.
        """
        built = None
        if self.schema.data is not None or self.config.get("data"):
            with data_seeded(self.data_seed, "construction"):
                built = self._call("data", self.config)
        if not isinstance(built, LightningDataModule):
            raise ConfigurationError(f"share_data takes a LightningDataModule, but datamodule_class builds {built!r}.")
        without = {name: None for name in ("callbacks", "profiler") if name in (self.config.get("trainer") or {})}
        section = {**(self.config.get("trainer") or {}), **without, "logger": False}
        settings, _ = self._settings({**self.config, "trainer": section}, Path())  # of a Trainer without a model
        seed_hooks(built, self.data_seed)
        self._loaded = load(_trainer(settings, Path(), (), Callback()), None, built)

    def build_model(self, config: Mapping[str, Any]) -> LightningModule:
        """Build only the model, without the compilation of a compiled one."""
        return without_compilation(self._model(config))

    def set_up_model(self, config: Mapping[str, Any]) -> LightningModule:
        """Build the model, and have Lightning set it up with the config's data, as at the beginning of a fit."""
        trainer = {**(config.get("trainer") or {}), **_SET_UP_ONLY}
        with tempfile.TemporaryDirectory() as directory:
            config, seed = {**config, "trainer": trainer}, self.data_seed
            fit = self.build(config, Path(directory), (), _EndAtStart(), data_seed=seed)
            with contextlib.suppress(_Started):
                fit.run()
        return without_compilation(fit.model)

    def build(
        self,
        config: Mapping[str, Any],
        directory: Path,
        callbacks: tuple[Callback, ...],
        own: Callback,
        data_is_prepared: bool = False,
        trackers: Trackers | None = None,
        data_seed: int | None = None,
    ) -> Fit:
        """Build a fit.

        Args:
            config: a resolved config.
            directory: where loggers and anything else of this trial writes by default.
            callbacks: the user's, beyond those in the config.
            own: the callback that watches the trial.
            data_is_prepared: whether ``prepare_data`` has been called for this config's data.
            trackers: makes and guards the loggers.
            data_seed: the study's, with which the data is made.
        """
        settings, users = self._settings(config, directory, trackers)
        users += callbacks
        model = self._model(config)
        with data_seeded(data_seed, "construction"):
            source = self._data(config, model)
        self._ready(source, model, config, data_is_prepared, data_seed)
        return Fit(model, _trainer(settings, directory, users, own, trackers), source)

    def _settings(
        self, config: Mapping[str, Any], directory: Path, trackers: Trackers | None = None
    ) -> tuple[dict[str, Any], list[Callback]]:
        """Build what the trainer's section of a config asks for: settings, and callbacks."""
        instantiators = trackers.instantiators if trackers else ()
        built = self._sections["trainer"].build(_with_folders(config, directory), instantiators)
        # a whole config, as LightningCLI prints it, holds null for each setting that is left alone
        settings = {key: built[key] for key, given in (config.get("trainer") or {}).items() if given is not None}
        listed = settings.pop("callbacks", None) or []
        return settings, [*(listed if isinstance(listed, list) else [listed])]

    def _ready(
        self,
        source: Mapping[str, Any],
        model: LightningModule,
        config: Mapping[str, Any],
        is_prepared: bool,
        data_seed: int | None,
    ) -> None:
        """Seed the hooks that make the data; skip those whose work is done for all trials."""
        if not source:
            seed_hooks(model, data_seed)
        datamodule = source.get("datamodule")
        if datamodule is None:
            return
        seed_hooks(datamodule, data_seed)
        if self._shared is not None and self._loaded is not None:
            refuse_other_data(self._shared, config.get("data"))
            give(datamodule, self._loaded)
        elif is_prepared:
            skip_preparation(datamodule)

    def _model(self, config: Mapping[str, Any]) -> LightningModule:
        return as_lightning_module(self._call("model", config), "model_class")

    def _data(self, config: Mapping[str, Any], model: LightningModule) -> Mapping[str, Any]:
        if self.schema.data is None and not config.get("data"):
            if not is_overridden("train_dataloader", model):
                raise ConfigurationError(
                    f"There is no data: datamodule_class is not given, the config has no 'data', and "
                    f"{type(model).__name__} has no train_dataloader."
                )
            return {}
        built = self._call("data", config)
        if isinstance(built, LightningDataModule):
            return {"datamodule": built}
        return name_loaders(built)

    def _call(self, section: str, config: Mapping[str, Any]) -> Any:
        values = config.get(section) or {}
        built = self._sections[section].build(config)
        if "class_path" in values:
            return built
        target = getattr(self.schema, section)
        arguments = {name: built.get(name, value) for name, value in values.items()}
        if not inspect.isclass(target) or not has_block(values):
            return target(**arguments)
        swallowed = {name: value for name, value in values.items() if name not in built}  # by its **kwargs
        with given_hyperparameters(target, {**self._sections[section].as_plain(config), **swallowed}):
            return target(**arguments)


def _trainer(
    settings: Mapping[str, Any],
    directory: Path,
    callbacks: Sequence[Callback],
    own: Callback,
    trackers: Trackers | None = None,
) -> Trainer:
    settings = {**settings_left_alone(directory, callbacks), **launched_by_us(settings)}
    settings["default_root_dir"] = own_folder(settings["default_root_dir"], directory)
    settings["logger"] = trackers.adopt(settings["logger"]) if trackers else settings["logger"]
    return Trainer(**settings, callbacks=[*callbacks, own])


def _with_folders(config: Mapping[str, Any], directory: str | os.PathLike[str]) -> Mapping[str, Any]:
    return {**config, "trainer": with_folders(config.get("trainer") or {}, directory)}


def as_lightning_module(built: Any, builder: str) -> LightningModule:
    """Return a model as ``Trainer.fit`` takes it; one that ``torch.compile`` has returned stays compiled.

    Raises:
        ConfigurationError: when ``builder`` has built something else.
    """
    if isinstance(built, LightningModule):
        return built
    if isinstance(built, nn.Module):
        with contextlib.suppress(ValueError):  # it is not compiled, or no LightningModule was
            return from_compiled(built)  # type: ignore[arg-type]
    hint = of_pytorch_lightning(built)
    raise ConfigurationError(f"{builder} must build a LightningModule, but built {type(built).__name__}.{hint}")


def without_compilation(model: LightningModule) -> LightningModule:
    """Return a model that runs as it was before ``torch.compile``; the model itself is changed."""
    with contextlib.suppress(ValueError):  # it is not compiled
        return to_uncompiled(model)
    return model


_SET_UP_ONLY: Mapping[str, Any] = {
    "accelerator": "cpu",
    "strategy": "auto",
    "devices": 1,
    "precision": None,
    "plugins": None,
    "profiler": None,
    "logger": False,
    "callbacks": None,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
"""Settings of a Trainer that only sets a model up: it computes on the CPU, writes nothing, and shows nothing."""


class _Started(Exception):  # noqa: N818 - it is no error
    pass


class _EndAtStart(Callback):
    """Ends a fit before it begins: the data is attached, and every module is set up."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        raise _Started
