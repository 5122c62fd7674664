"""``lightningtune init``: a commented study file for a model of the user's own."""

from __future__ import annotations

import contextlib
import inspect
import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightningtune.cli.output import show
from lightningtune.cli.parsing import CommandParser
from lightningtune.config.importing import find_script, import_named, search_also
from lightningtune.errors import ConfigurationError, InvalidConfigError
from lightningtune.files import expand_home, write_text
from lightningtune.wording import as_argument

if TYPE_CHECKING:
    from lightningtune.cli.drafting import Draft
    from lightningtune.training.cli_call import CliCall

_EPILOG = """\
examples:
  lightningtune init train.py:Net --data train.py:Data
  lightningtune init --cli train.py
  lightningtune init mypackage.net.Net --output digits.yaml"""


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = CommandParser(
        "init",
        "Writes a commented study file for a model of yours. The search space is guessed from the arguments of its "
        "__init__: by name, annotation and default.",
        _EPILOG,
    )
    named = "as package.module:Name, package.module.Name or train.py:Name"
    parser.add_argument("model", metavar="MODEL", nargs="?", help=f"the LightningModule, {named}")
    parser.add_argument(
        "--cli", metavar="CLI", help="in place of MODEL, a LightningCLI that builds it: a script, or a name as above"
    )
    parser.add_argument(
        "--data", metavar="DATA", help="its LightningDataModule; the one of the model's module when not given"
    )
    parser.add_argument(
        "--output", metavar="FILE", default="study.yaml", help="the file that is written (default: study.yaml)"
    )
    parser.add_argument("--force", action="store_true", help="replace the file if it is there")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Write a study file."""
    given = parser().parse_args(arguments)
    output = expand_home(given.output)
    if output.suffix not in (".yaml", ".yml"):
        raise ConfigurationError(f"--output must be a file that ends in .yaml, but got '{output}'.")
    if output.exists() and not given.force:
        raise ConfigurationError(
            f"'{output}' is there already. Replace it with --force, or name another with --output."
        )

    if (given.model is None) is (given.cli is None):
        raise ConfigurationError("init takes a model, as train.py:Net, or --cli and the script of a LightningCLI.")
    draft = _draft(given, output)
    write_text(output, draft.text)
    show(f"Wrote '{output}': {draft.tuned} to tune, {draft.left} more to look at.")
    for what in draft.missing:
        show(f"Fill in: {what}.")
    show(f"Then: {shlex.join(['lightningtune', 'tune', *as_argument(str(output))])}")
    return 0


def _draft(given: Namespace, output: Path) -> Draft:
    # deferred import: keeps --help fast
    from lightningtune.arguments import check_target
    from lightningtune.cli.drafting import Part, draft_of

    search_also(Path())
    if given.cli is not None:
        return _draft_of_cli(_cli_call(given.cli), _from(output, given.cli))
    model = import_named("MODEL", given.model)
    check_target("model_class", model)
    call, script = _cli_of_script(given.model)
    if call is not None and call.arguments.get("model_class") is model:
        return _draft_of_cli(call, _from(output, script))
    data = None
    name = given.data or _data_beside(model, given.model)
    if name is not None:
        found = import_named("--data", name)
        check_target("datamodule_class", found)
        data = Part("data", _from(output, name), found)
    base: Any = import_named("MODEL", "lightning.pytorch.LightningModule")
    brings_data = getattr(model, "train_dataloader", base.train_dataloader) is not base.train_dataloader
    return draft_of(Part("model", _from(output, given.model), model), data, brings_data)


def _cli_call(name: str) -> CliCall:
    from lightningtune.training.cli_script import caught

    return caught(find_script("--cli", name) or import_named("--cli", name))


def _cli_of_script(model: str) -> tuple[CliCall | None, str]:
    """Return how the script of a model constructs its LightningCLI, and the script; None where it constructs none."""
    name = model.partition(":")[0]
    script = find_script("MODEL", name)
    if script is not None and "LightningCLI" in script.read_text(encoding="utf-8"):
        with contextlib.suppress(ConfigurationError):
            return _cli_call(name), name
    return None, name


def _draft_of_cli(call: CliCall, name: str) -> Draft:
    from lightningtune.cli.drafting import Part, draft_of

    parts: dict[str, Part] = {}
    for section, argument in (("model", "model_class"), ("data", "datamodule_class")):
        target = call.arguments.get(argument)
        if callable(target) and not call.arguments.get(f"subclass_mode_{section}"):
            parts[section] = Part(section, target.__name__, target)
    if "model" not in parts:
        raise ConfigurationError(
            f"--cli: {name} takes the class of its model from the config, so no search space can be guessed. "
            f"Write one: lightningtune tune --help names what a study file holds beside 'cli: {name}'."
        )
    return draft_of(parts["model"], parts.get("data"), cli=name)


def _data_beside(model: Any, name: str) -> str | None:
    """Return the datamodule of the model's module, named as the model is; None unless there is exactly one."""
    module = sys.modules[model.__module__]
    base: Any = import_named("--data", "lightning.pytorch.LightningDataModule")
    found = [
        key
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, base) and value.__module__ == model.__module__
    ]
    if len(found) != 1:
        return None
    mark = ":" if ":" in name else "."
    beside = f"{name.rpartition(mark)[0]}{mark}{found[0]}"
    try:
        is_there = import_named("--data", beside) is vars(module)[found[0]]
    except InvalidConfigError:  # the model is named where it is imported, and its data is not
        is_there = False
    return beside if is_there else f"{module.__name__}{mark}{found[0]}"


def _from(output: Path, name: str) -> str:
    """Return a name as it is found from the folder of the study file: a script's path begins there."""
    script, mark, rest = name.partition(":")
    return f"{os.path.relpath(script, output.parent)}{mark}{rest}" if script.endswith(".py") else name
