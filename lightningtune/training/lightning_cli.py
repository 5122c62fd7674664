"""Trials of a LightningCLI: each is built by the user's own CLI, from a config that its ``fit`` takes as it is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightningtune.config.base import FIT, SEED
from lightningtune.config.schema import Schema
from lightningtune.errors import ConfigurationError
from lightningtune.training.build import Blueprint, Fit, as_lightning_module, check_trainer, without_compilation
from lightningtune.training.cli_schema import CliSchema
from lightningtune.training.folders import own_folder
from lightningtune.training.loops import get_callbacks
from lightningtune.training.quiet import quiet_lightning
from lightningtune.training.sections import ConfigSection
from lightningtune.training.shared_data import has_preparation, load
from lightningtune.training.trackers import Trackers
from lightningtune.training.trainers import (
    launched_by_us,
    settings_left_alone,
)

_WRITTEN_BY_US = "config.yaml"
"""In a trial's folder; ``SaveConfigCallback`` has the same name for its file."""


class CliBlueprint(Blueprint):
    """Knows how to build trials of a LightningCLI."""

    schema: CliSchema

    def __init__(
        self, schema: CliSchema, config: Mapping[str, Any], share_data: bool = False, data_seed: int | None = None
    ) -> None:
        super().__init__(schema, config, share_data, data_seed)
        self._data_links = [target for target in schema.form.links if target.partition(".")[0] == "data"]
        if share_data and self._data_links:
            raise ConfigurationError(
                f"share_data loads the data once, but {schema.call.name} links '{self._data_links[0]}' to another part "
                "of the config, so that it may vary from trial to trial. Leave share_data out."
            )

    def _make_sections(self) -> Mapping[str, ConfigSection]:
        return {}  # the CLI's own parser reads them

    @property
    def parts(self) -> Mapping[str, Any]:
        """What must travel to a trial's process."""
        return {"cli": self.schema.call, "base_config": self.config}

    def check(self, config: Mapping[str, Any]) -> None:
        """Have the CLI's own parser parse a config."""
        super().check(config)
        self.schema.check(config)

    def arguments(self, config: Mapping[str, Any], section: str) -> Any:
        """Return a section of a config as the CLI's own parser reads it, before anything is built."""
        return self.schema.check(config).get(section)

    def check_trainer(self, config: Mapping[str, Any]) -> int:
        """Build the Trainer of a config without callbacks and loggers, and return how many processes it has."""
        parsed = self.schema.check(config)
        names = set(config.get("trainer") or {}) & set(inspect.signature(Trainer).parameters)
        given = {name: value for name, value in parsed["trainer"].as_dict().items() if name in names}
        return check_trainer(ConfigSection(Schema(trainer=Trainer), "trainer", given), given)

    def has_preparation(self, config: Mapping[str, Any]) -> bool:
        """Whether the datamodule has a ``prepare_data`` of its own, which depends on nothing but the data's section."""
        return not self._data_links and has_preparation(self.schema.data, config.get("data"))

    def load_data(self) -> None:
        """Load the data of the base config: every fit of this blueprint's shares it.

        The datamodule has a Trainer and a model that the CLI builds from the base config.
        """
        if self.schema.data is None and not self.config.get("data"):
            raise ConfigurationError(f"share_data takes a LightningDataModule, and {self.schema.call.name} has none.")
        config = {**self.config, SEED: False, "trainer": {**(self.config.get("trainer") or {}), "logger": False}}
        self._loaded = None
        fit = self.build(config, Path(), (), Callback(), data_seed=self.data_seed)
        self._loaded = load(fit.trainer, fit.model, fit.data["datamodule"])

    def build_model(self, config: Mapping[str, Any]) -> LightningModule:
        """Build the model, without the compilation of a compiled one, and the data, but no Trainer."""
        with quiet_lightning():
            cli = self.schema.call.build({**config, SEED: False})  # nobody trains what would be seeded
        return without_compilation(as_lightning_module(cli.model, self.schema.call.name))

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
        """Have the CLI build a fit, with a Trainer that has our callback too."""
        is_given = (config.get("trainer") or {}).get("devices") is not None

        def make_trainer(trainer_class: Callable[..., Trainer], **settings: Any) -> Trainer:
            listed = settings.get("callbacks") or []
            users = [*(listed if isinstance(listed, list) else [listed]), *callbacks]
            if settings.get("devices") == "auto" and not is_given:
                settings["devices"] = None
            defaults = settings_left_alone(directory, users)
            settings |= {name: value for name, value in defaults.items() if settings.get(name, own) is None}
            settings["default_root_dir"] = own_folder(settings.get("default_root_dir") or directory, directory)
            settings["logger"] = trackers.adopt(settings["logger"]) if trackers else settings["logger"]
            _keep_apart(users, directory, _place_of(settings))
            settings |= {"callbacks": [*users, own]} if "callbacks" in settings else {}
            return trainer_class(**launched_by_us(settings))

        instantiators = trackers.instantiators if trackers else ()
        cli = self.schema.call.build(config, make_trainer, instantiators, data_seed)
        model = as_lightning_module(cli.model, self.schema.call.name)
        trainer = getattr(cli, "trainer", None)
        if trainer is None or own not in get_callbacks(trainer):
            raise ConfigurationError(
                f"{self.schema.call.name} must build its Trainer by calling self.trainer_class with callbacks, as "
                "super().instantiate_trainer(...) does: a trial adds its own."
            )
        if cli.datamodule is None and not is_overridden("train_dataloader", model):
            raise ConfigurationError(
                f"There is no data: {self.schema.call.name} has no datamodule, and {type(model).__name__} has no "
                "train_dataloader."
            )
        data = {} if cli.datamodule is None else {"datamodule": cli.datamodule}
        self._ready(data, model, config, data_is_prepared, data_seed)
        return Fit(model, trainer, data, getattr(cli, FIT, None))


def _place_of(settings: Mapping[str, Any]) -> str | None:
    """Return where `Trainer.log_dir` will be, by the settings of a Trainer; None where its logger keeps no files."""
    given = settings.get("logger")
    loggers = [*given] if isinstance(given, Iterable) else [given]
    first = loggers[0] if loggers else None
    if isinstance(first, (CSVLogger, TensorBoardLogger)):
        return first.log_dir
    place: str | None = first.save_dir if isinstance(first, Logger) else settings.get("default_root_dir")
    return place


def _keep_apart(callbacks: list[Callback], directory: Path, place: str | None) -> None:
    """Have the CLI's ``SaveConfigCallback`` overwrite its own file, and write none where the trial has one.

    A trial that is replayed or goes on would find its file there, and raise, as it would where there is no folder.
    """
    is_ours = place is None or Path(place).absolute() == directory.absolute()
    for callback in [each for each in callbacks if isinstance(each, SaveConfigCallback)]:
        if is_ours and type(callback) is SaveConfigCallback and callback.config_filename == _WRITTEN_BY_US:
            callbacks.remove(callback)
            continue
        callback.overwrite = True
        callback.save_to_log_dir &= place is not None
        if is_ours and callback.config_filename == _WRITTEN_BY_US:
            callback.config_filename = "config_of_cli.yaml"
