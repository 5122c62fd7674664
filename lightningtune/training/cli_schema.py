"""Where dotted paths lead in a LightningCLI's config, and that config, read."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from lightningtune.config.base import read_config
from lightningtune.config.importing import classes_by_name, find_class
from lightningtune.config.overrides import SECTIONS, Place
from lightningtune.config.signatures import REQUIRED, Signature, signature_of
from lightningtune.config.values import plain
from lightningtune.errors import InvalidConfigError, did_you_mean
from lightningtune.training.class_names import NAMED, LightningSchema
from lightningtune.training.cli_call import FIT, CliCall, CliForm
from lightningtune.training.messages import refusal

SEED = "seed_everything"


class CliSchema(LightningSchema):
    """What each section of a LightningCLI's config builds: those that every CLI has, and the user's own.

    Args:
        call: constructs the CLI.

    Raises:
        ConfigurationError: when it cannot set up its parser.
    """

    def __init__(self, call: CliCall) -> None:
        given = call.arguments
        super().__init__(given.get("model_class"), given.get("datamodule_class"), given.get("trainer_class"))
        object.__setattr__(self, "call", call)
        object.__setattr__(self, "form", call.form())

    call: CliCall
    form: CliForm

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as what it is made from."""
        return CliSchema, (self.call,)

    @property
    def parts(self) -> Mapping[str, Any]:
        """What builds the model and the data."""
        return {"cli": self.call.cli, **super().parts}

    @property
    def sections(self) -> Sequence[str]:
        """The keys of a config, without the seed."""
        known = (*vars(self.form.defaults), *(target.partition(".")[0] for target in self.form.links))
        return [key for key in dict.fromkeys(known) if key not in ("config", SEED)]

    def locate(self, config: Mapping[str, Any], path: str) -> Place:
        """Find where a dotted path leads; a bare name may be a key of the config's own.

        Raises:
            InvalidConfigError: when it leads nowhere, or to what ``link_arguments`` sets.
        """
        short = _without_init_args(path)
        if path in self.sections and not self._is_group(path):
            place: Place = (path,)
        else:
            place = super().locate(config, path)
            short = _without_init_args(".".join(map(str, place)))
        for target, source in self.form.links.items():
            if short == _without_init_args(target):
                raise InvalidConfigError(
                    f"'{path}' is linked: {self.call.name} sets it from '{source}'. Tune that instead."
                )
        return place

    def check(self, config: Mapping[str, Any]) -> Namespace:
        """Have the CLI's own parser parse a config, and return what it makes of it.

        Raises:
            InvalidConfigError: with its reason.
        """
        try:
            parsed: Namespace = self.form.parser.parse_object(copy.deepcopy({**config}))
        except Exception as error:  # jsonargparse raises several kinds, each with its own causes
            near = next(filter(None, map(_nearest_class, _short_names(config))), "")
            raise InvalidConfigError(f"The config is not valid. {refusal(error)}{near}") from None
        return parsed

    def _own_signature(self, place: Place) -> Signature | None:
        """Return the keys of a group, which the CLI's parser knows, with its defaults; what is linked is a key too."""
        node: Any = self.form.defaults
        for key in place:
            node = node.get(str(key)) if isinstance(node, Namespace) else None
        path = ".".join(map(str, place))
        linked = [name for group, _, name in (target.rpartition(".") for target in self.form.links) if group == path]
        is_group = isinstance(node, Namespace) and "class_path" not in node
        if not is_group and not linked:
            return None
        target = getattr(self, path) if path in SECTIONS else None
        own = {} if target is None else signature_of(target).defaults
        defaults: dict[str, Any] = dict.fromkeys(linked)
        for name, default in vars(node).items() if is_group else ():
            defaults[name] = REQUIRED if default is None and own.get(name) is REQUIRED else default
        return Signature(defaults)

    def _is_group(self, key: str) -> bool:
        default = self.form.defaults.get(key)
        return isinstance(default, Namespace) and "class_path" not in default


def read_cli_config(schema: CliSchema, source: str | os.PathLike[str] | Mapping[str, Any] | None) -> dict[str, Any]:
    """Read a config as the subcommand ``fit`` takes it, with the CLI's own defaults that decide how a trial is run.

    Args:
        schema: the CLI's.
        source: a YAML or JSON file, or a mapping.

    Returns:
        A config that holds class paths in full, and what ``trainer_defaults`` gives.

    Raises:
        InvalidConfigError: when it is neither, or has a key that the CLI does not know.
    """
    written, folder = read_config({} if source is None else source)
    if isinstance(written.get(FIT), Mapping) and FIT not in schema.sections:  # a config of the whole command
        written = {**written[FIT]}
    allowed = (*schema.sections, SEED)
    config: dict[str, Any] = {}
    for name, value in written.items():
        if value is None:
            continue
        if name not in allowed:
            hint = did_you_mean(str(name), allowed)
            raise InvalidConfigError(f"{schema.call.name} takes no '{name}'.{hint} It takes: {', '.join(allowed)}.")
        config[name] = _read(str(name), value, folder)
    trainer = {**schema.form.trainer_defaults, **(config.get("trainer") or {})}
    config = {**config, "trainer": trainer} if trainer else config
    for name in schema.sections:
        default = schema.form.defaults.get(name)
        if name not in config and isinstance(default, Namespace) and "class_path" in default:
            config[name] = read_config(default.as_dict())[0]
    seed = config.get(SEED, schema.form.defaults.get(SEED, True))
    if not isinstance(seed, int) or seed < 0:
        raise InvalidConfigError(f"{SEED} must be true, false or an integer from 0, but got {seed!r}.")
    try:
        parsed = schema.check(config)
    except (
        InvalidConfigError
    ):  # the space may give what it lacks; what else is wrong is told when its points are checked
        parsed = schema.form.defaults
    return {SEED: seed, **{name: _in_full(value, parsed.get(name)) for name, value in config.items() if name != SEED}}


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
    kept = {name: item for name, item in inner["init_args"].items() if not _is(item, defaults.get(name, REQUIRED))}
    return {**inner, "init_args": kept}


def _is(written: Any, default: Any) -> bool:
    try:
        return bool(plain(default) == written)
    except TypeError:  # it is no plain value
        return False


def _read(name: str, value: Any, folder: Path) -> Any:
    """Return a section, from the file of its own that a config may name."""
    is_named = isinstance(value, str) and value.endswith((".yaml", ".yml", ".json"))
    if is_named and (name in SECTIONS or (folder / value).is_file()):
        return read_config(folder / value)[0]
    return value


def _in_full(written: Any, parsed: Any) -> Any:
    """Write short names of classes as the CLI's parser has understood them, and a name alone as a block.

    Of a module that is in no package, which may be a script, the names stay short: in the script itself its classes are
    ``__main__``'s.
    """
    is_block = isinstance(parsed, Namespace) and "class_path" in parsed
    is_short = is_block and parsed["class_path"].count(".") == 1
    if isinstance(written, str) and is_block:
        return {"class_path": written if is_short else parsed["class_path"]}
    if isinstance(written, Mapping):
        inner = {
            name: _in_full(value, parsed.get(name) if isinstance(parsed, (Namespace, Mapping)) else None)
            for name, value in written.items()
        }
        is_named = is_block and "class_path" in inner and not is_short
        return {**inner, "class_path": parsed["class_path"]} if is_named else inner
    if isinstance(written, list) and isinstance(parsed, list) and len(written) == len(parsed):
        return [_in_full(*pair) for pair in zip(written, parsed, strict=True)]
    return written


def _short_names(node: Any) -> Iterator[str]:
    """Yield the classes that a config names without their module."""
    if isinstance(node, Mapping):
        name = node.get("class_path")
        if isinstance(name, str) and "." not in name:
            yield name
    for inner in node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ():
        yield from _short_names(inner)


def _nearest_class(name: str) -> str:
    """Suggest a class that a config could name so; nothing where there is one of that name."""
    known = classes_by_name(*NAMED)
    return "" if name in known else did_you_mean(name, sorted(known))


def _without_init_args(path: str) -> str:
    return path.replace(".init_args.", ".")
