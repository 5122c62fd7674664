"""What a study tunes, which may not change, and what has changed between two runs of it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.distributions import check_distribution_compatibility
from optuna.trial import TrialState

from lightningtune.config.schema import Schema
from lightningtune.contract import Objective
from lightningtune.errors import ConfigurationError
from lightningtune.files import dump_yaml, load_yaml
from lightningtune.search.parameters import Parameter
from lightningtune.search.spaces import ProbingStudy, SearchSpace, SimpleSearchSpace
from lightningtune.study.opening import data_seed, quiet_optuna
from lightningtune.study.provenance import class_names, full_name, script, versions
from lightningtune.study.reporter import SEED
from lightningtune.study.tally import has_value, is_new, is_over

SUBJECT = "lightningtune:subject"
"""Study attribute that holds what the study tunes."""

_COMPARED = (
    *("cli", "model_class", "datamodule_class", "search_space", "parameters", "base_config", "score", "data_seed"),
    *("sampler", "pruner", "versions"),
)
"""The parts of a definition that may change. The others may not, or change nothing of a trial."""
_SHOWN = 8
_SAMPLES = 20
"""Samples that tell the parameters of a function of the trial."""
_SECTIONS = {"model_class": "model", "datamodule_class": "data"}


@dataclass(frozen=True)
class Subject:
    """What a study tunes: its classes and its parameters. With another subject it is another study, whatever its name.

    The parameters are not complete where the space is a function of the trial: then they are those of some samples.
    """

    classes: Mapping[str, str | None]
    parameters: tuple[str, ...]
    is_complete: bool

    @classmethod
    def of(cls, schema: Schema, space: SearchSpace, config: Mapping[str, Any]) -> Subject:
        """Read the subject from what a user asks for."""
        parameters, paths = _read_parameters(space)
        classes = {part: _base_name(target) for part, target in schema.parts.items()}
        for part, section in _SECTIONS.items():
            class_path = (config.get(section) or {}).get("class_path")
            if class_path is not None and not paths & {section, f"{section}.class_path"}:
                classes[part] = _base_name(schema.class_at(class_path)) or class_path
        return cls(classes, parameters, space.parameters is not None)


def _base_name(target: Any) -> str | None:
    """Name a class or a function without the arguments that are bound to it: they are values, and may change."""
    while isinstance(target, functools.partial):
        target = target.func
    return full_name(target if target is None or hasattr(target, "__qualname__") else type(target))


def _read_parameters(space: SearchSpace) -> tuple[tuple[str, ...], set[str]]:
    """Return the names of a space's parameters, and the paths in the config to which they lead."""
    if space.parameters is not None:
        named = space.parameters
        return tuple(sorted(p.name for p in named)), {path for p in named for path in p.paths}
    paths = set[str]()
    with quiet_optuna():
        study = ProbingStudy()
        for _ in range(_SAMPLES):
            with contextlib.suppress(Exception):  # it may prune a point; a trial will say whatever else it raises
                paths |= space.suggest(study.ask()).keys()
    return tuple(sorted({name for trial in study.trials for name in trial.params})), paths


def check_subject(study: optuna.Study, asked_for: Subject, how_to_remove: str) -> None:
    """Refuse a study that tunes something else; keep on the study what it tunes.

    A study in which no trial runs, and none has reported a value, may become one of another subject.
    """
    stored = study.user_attrs.get(SUBJECT)
    is_running = bool(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
    differences = _compare_subjects(study, stored, asked_for) if is_running or has_value(study) else []
    if differences:
        was, now = (" and ".join(texts) for texts in zip(*differences, strict=True))
        raise ConfigurationError(
            f"The study '{study.study_name}' exists with {was}, but {now} is asked for: they are two studies. Give "
            f"another study_name, or remove the stored study with {how_to_remove}. With load_if_exists=False, every "
            "study that exists already is refused."
        )
    kept = {**asdict(asked_for), "parameters": [*asked_for.parameters]}
    if stored != kept:
        study.set_user_attr(SUBJECT, kept)


def _compare_subjects(
    study: optuna.Study, stored: Mapping[str, Any] | None, asked_for: Subject
) -> list[tuple[str, str]]:
    """Return what may not differ: as the study has it, and as it is asked for."""
    if stored is None:  # of an older version: its trials alone say what it tunes
        stored = {"classes": asked_for.classes, "parameters": [], "is_complete": False}
    was, now = stored["classes"], asked_for.classes
    parts = [part for part in dict.fromkeys([*was, *now]) if was.get(part) != now.get(part)]
    found = [(f"{part}={was.get(part)}", f"{part}={now.get(part)}") for part in parts]
    names, asked = {*stored["parameters"]}, {*asked_for.parameters}
    if stored["is_complete"] and asked_for.is_complete:
        is_other = names != asked
    else:  # samples may have missed some
        names |= {name for trial in study.get_trials(deepcopy=False) for name in trial.params}
        is_other = bool(names) and not names & asked
    return [*found, (_list_parameters(names), _list_parameters(asked))] if is_other else found


def _list_parameters(names: set[str]) -> str:
    shown = [*sorted(names)[:_SHOWN], *([f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else [])]
    return f"the {'parameter' if len(names) == 1 else 'parameters'} {', '.join(shown)}"


def check_continuable(study: optuna.Study, parameters: Iterable[Parameter], how_to_remove: str) -> None:
    """Refuse a parameter whose kind, scale or choices are not those of the study. A wider or narrower range goes on."""
    trials = study.get_trials(deepcopy=False)
    for parameter in parameters:
        stored = next((t.distributions[parameter.name] for t in trials if parameter.name in t.distributions), None)
        try:
            if stored is not None:
                check_distribution_compatibility(stored, parameter.distribution)
        except ValueError as error:
            raise ConfigurationError(
                f"The study '{study.study_name}' exists with '{parameter.name}' as {stored}, and cannot go on with "
                f"{parameter.distribution}: {error} Give it another study_name, or remove the stored study with "
                f"{how_to_remove}."
            ) from None


def define(
    study: optuna.Study,
    objective: Objective,
    n_trials: int,
    schema: Schema,
    space: SearchSpace,
    config: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what is asked for, as it is written to ``study.yaml``."""
    file, subject = script(), Subject.of(schema, space, config)
    return {
        "study_name": study.study_name,
        "metric": list(objective.monitor),
        "direction": [direction.name.lower() for direction in study.directions],
        "score": objective.score if isinstance(objective.score, str) else full_name(objective.score),
        "n_trials": n_trials,
        "seed": study.user_attrs[SEED],
        "data_seed": data_seed(study),
        "sampler": type(study.sampler).__name__,
        "pruner": type(study.pruner).__name__,
        **class_names(schema),
        "script": None if file is None else str(file),
        "search_space": space.to_dict() if isinstance(space, SimpleSearchSpace) else repr(space),
        **({} if subject.is_complete else {"parameters": [*subject.parameters]}),
        "base_config": config,
        "versions": versions(),
    }


def find_changes(before: Mapping[str, Any], asked_for: Mapping[str, Any], study: optuna.Study) -> str | None:
    """Say what has changed since ``study.yaml`` was written; None where nothing has, or no trial ran."""
    if not before or is_new(study):
        return None
    if "parameters" not in before:  # of an older version, or of a space that lists them
        asked_for = {name: part for name, part in asked_for.items() if name != "parameters"}
    as_read = load_yaml(dump_yaml(dict(asked_for)))
    return describe_changes(before, as_read, is_over(study, asked_for["n_trials"]))


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any], has_ended: bool = False) -> str | None:
    """Say in a sentence what differs between two definitions as read from ``study.yaml``; None where nothing does.

    Example:
        >>> print(describe_changes({"base_config": {"trainer": {"max_epochs": 5}}}, {
        ...     "base_config": {"trainer": {"max_epochs": 9}, "model": {"width": 4}}}))
        Changed since the last run, for the trials that follow: base_config.model.width added: 4; \
base_config.trainer.max_epochs 5 → 9.
    """
    old, new = (dict(flatten({name: part.get(name) for name in _COMPARED})) for part in (before, now))
    found = []
    for path in sorted({*old, *new}):
        if path not in old:
            found.append(f"{path} added: {new[path]}")
        elif path not in new:
            found.append(f"{path} removed, which was {old[path]}")
        elif old[path] != new[path]:
            found.append(f"{path} {old[path]} → {new[path]}")
    if not found:
        return None
    more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    whom = "but no trial is left to run" if has_ended else "for the trials that follow"
    return f"Changed since the last run, {whom}: {'; '.join([*found[:_SHOWN], *more])}."


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings by their dotted paths, without None and empty mappings.

    Example:
        >>> list(flatten({"trainer": {"max_epochs": 5}, "seed": None}))
        [('trainer.max_epochs', 5)]
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from flatten(inner, f"{path}.{name}" if path else str(name))
    elif value is not None:
        yield path, value
