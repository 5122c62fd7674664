"""Under which names a trial appears in its trackers, where the config leaves that open."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from lightningtune.config.base import as_list
from lightningtune.config.importing import find_block_class
from lightningtune.config.signatures import REQUIRED, signature_of
from lightningtune.contract import TrialSpec
from lightningtune.errors import InvalidConfigError
from lightningtune.training.folders import own_folder

STATE = "lightningtune.state"
"""Under which a tracker is told how a trial has ended."""
FILE_LOGGERS = (CSVLogger, TensorBoardLogger)
"""Loggers that write files below their ``save_dir``, and nothing else."""


@dataclass(frozen=True)
class TrialName:
    """What a trial is called.

    Attributes:
        study: the study's name.
        trial: the trial's, such as "trial 7".
        directory: the trial's folder.
    """

    study: str
    trial: str
    directory: Path

    @classmethod
    def of(cls, spec: TrialSpec) -> TrialName:
        """Name a training: a trial by its number, any other by its folder.

        Example:
            >>> from lightningtune.contract import Objective
            >>> goal = Objective(("val_loss",), ("min",))
            >>> TrialName.of(TrialSpec(7, {}, Path("runs/mine/trials/0007"), goal)).trial
            'trial 7'
            >>> TrialName.of(TrialSpec(0, {}, Path("runs/mine/refit/0007_seed_1"), goal)).trial
            'refit 0007_seed_1'
        """
        directory = spec.directory.absolute()
        kind = directory.parent.name
        trial = f"trial {spec.number}" if kind == "trials" else f"{kind} {directory.name}"
        return cls(spec.study or directory.parent.parent.name, trial, directory)

    @property
    def root(self) -> Path:
        """The study's folder."""
        return self.directory.parent.parent


def with_folders(trainer: Mapping[str, Any], directory: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Return a trainer's section in which every logger that needs a ``save_dir`` has the trial's folder.

    Example:
        >>> with_folders({"logger": "TensorBoardLogger"}, "trials/0007")
        {'logger': {'class_path': 'TensorBoardLogger', 'init_args': {'save_dir': 'trials/0007'}}}
    """
    given, folder = trainer.get("logger"), os.fspath(directory)
    if isinstance(given, list):
        return {**trainer, "logger": [_with_folder(block, folder) for block in given]}
    return {**trainer, "logger": _with_folder(given, folder)} if isinstance(given, (str, Mapping)) else trainer


def _with_folder(block: Any, folder: str) -> Any:
    kind = find_block_class(block, Logger)
    if kind is None or signature_of(kind).defaults.get("save_dir") is not REQUIRED:
        return block
    full = block if isinstance(block, Mapping) else {"class_path": block}
    return {**full, "init_args": {"save_dir": folder, **(full.get("init_args") or {})}}


def is_local(block: Any) -> bool:
    """Whether a block of a config is of a logger that writes files below its ``save_dir``, and nothing else."""
    kind = find_block_class(block, Logger)
    return kind is not None and issubclass(kind, FILE_LOGGERS) and "save_dir" in signature_of(kind).defaults


def refuse_shared_runs(trainer: Mapping[str, Any]) -> None:
    """Refuse a logger that would write all trials into one run, where each hides the one before.

    Raises:
        InvalidConfigError: naming the argument.
    """
    for block in as_list(trainer.get("logger")):
        kind = find_block_class(block, Logger) or Logger
        given = (block.get("init_args") or {}) if isinstance(block, Mapping) else {}
        for argument in _find_run_arguments(kind, given):
            if given.get(argument) is not None:
                raise InvalidConfigError(
                    f"trainer.logger: each trial has a run of its own, but {kind.__name__} is given "
                    f"{argument}={given[argument]!r} for all of them. Leave it out: a run is named after its trial."
                )


def _find_run_arguments(kind: type[Logger], given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the arguments that say which run a logger writes to."""
    if issubclass(kind, FILE_LOGGERS):
        return () if given.get("save_dir") is None else ("version",)  # without, it writes to the trial's folder
    if issubclass(kind, WandbLogger):
        return "version", "id"
    return ("run_id",) if issubclass(kind, MLFlowLogger) else ()


def refuse_logger_objects(base_config: Any) -> None:
    """Refuse a logger that is given as an object, since each trial makes a logger of its own.

    Raises:
        InvalidConfigError: with the form that works.
    """
    trainer = base_config.get("trainer") if isinstance(base_config, Mapping) else None
    given = trainer.get("logger") if isinstance(trainer, Mapping) else None
    for logger in given if isinstance(given, (list, tuple)) else [given]:
        if isinstance(logger, Logger):
            path = f"{type(logger).__module__}.{type(logger).__qualname__}"
            raise InvalidConfigError(
                f"trainer.logger: each trial makes a logger of its own, so it cannot be an object. Write "
                f"{{'class_path': '{path}', 'init_args': {{...}}}}; 'class_path' may also name a function that is "
                "annotated to return a Logger."
            )


_IMPORTED: Mapping[type[Logger], tuple[str, ...]] = {
    TensorBoardLogger: ("torch.utils.tensorboard",),
    WandbLogger: ("wandb",),
    MLFlowLogger: ("mlflow", "mlflow.store.tracking.sqlalchemy_store"),
}
"""What loggers import when a trial begins to log."""


def list_imports(trainer: Mapping[str, Any]) -> list[str]:
    """Return the modules that the loggers of a trainer's section import when a trial begins to log.

    Example:
        >>> list_imports({"logger": [{"class_path": "WandbLogger"}, "CSVLogger"]})
        ['wandb']
    """
    given = trainer.get("logger")
    blocks = ["TensorBoardLogger"] if given is True else as_list(given)
    kinds = [find_block_class(block, Logger) for block in blocks]
    needed = [_IMPORTED[base] for kind in kinds if kind for base in _IMPORTED if issubclass(kind, base)]
    return [module for modules in needed for module in modules]


def fill_in_names(kind: type[Logger], given: Mapping[str, Any], name: TrialName, run: str | None) -> dict[str, Any]:
    """Return the arguments of a logger that its config leaves open; one that is as by default counts as left open.

    Args:
        kind: the logger's class.
        given: its arguments, defaults among them.
        name: what the trial is called.
        run: the run to go on with, as the tracker knows it; None for a new one.
    """
    defaults = signature_of(kind).defaults
    is_open = {key: key not in given or given[key] == default for key, default in defaults.items()}
    ours: dict[str, Any] = {}
    always: dict[str, Any] = {}
    if issubclass(kind, FILE_LOGGERS):
        is_own = Path(given["save_dir"]).absolute() == name.directory
        ours = {"name": "" if is_own else name.study, "version": "" if is_own else name.directory.name}
        ours |= {"default_hp_metric": False} if issubclass(kind, TensorBoardLogger) else {}
    elif issubclass(kind, WandbLogger):
        # Lightning ignores dir, since its save_dir has a default
        ours = {"name": name.trial, "id": run, "save_dir": given.get("dir") or os.fspath(name.directory)}
        ours |= {} if os.environ.get("WANDB_PROJECT") else {"project": name.study}
        if not os.environ.get("WANDB_RUN_GROUP") and not given.get("group"):
            always = {"group": name.study}
    elif issubclass(kind, MLFlowLogger):
        ours = {"experiment_name": name.study, "run_name": name.trial, "run_id": run}
        tags = {"lightningtune.study": name.study, "lightningtune.trial": name.trial, **(given.get("tags") or {})}
        always = {"tags": tags}
        server = os.environ.get("MLFLOW_TRACKING_URI")
        if is_open["save_dir"] and not given.get("tracking_uri"):
            # without a server, runs go to a database in the study's folder
            always["tracking_uri"] = server or f"sqlite:///{name.root / 'mlflow.db'}"
            ours |= {} if server else {"artifact_location": (name.root / "mlartifacts").as_uri()}
    elif "save_dir" in defaults:
        is_given = not is_open["save_dir"] and given["save_dir"]
        return {"save_dir": own_folder(given["save_dir"] if is_given else name.directory, name.directory)}
    else:
        return {}
    return {key: value for key, value in ours.items() if is_open.get(key)} | always
