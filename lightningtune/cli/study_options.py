"""The options of ``tune`` and ``check``: a study file, and any value of it or of its config."""

from __future__ import annotations

import argparse
import dataclasses
import functools
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from lightningtune.cli.completion import list_of_optuna, list_study_files, one_of, suggest
from lightningtune.cli.output import tell
from lightningtune.cli.parsing import CommandParser
from lightningtune.cli.study_file import StudyFile, descriptions, hints, read_study, read_value, read_yaml
from lightningtune.config.base import TOP_NAMES
from lightningtune.errors import InvalidConfigError
from lightningtune.files import expand_home

_ALSO = {"base_config": "--config", "search_space": "--space"}
"""Shorter options for two names."""


class StudyParser(CommandParser):
    """The parser of a command that takes a study file, and any value of it as an option.

    What it parses has ``read_study``, which reads and checks the study that the command line asks for.

    Example:
        >>> parser = StudyParser("tune", print, "Runs a study.")
        >>> given = parser.parse_args(["--n_trials=5", "--study_name", "digits", "--trainer.max_epochs", "2"])
        >>> given.read_study().base_config
        {'trainer': {'max_epochs': 2}}
    """

    def __init__(
        self, name: str, command: Callable[[Namespace], int | None], description: str, epilog: str | None = None
    ) -> None:
        super().__init__(name, command, description, epilog)
        self.usage = f"{self.prog} [STUDY.yaml] [--NAME VALUE ...]"
        file = self.add_argument(
            "study", metavar="STUDY.yaml", nargs="?", type=expand_home, help="the study file, YAML or JSON"
        )
        suggest(file, list_study_files)
        group = self.add_argument_group("values of the study file, which an option overrides")
        defaults = {field.name: field.default for field in dataclasses.fields(StudyFile)}
        for field, hint in hints().items():
            described, default = descriptions()[field], defaults[field]
            if default is not None:
                described += f" (default: {str(default).lower() if isinstance(default, bool) else default})"
            options: dict[str, Any] = {"type": _reader(field), "default": argparse.SUPPRESS, "metavar": _metavar(hint)}
            option = group.add_argument(f"--{field}", help=described.replace("%", "%%"), **options)
            suggest(option, _suggestions(field, hint))
            if field in _ALSO:
                group.add_argument(_ALSO[field], dest=field, help=f"the same as --{field}", **options)

    def hint(self, name: str) -> str:
        """Return which option is meant, or how to reach what is no option of its own."""
        return super().hint(name) or " What stands in the config is given by its path, such as --model.lr."

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse the arguments; those that lead into the config are taken out first."""
        rest, placed = self._take_paths(args or ())
        given = super().parse_args(rest, namespace)
        given.read_study = functools.partial(self._read_study, given, placed)
        return given

    def _take_paths(self, arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, Any]]]:
        """Split off the options of the config: dotted paths, and what a LightningCLI has at its top."""
        rest, placed, left = [], [], [*arguments]
        while left:
            argument = left.pop(0)
            option, is_given, text = argument.partition("=")
            is_known = not option.startswith("--") or option == "--" or option in self._option_string_actions
            if is_known or ("." not in option and not is_given and (not left or left[0].startswith("--"))):
                rest.append(argument)
                takes_value = option.removeprefix("--") in hints() or option in _ALSO.values()
                if takes_value and not is_given and left:
                    rest.append(left.pop(0))  # a value may begin with dashes
                continue
            if not is_given:
                if not left:
                    self.error(f"{option} needs a value")
                text = left.pop(0)
            placed.append((option.removeprefix("--"), read_yaml(text)))
        return rest, placed

    def _read_study(self, given: Namespace, placed: list[tuple[str, Any]]) -> StudyFile:
        values = {name: value for name, value in vars(given).items() if name in hints()}
        if given.study is None and not values and not placed:
            self.error("there is no study file. 'lightningtune init package.module:Net' writes one")
        study = read_study(given.study, values, placed)
        for name, _ in placed:
            if study.cli is None and "." not in name and name not in TOP_NAMES:
                self.refuse(f"--{name}")
        for path, value in placed:
            if is_tuned(study, path):
                tell(f"{self.prog}: '{path}' is tuned: {value!r} is that of the untuned defaults only.")
        return study


def is_tuned(study: StudyFile, path: str) -> bool:
    """Whether a path into the config is in the search space too, where that is written in the study file.

    Example:
        >>> is_tuned(StudyFile(search_space={"lr": ["uniform", 0, 1]}), "model.init_args.lr")
        True
    """
    if not isinstance(study.search_space, dict):
        return False
    section, *inner = path.replace(".init_args", "").split(".")
    # a LightningCLI has arguments of its own at its top, of which that of the model may have the name
    is_short = len(inner) == 1 and section in ("model", "data") and study.cli is None
    names = {path.replace(".init_args", ""), *(inner if is_short else ())}
    for name, spec in study.search_space.items():
        paths = (spec.get("paths") if isinstance(spec, dict) else None) or [name]
        if any(str(sampled).replace(".init_args", "") in names for sampled in paths):
            return True
    return False


def _reader(field: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return read_value(field, text)
        except InvalidConfigError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _suggestions(field: str, hint: Any) -> Callable[..., Iterable[str]]:
    if get_origin(hint) is Literal:
        return one_of(*get_args(hint))
    if hint is bool:
        return one_of("true", "false")
    if field in ("sampler", "pruner"):
        return list_of_optuna(field)
    known = {"direction": one_of("minimize", "maximize"), "score": one_of("best", "last")}
    return known.get(field, list_study_files if field in _ALSO else one_of())


def _metavar(hint: Any) -> str:
    inner = get_args(hint)
    if get_origin(hint) is Literal:
        return "|".join(inner)
    plain = [one for one in inner or [hint] if one is not NoneType]
    names = {int: "N", float: "SECONDS", bool: "BOOL", str: "TEXT"}
    return names.get(plain[0], "LIST") if len(plain) == 1 else "VALUE"
