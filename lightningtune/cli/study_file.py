"""The study file: all of a study in one YAML or JSON file, and each value of it as an option; read without torch."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import inspect
import json
import os
import re
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lightningtune.cli.completion import list_of_optuna, list_study_files, one_of, suggest
from lightningtune.cli.output import tell
from lightningtune.cli.parsing import CommandParser
from lightningtune.cli.studies import get_default_storage
from lightningtune.config.base import FILE_ENDINGS, TOP_NAMES, place_at, with_files
from lightningtune.errors import InvalidConfigError, did_you_mean
from lightningtune.files import dump_yaml, expand_home, load_yaml, read_mapping
from lightningtune.wording import as_argument, command


@dataclass(frozen=True)
class StudyFile:
    """What a study file may hold, under the names of `OptunaDrivenOptimizer`.

    A class or a function is named as ``package.module.Name``, ``package.module:Name`` or ``train.py:Name``. It is found
    in the study file's folder and in the working directory too.

    Attributes:
        base_config: what is trained: the sections model, data and trainer, in plain form or with class_path and
            init_args; or the path of a file with them, as LightningCLI writes it.
        search_space: what may vary: names or dotted paths to ranges and choices; or the path of a file with them, or
            the name of a function of the trial. When not given, what @tunable declares.
        model_class: the LightningModule, or a function that builds one; may be left out where the config has a
            class_path.
        datamodule_class: the LightningDataModule, or a function that builds one, or that returns dataloaders.
        cli: in place of the two classes, a LightningCLI or a subclass, a function that constructs one, or the path of a
            script that does. Trials are built by it, and the config is one of its fit.
        sampler: an Optuna sampler, as a name (TPESampler) or with class_path and init_args; TPE when not given.
        pruner: an Optuna pruner, as a name (MedianPruner) or with class_path and init_args; Optuna's default when not
            given.
        study_name: the study's name, and its folder's; the name of the study file when not given.
        direction: minimize or maximize, one for each metric.
        n_trials: the study's total. Running again goes on up to it.
        metric: the metric to tune, as the model logs it; a list for several objectives.
        callbacks: a list of Lightning and Optuna callbacks, as names or with class_path and init_args.
        experiment_dir: where the study's folder lies; lightningtune_runs when not given.
        save_checkpoints: whether trials write checkpoints.
        verbose: whether a live view is printed.
        seed: seeds the sampler and each trial; drawn and kept on the study when not given.
        score: which of a trial's values is its score: best, last, or the name of a function of all of them.
        non_finite: what NaN or infinity does to a trial: prune, fail or ignore.
        baseline: whether the untuned defaults are the first trial, which is never pruned; or that point of the space,
            by parameter name, where it cannot be told from the defaults.
        save_top_k: of how many of the best trials the weights are kept.
        max_failures: how many identical failures in a row end the study; ten times as many once a trial has worked.
        n_jobs: how many trials run at a time, each in a process of its own; -1 for as many as fit this machine: one for
            each accelerator, otherwise one for each core.
        isolate: whether a trial runs in a process of its own with one job too. Set it to false to debug a trial.
        trial_timeout: seconds above 0 that one trial may take.
        devices_per_trial: accelerators of one trial; as many as the trainer's devices when not given.
        trials_per_device: how many trials share one accelerator.
        share_data: whether the datamodule is built and set up once, and every trial's process shares its memory.
        storage: where the study is stored: a URL such as sqlite:///study.db, or the path of a journal file; when not
            given, what the environment variable LIGHTNINGTUNE_STORAGE names, or a journal in the study's folder.
        load_if_exists: whether a study of this name goes on; otherwise it is an error that there is one.
        timeout: seconds after which no more trials begin.
        catch: names of the exceptions that fail a trial and not the study; all when not given.

    Example:
        >>> StudyFile(metric="val_acc", direction="maximize").n_trials
        100
    """

    base_config: str | dict[str, Any] | None = None
    search_space: str | dict[str, Any] | None = None
    model_class: str | None = None
    datamodule_class: str | None = None
    cli: str | None = None
    sampler: str | dict[str, Any] | None = None
    pruner: str | dict[str, Any] | None = None
    study_name: str | None = None
    direction: str | list[str] = "minimize"
    n_trials: int = 100
    metric: str | list[str] = "val_loss"
    callbacks: list[Any] | None = None
    experiment_dir: str | None = None
    save_checkpoints: bool = True
    verbose: bool = True
    seed: int | None = None
    score: str = "best"
    non_finite: Literal["prune", "fail", "ignore"] = "prune"
    baseline: bool | dict[str, Any] = True
    save_top_k: int = 1
    max_failures: int = 3
    n_jobs: int = 1
    isolate: bool = True
    trial_timeout: float | None = None
    devices_per_trial: int | None = None
    trials_per_device: int = 1
    share_data: bool = False
    storage: str | None = None
    load_if_exists: bool = True
    timeout: float | None = None
    catch: list[str] | None = None

    def to_yaml(self) -> str:
        """Write the whole of it, with the defaults too; what is written reads back."""
        return dump_yaml(dataclasses.asdict(self))


@functools.cache
def hints() -> Mapping[str, Any]:
    """Return the annotation of each name of a study file."""
    return MappingProxyType(get_type_hints(StudyFile))


@functools.cache
def descriptions() -> Mapping[str, str]:
    """Return what the docstring says of each name."""
    text = inspect.cleandoc(StudyFile.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
    return MappingProxyType({name: " ".join(said.split()) for name, said in found})


def read_study(
    path: str | os.PathLike[str] | None,
    given: Mapping[str, Any] = MappingProxyType({}),
    placed: Sequence[tuple[str, Any]] = (),
) -> StudyFile:
    """Read a study file, if there is one, and the files that it names; put in place what the command line gives.

    `given` stands in place of the file's values; `placed` has paths into a value of the file, or into the config.
    """
    folder = Path() if path is None else Path(path).parent
    if path is not None and Path(path).suffix not in FILE_ENDINGS:
        script = " A script that constructs a LightningCLI is given as --cli." if Path(path).suffix == ".py" else ""
        raise InvalidConfigError(f"'{path}' is no study file, whose name ends in {', '.join(FILE_ENDINGS)}.{script}")
    values = {} if path is None else read_mapping(path)
    if "versions" in values:
        study = str(values.get("study_name"))
        go_on = command("lightningtune", "resume", *as_argument(study))
        raise InvalidConfigError(f"'{path}' is what study '{study}' has written down: {go_on} goes on with it.")
    for name in map(str, values):
        if name in TOP_NAMES:
            raise InvalidConfigError(f"'{path}': '{name}' is a part of the config, and belongs under base_config.")
        if name not in hints():
            near = did_you_mean(name, hints())
            raise InvalidConfigError(
                f"'{path}': there is no '{name}' in a study file.{near} Allowed: {', '.join(hints())}."
            )
    values = with_files(values, folder) | with_files(given, Path())
    for name, default in (("sampler", "TPESampler"), ("pruner", "MedianPruner")):
        is_placed = any(dotted.startswith(f"{name}.") for dotted, _ in placed)
        if isinstance(values.get(name), str) or (values.get(name) is None and is_placed):
            values[name] = {"class_path": values.get(name) or default}
    for dotted, value in placed:
        head, _, rest = dotted.partition(".")
        if rest and head not in (*hints(), *TOP_NAMES) and values.get("cli") is None:
            near = did_you_mean(head, (*TOP_NAMES, *hints()))
            raise InvalidConfigError(f"--{dotted}: there is no '{head}' in a study file or its config.{near}")
        name, inner = (head, rest) if head in hints() else ("base_config", dotted)
        forms: Mapping[str, Sequence[str]] = {}
        if name == "search_space":
            from lightningtune.search.parameters import FORMS  # deferred import: keeps --help fast

            forms = FORMS
        values[name] = place_at(values.get(name), name, inner, value, forms)
    for name, value in values.items():
        if not fits(hints()[name], value):
            raise InvalidConfigError(
                f"{name} must be {describe_type(hints()[name])}, but got {_format_value(value)}.{_remedy(name, value)}"
            )
    if values.get("study_name") is None:
        values["study_name"] = "optuna_study" if path is None else Path(path).stem
    return StudyFile(**values)


def fill_in_storage(study: StudyFile) -> StudyFile:
    """Return a study file with the storage of the environment, where it names none itself."""
    return study if study.storage is not None else dataclasses.replace(study, storage=get_default_storage())


def _format_value(value: Any) -> str:
    """Return a value as it stands in YAML, where Python writes it otherwise."""
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)


def _remedy(name: str, value: Any) -> str:
    if isinstance(value, (bool, int, float)) and str in get_args(hints()[name]):
        return " Text that reads as something else is quoted."
    return did_you_mean(str(value), get_args(hints()[name])) if get_origin(hints()[name]) is Literal else ""


def read_value(name: str, text: str) -> Any:
    """Return what the command line's text means for a name of the study file.

    Example:
        >>> read_value("timeout", "1e3"), read_value("study_name", "7"), read_value("metric", "[val_loss, val_acc]")
        (1000.0, '7', ['val_loss', 'val_acc'])
    """
    hint, value = hints()[name], read_yaml(text)
    for read in (value, text):
        if fits(hint, read):
            return read
    raise InvalidConfigError(f"must be {describe_type(hint)}, but got {text!r}.{_remedy(name, text)}")


def read_yaml(text: str) -> Any:
    """Read a value of the command line as YAML; what is none is text, and nothing is not null."""
    try:
        return load_yaml(text, f"'{text}'") if text else text
    except InvalidConfigError:
        return text


def fits(hint: Any, value: Any) -> bool:
    """Whether a value read from YAML is what an annotation of `StudyFile` asks for.

    Example:
        >>> fits(int | None, True), fits(float | None, 3), fits(list[str], ["a", 1])
        (False, True, False)
    """
    if hint is Any:
        return True
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in inner
    if origin is list:
        return isinstance(value, list) and all(fits(inner[0], item) for item in value)
    if origin is dict:
        return isinstance(value, dict)
    if inner:
        return any(fits(one, value) for one in inner)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


_NAMES = MappingProxyType(
    {int: "an integer", float: "a number", bool: "true or false", str: "text", NoneType: "null", Any: "anything"}
)


def describe_type(hint: Any) -> str:
    """Say in words what an annotation of `StudyFile` asks for.

    Example:
        >>> describe_type(str | list[str]), describe_type(int | None), describe_type(Literal["a", "b"])
        ('text or a list of text', 'an integer or null', "'a' or 'b'")
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin is list:
        return "a list" if inner[0] is Any else f"a list of {describe_type(inner[0])}"
    if origin is dict:
        return "a mapping"
    words = [repr(one) if origin is Literal else describe_type(one) for one in inner] or [_NAMES[hint]]
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


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
