"""Where dotted paths lead in a LightningCLI's config, and that config, read."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jsonargparse import Namespace

from lightningtune.config.base import SEED, is_block, load_base_config, walk
from lightningtune.config.importing import classes_by_name, find_class
from lightningtune.config.schema import Node, Place, Schema
from lightningtune.config.signatures import REQUIRED, Signature, signature_of
from lightningtune.config.values import plain, same
from lightningtune.errors import InvalidConfigError, did_you_mean
from lightningtune.training.cli_call import CliCall, CliForm, CliLike, catch_cli
from lightningtune.training.messages import refusal
from lightningtune.training.sections import NAMED


@dataclass(frozen=True)
class CliSchema(Schema):
    """What each section of a LightningCLI's config builds: those that every CLI has, and the user's own.

    Attributes:
        call: constructs the CLI.
        form: what its parser takes.
    """

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
