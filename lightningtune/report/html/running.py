"""What to copy from a report: the winner's config, and a command that runs it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightningtune.errors import ConfigError
from lightningtune.files import dump_yaml
from lightningtune.study.directory import StudyDirectory

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


def to_run(directory: StudyDirectory, number: int, params: Mapping[str, Any], is_ours: bool) -> ToRun:
    """Say how the winner is run.

    A config that names its classes runs as LightningCLI runs any; of another, only the script knows the classes.

    Args:
        directory: the study's folder.
        number: the winner's.
        params: its parameters, which is all that is known of a study that is not ours.
        is_ours: whether the study was run by this library.
    """
    try:
        config = directory.read_config(number) if is_ours else None
    except ConfigError:  # not there, or another computer's
        config = None
    if config is None:
        own = {str(name): value for name, value in params.items()}
        return ToRun(dump_yaml(own), f"study.enqueue_trial({dict(params)!r})", "To try it in another study")
    sections = [config[name] for name in ("model", "data") if config.get(name)]
    path = _best_config(directory, number)
    if sections and all(isinstance(section, Mapping) and "class_path" in section for section in sections):
        command = f"python -c {shlex.quote(_CLI)} fit --config {shlex.quote(str(path))}"
        return ToRun(dump_yaml(config), command, "To train it, in a shell where its classes can be imported")
    command = f"optimizer.refit(number={number}, seeds=[1, 2, 3])"
    return ToRun(dump_yaml(config), command, "To train it again, in the script that made the optimizer")


def _best_config(directory: StudyDirectory, number: int) -> Path:
    own, promoted = directory.config(number), directory.best_config
    is_same = promoted.is_file() and promoted.read_bytes() == own.read_bytes()
    return promoted if is_same else own
