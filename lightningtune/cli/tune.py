"""``lightningtune tune``."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from lightningtune.cli.output import tell
from lightningtune.cli.parsing import CommandParser
from lightningtune.cli.studies import NO_CHECK, STORAGE
from lightningtune.cli.study_file import StudyFile, descriptions, hints, read_study, read_value, with_given_storage
from lightningtune.cli.suggesting import one_of, optunas, study_files, suggest
from lightningtune.config.base import TOP_NAMES
from lightningtune.errors import InvalidConfigError, redact
from lightningtune.files import expand_home, load_yaml

ALSO = {"base_config": "--config", "search_space": "--space"}
"""Shorter options for two names."""
_SHORT = frozenset(option.removeprefix("--") for option in ALSO.values())
_EPILOG = """\
What stands inside the config, the space, the sampler or another value is given
by its path:
  --trainer.max_epochs 20   --model.lr 0.1   --search_space.lr.high 1

examples:
  lightningtune init train.py:Net     # writes study.yaml
  lightningtune tune study.yaml
  lightningtune tune study.yaml --n_trials 100 --trainer.max_epochs 20
  lightningtune tune study.yaml --print_config > resolved.yaml"""


class StudyParser(CommandParser):
    """The parser of a command that takes a study file, and any value of it as an option.

    Args:
        name: the command's.
        description: what it does.
        epilog: what stands below the options.

    Example:
        >>> parser = StudyParser("tune", "Runs a study.")
        >>> parser.parse_study(["--n_trials=5", "--study_name", "digits", "--trainer.max_epochs", "2"])[1].base_config
        {'trainer': {'max_epochs': 2}}
    """

    def __init__(self, name: str, description: str, epilog: str | None = None) -> None:
        super().__init__(name, description, epilog)
        self.usage = f"{self.prog} [STUDY.yaml] [--NAME VALUE ...]"
        file = self.add_argument(
            "study", metavar="STUDY.yaml", nargs="?", type=expand_home, help="the study file, YAML or JSON"
        )
        suggest(file, study_files)
        group = self.add_argument_group("values of the study file, which an option overrides")
        defaults = {field.name: field.default for field in dataclasses.fields(StudyFile)}
        for field, hint in hints().items():
            described = descriptions()[field]
            shown = defaults[field]
            if shown is not None:
                described += f" (default: {str(shown).lower() if isinstance(shown, bool) else shown})"
            options: dict[str, Any] = {"type": _reader(field), "default": argparse.SUPPRESS, "metavar": _metavar(hint)}
            option = group.add_argument(f"--{field}", help=described.replace("%", "%%"), **options)
            suggest(option, _suggested(field, hint))
            if field in ALSO:
                group.add_argument(ALSO[field], dest=field, help=f"the same as --{field}", **options)

    def near(self, name: str) -> str:
        """Say which option is meant, or how to reach what is no option of its own."""
        return super().near(name) or " What stands in the config is given by its path, such as --model.lr."

    def parse_study(self, arguments: Sequence[str]) -> tuple[argparse.Namespace, StudyFile]:
        """Parse the command line, and read the study that it asks for.

        Returns:
            What the command's own options are, and the study.

        Raises:
            InvalidConfigError: when the study is not right.
        """
        rest, placed = self._placed(arguments)
        given = self.parse_args(rest)
        values = {name: value for name, value in vars(given).items() if name in hints()}
        if given.study is None and not values and not placed:
            self.error("there is no study file. 'lightningtune init package.module:Net' writes one")
        study = read_study(given.study, values, placed)
        for name, _ in placed:
            if study.cli is None and "." not in name and name not in TOP_NAMES:
                self.refuse(f"--{name}")
        for path, value in placed:
            if varies(study, path):
                tell(f"{self.prog}: '{path}' is tuned: {value!r} is that of the untuned defaults only.")
        return given, study

    def _placed(self, arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, Any]]]:
        """Take out what no parser can know: the options of the config, paths or what a LightningCLI has at its top."""
        rest, placed, left = [], [], [*arguments]
        while left:
            argument = left.pop(0)
            option, is_given, text = argument.partition("=")
            is_known = not option.startswith("--") or option == "--" or option in self._option_string_actions
            if is_known or ("." not in option and not is_given and (not left or left[0].startswith("--"))):
                rest.append(argument)
                if option.removeprefix("--") in {*hints(), *_SHORT} and not is_given and left:
                    rest.append(left.pop(0))  # a value may begin with dashes
                continue
            if not is_given:
                if not left:
                    self.error(f"{option} needs a value")
                text = left.pop(0)
            placed.append((option.removeprefix("--"), _read_any(text)))
        return rest, placed


def varies(study: StudyFile, path: str) -> bool:
    """Whether a path into the config is in the search space too, as far as that is no function and is not declared.

    Example:
        >>> varies(StudyFile(search_space={"lr": ["uniform", 0, 1]}), "model.init_args.lr")
        True
    """
    if not isinstance(study.search_space, dict):
        return False
    section, *inner = path.replace(".init_args", "").split(".")
    # a LightningCLI has arguments of its own at its top, of which that of the model may have the name
    is_short = len(inner) == 1 and section in ("model", "data") and study.cli is None
    names = {path.replace(".init_args", ""), *(inner if is_short else ())}
    fed = [
        sampled
        for name, spec in study.search_space.items()
        for sampled in (spec.get("paths") or [name] if isinstance(spec, dict) else [name])
    ]
    return any(str(sampled).replace(".init_args", "") in names for sampled in fed)


def parser() -> StudyParser:
    """Return the command's parser."""
    parser = StudyParser(
        "tune",
        "Runs the study of a study file, or goes on with it. Each trial runs in a process of its own.",
        _EPILOG,
    )
    parser.add_argument("--no-check", **NO_CHECK)
    parser.add_argument("--print_config", action="store_true", help="print the whole study, resolved, and do nothing")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run a study."""
    given, study = parser().parse_study(arguments)
    if given.print_config:
        if redact(study.storage or "") != (study.storage or ""):
            tell(f"The storage is left out, since its URL holds a password. Give it with {STORAGE}.")
            study = dataclasses.replace(study, storage=None)
        sys.stdout.write(study.to_yaml())
        return 0
    study = with_given_storage(study)

    # imported where it is used: --help is not to wait for Optuna and torch
    from lightningtune.cli.building import build_optimizer
    from lightningtune.cli.kept import code_of, run_kept

    folder = Path(given.study or "").parent
    optimizer = build_optimizer(study, folder)
    if not given.no_check:
        from lightningtune.cli.check import check_first

        check_first(optimizer, study)
    run_kept(optimizer, study, folder)
    return code_of(optimizer.results())


def _reader(field: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return read_value(field, text)
        except InvalidConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _read_any(text: str) -> Any:
    try:
        return load_yaml(text) if text else text  # nothing is not null
    except InvalidConfigError:
        return text


def _suggested(field: str, hint: Any) -> Callable[..., Iterable[str]]:
    """Return what a shell may complete a value with."""
    if get_origin(hint) is Literal:
        return one_of(*get_args(hint))
    if hint is bool:
        return one_of("true", "false")
    if field in ("sampler", "pruner"):
        return optunas(field)
    known = {"direction": one_of("minimize", "maximize"), "score": one_of("best", "last")}
    return known.get(field, study_files if field in ALSO else one_of())


def _metavar(hint: Any) -> str:
    inner = get_args(hint)
    if get_origin(hint) is Literal:
        return "|".join(inner)
    plain = [one for one in inner or [hint] if one is not NoneType]
    names = {int: "N", float: "SECONDS", bool: "BOOL", str: "TEXT"}
    return names.get(plain[0], "LIST") if len(plain) == 1 else "VALUE"
