"""Trials of a LightningCLI: where paths lead in its config, and each trial, built by the user's own CLI."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightningtune.config.base import FIT, SEED, is_block, load_base_config, walk
from lightningtune.config.importing import classes_by_name, find_class
from lightningtune.config.schema import Node, Place, Schema
from lightningtune.config.signatures import REQUIRED, Signature, signature_of
from lightningtune.config.values import plain, same
from lightningtune.errors import ConfigurationError, InvalidConfigError, did_you_mean
from lightningtune.training.build import Blueprint, Fit, as_lightning_module, without_compilation
from lightningtune.training.cli_call import CliCall, CliForm, CliLike, catch_cli
from lightningtune.training.folders import own_folder
from lightningtune.training.loops import get_callbacks
from lightningtune.training.messages import refusal
from lightningtune.training.process_state import quiet_lightning
from lightningtune.training.sections import NAMED, ConfigSection
from lightningtune.training.shared_data import has_preparation, load
from lightningtune.training.tracker_names import FILE_LOGGERS
from lightningtune.training.trackers import Trackers
from lightningtune.training.trainers import check_trainer, launched_by_us, settings_left_alone


@dataclass(frozen=True)
class CliSchema(Schema):
    """What each section of a LightningCLI's config builds: those that every CLI has, and the user's own."""

    call: CliCall = field(kw_only=True)
    form: CliForm = field(kw_only=True)

    @classmethod
    def of(cls, given: CliLike) -> CliSchema:
        """Find out how a CLI is constructed, and have it set up its parser."""
        call = catch_cli(given)
        given_to = call.arguments.get
        model, data, trainer = given_to("model_class"), given_to("datamodule_class"), given_to("trainer_class")
        return cls(model, data, trainer, NAMED, call=call, form=call.form())

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as what it is made from."""
        return CliSchema.of, (self.call,)

    @property
    def parts(self) -> Mapping[str, Any]:
        """What builds the model and the data."""
        return {"cli": self.call.cli, **super().parts}

    @property
    def sections(self) -> Sequence[str]:
        """The keys of a config, without the seed."""
        known = (*vars(self.form.defaults), *(target.partition(".")[0] for target in self.form.links))
        return [key for key in dict.fromkeys(known) if key not in ("config", SEED)]

    def find(self, config: Mapping[str, Any], path: str) -> Node:
        """Find where a dotted path leads; a bare name may be a key of the config's own."""
        default = self.form.defaults.get(path)
        is_group = isinstance(default, Namespace) and "class_path" not in default
        is_key = path in self.sections and not is_group
        node = Node(self, (path,), config.get(path)) if is_key else super().find(config, path)
        for target, source in self.form.links.items():
            if node.path.replace(".init_args.", ".") == target.replace(".init_args.", "."):
                raise InvalidConfigError(
                    f"'{path}' is linked: {self.call.name} sets it from '{source}'. Tune that instead."
                )
        return node

    def check(self, config: Mapping[str, Any]) -> Namespace:
        """Have the CLI's own parser parse a config, and return what it makes of it."""
        try:
            parsed: Namespace = self.form.parser.parse_object(copy.deepcopy({**config}))
        except Exception as error:  # jsonargparse raises several kinds, each with its own causes
            names = (str(node["class_path"]) for node in walk(config) if is_block(node))
            near = next(filter(None, map(_nearest_class, names)), "")
            raise InvalidConfigError(f"The config is not valid. {refusal(error)}{near}") from None
        return parsed

    def own_signature(self, place: Place) -> Signature | None:
        """Return the keys of a group, which the CLI's parser knows, with its defaults; what is linked is a key too."""
        node: Any = self.form.defaults
        for key in place:
            node = node.get(str(key)) if isinstance(node, Namespace) else None
        path = ".".join(map(str, place))
        linked = [name for group, _, name in (target.rpartition(".") for target in self.form.links) if group == path]
        is_group = isinstance(node, Namespace) and "class_path" not in node
        if not is_group and not linked:
            return None
        target = self.targets.get(path)
        own = {} if target is None else signature_of(target).defaults
        defaults: dict[str, Any] = dict.fromkeys(linked)
        for name, default in vars(node).items() if is_group else ():
            defaults[name] = REQUIRED if default is None and own.get(name) is REQUIRED else default
        return Signature(defaults)


def _nearest_class(name: str) -> str:
    """Suggest a class where a config names one without its module, and there is none of that name."""
    known = classes_by_name(*NAMED)
    return "" if "." in name or name in known else did_you_mean(name, sorted(known))


def read_cli_config(schema: CliSchema, source: Any) -> dict[str, Any]:
    """Read a config as the subcommand ``fit`` takes it, with the CLI's own defaults that decide how a trial is run."""
    config = load_base_config(source, schema.sections, f"The config of {schema.call.name}")
    trainer = {**schema.form.trainer_defaults, **config.get("trainer", {})}
    config |= {"trainer": trainer} if trainer else {}
    seed = config.pop(SEED, schema.form.defaults.get(SEED))
    for name in schema.sections:
        default = schema.form.defaults.get(name)
        if name not in config and isinstance(default, Namespace) and "class_path" in default:
            config[name] = plain(default)
    try:
        parsed = schema.check(config)
    except InvalidConfigError:  # the space may give what it lacks; what else is wrong is found in its points
        parsed = schema.form.defaults
    return {SEED: True if seed is None else seed, **{key: _in_full(config[key], parsed.get(key)) for key in config}}


def _in_full(written: Any, parsed: Any) -> Any:
    """Write short names of classes as the CLI's parser has understood them, and a name alone as a block.

    Of a module that is in no package, which may be a script, the names stay short: in the script itself its classes are
    ``__main__``'s.
    """
    parsed = vars(parsed) if isinstance(parsed, Namespace) else parsed
    full = str(parsed["class_path"]) if is_block(parsed) else ""
    if isinstance(written, str) and full:
        written = {"class_path": written}
    if isinstance(written, Mapping):
        known = parsed if isinstance(parsed, Mapping) else {}
        inner = {name: _in_full(value, known.get(name)) for name, value in written.items()}
        return {**inner, "class_path": full} if is_block(inner) and full.count(".") > 1 else inner
    if isinstance(written, list) and isinstance(parsed, list) and len(written) == len(parsed):
        return [_in_full(*pair) for pair in zip(written, parsed, strict=True)]
    return written


def without_defaults(value: Any) -> Any:
    """Leave out of every ``class_path`` block what it has by default, which another class may not take.

    Example:
        >>> block = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.1, "betas": [0.9, 0.999]}}
        >>> without_defaults({"optimizer": block})
        {'optimizer': {'class_path': 'torch.optim.Adam', 'init_args': {'lr': 0.1}}}
    """
    if isinstance(value, list):
        return [without_defaults(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    inner = {name: without_defaults(item) for name, item in value.items()}
    target = find_class(str(inner.get("class_path")))
    if target is None or not isinstance(inner.get("init_args"), Mapping):
        return inner
    defaults = signature_of(target).defaults
    given = inner["init_args"].items()
    return {**inner, "init_args": {name: item for name, item in given if not same(item, defaults.get(name, REQUIRED))}}


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
    if isinstance(first, FILE_LOGGERS):
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
