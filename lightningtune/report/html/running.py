"""What to copy from a report: the winner's config, and a command that runs it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightningtune.errors import InvalidConfigError
from lightningtune.files import dump_yaml
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.results import TrialResult

_CLI = "from lightning.pytorch.cli import LightningCLI; LightningCLI()"


@dataclass(frozen=True)
class ToRun:
    """What is copied.

    Attributes:
        config: YAML.
        command: of a shell, or a line of Python.
        purpose: what that does, and where it is to be run.
    """

    config: str
    command: str
    purpose: str


def to_run(directory: StudyDirectory, number: int, params: Mapping[str, Any], is_ours: bool, is_kept: bool) -> ToRun:
    """Say how the winner is run.

    A config that names its classes runs as LightningCLI runs any; of another, only what has run the study knows them.

    Args:
        directory: the study's folder.
        number: the winner's.
        params: its parameters, which is all that is known of a study that is not ours.
        is_ours: whether the study was run by this library.
        is_kept: whether that was by ``lightningtune tune``, which knows how to build its trials.
    """
    config = _config(directory, number, is_ours)
    own = {str(name): value for name, value in params.items()}
    return ToRun(dump_yaml(own if config is None else config), *_command(directory, number, params, config, is_kept))


def commands(
    directory: StudyDirectory, trials: Sequence[TrialResult], is_ours: bool, is_kept: bool
) -> tuple[list[str], str]:
    """Return a command for each trial of a Pareto front, and the purpose of them all.

    Args:
        directory: the study's folder.
        trials: the front, at least one.
        is_ours: whether the study was run by this library.
        is_kept: whether that was by ``lightningtune tune``, which knows how to build its trials.
    """
    config = _config(directory, trials[0].number, is_ours)  # a front may be long, and all configs name the same classes
    found = [_command(directory, trial.number, trial.params, config, is_kept) for trial in trials]
    return [command for command, _ in found], found[0][1]


def _config(directory: StudyDirectory, number: int, is_ours: bool) -> Any:
    """Return a trial's config; None where there is none to be read."""
    try:
        return directory.read_config(number) if is_ours else None
    except InvalidConfigError:  # not there, or another computer's
        return None


def _command(
    directory: StudyDirectory, number: int, params: Mapping[str, Any], config: Any, is_kept: bool
) -> tuple[str, str]:
    """Return a command that runs a trial again, and its purpose."""
    if config is None:
        return f"study.enqueue_trial({dict(params)!r})", "To try it in another study"
    if is_kept:
        command = f"lightningtune refit {shlex.quote(str(directory.root))} --number {number} --seeds 1 2 3"
        if directory.journal.is_file():
            return command, "To train it again, in a shell"
        return f"{command} --storage URL", "To train it again, in a shell, with the URL of its storage"
    sections = [config[name] for name in ("model", "data") if config.get(name)]
    if sections and all(isinstance(section, Mapping) and "class_path" in section for section in sections):
        path = shlex.quote(str(_best_config(directory, number)))
        command = f"python -c {shlex.quote(_CLI)} fit --config {path}"
        return command, "To train it, in a shell where its classes can be imported"
    command = f"optimizer.refit(number={number}, seeds=[1, 2, 3])"
    return command, "To train it again, in the script that made the optimizer"


def _best_config(directory: StudyDirectory, number: int) -> Path:
    own, promoted = directory.config(number), directory.best_config
    is_same = promoted.is_file() and own.is_file() and promoted.read_bytes() == own.read_bytes()
    return promoted if is_same else own
