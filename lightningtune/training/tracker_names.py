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
    """Return a trainer's section in which every logger that needs a ``save_dir`` has one.

    Args:
        trainer: that section of a config.
        directory: the trial's folder.

    Example:
        >>> with_folders({"logger": "TensorBoardLogger"}, "trials/0007")
        {'logger': {'class_path': 'TensorBoardLogger', 'init_args': {'save_dir': 'trials/0007'}}}
    """
    given = trainer.get("logger")
    if not isinstance(given, (str, Mapping, list)):
        return trainer
    folder = os.fspath(directory)
    completed = (
        [_with_folder(block, folder) for block in given] if isinstance(given, list) else _with_folder(given, folder)
    )
    return {**trainer, "logger": completed}


def _with_folder(block: Any, folder: str) -> Any:
    kind = find_block_class(block, Logger)
    if kind is None or signature_of(kind).defaults.get("save_dir") is not REQUIRED:
        return block
    full = block if isinstance(block, Mapping) else {"class_path": block}
    return {**full, "init_args": {"save_dir": folder, **(full.get("init_args") or {})}}


def is_local(block: Any) -> bool:
    """Whether a block of a config is of a logger that writes files below its ``save_dir``, and nothing else."""
    kind = find_block_class(block, Logger)
    return (
        kind is not None
        and issubclass(kind, (CSVLogger, TensorBoardLogger))
        and "save_dir" in signature_of(kind).defaults
    )


_RUN: Mapping[type[Logger], tuple[str, ...]] = {
    CSVLogger: ("version",),
    TensorBoardLogger: ("version",),
    WandbLogger: ("version", "id"),
    MLFlowLogger: ("run_id",),
}
"""Arguments that say which run a logger writes to."""


def refuse_shared_runs(trainer: Mapping[str, Any]) -> None:
    """Refuse a logger that would write all trials into one run, where each hides the one before.

    Args:
        trainer: that section of a config.

    Raises:
        InvalidConfigError: naming the argument.
    """
    for block in as_list(trainer.get("logger")):
        kind = find_block_class(block, Logger)
        given = (block.get("init_args") or {}) if isinstance(block, Mapping) else {}
        for base, names in _RUN.items():
            is_apart = base in (CSVLogger, TensorBoardLogger) and given.get("save_dir") is None  # in the trial's folder
            shared = [name for name in names if given.get(name) is not None and not is_apart]
            if shared and kind is not None and issubclass(kind, base):
                raise InvalidConfigError(
                    f"trainer.logger: each trial has a run of its own, but {kind.__name__} is given "
                    f"{shared[0]}={given[shared[0]]!r} for all of them. Leave it out: a run is named after its trial."
                )


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


def modules_of_trackers(trainer: Mapping[str, Any]) -> list[str]:
    """Return the modules that the loggers of a trainer's section import when a trial begins to log.

    Example:
        >>> modules_of_trackers({"logger": [{"class_path": "WandbLogger"}, "CSVLogger"]})
        ['wandb']
    """
    given = trainer.get("logger")
    kinds = (
        [TensorBoardLogger]
        if given is True
        else [kind for block in as_list(given) if (kind := find_block_class(block, Logger))]
    )
    needed = [modules for kind in kinds for base, modules in _IMPORTED.items() if issubclass(kind, base)]
    return [module for modules in needed for module in modules]


def names_for(kind: type[Logger], given: Mapping[str, Any], name: TrialName, run: str | None) -> dict[str, Any]:
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
    if issubclass(kind, (TensorBoardLogger, CSVLogger)):
        is_own = Path(given["save_dir"]).absolute() == name.directory
        ours = {"name": "" if is_own else name.study, "version": "" if is_own else name.directory.name}
        ours |= {"default_hp_metric": False} if issubclass(kind, TensorBoardLogger) else {}
    elif issubclass(kind, WandbLogger):
        # Lightning, whose save_dir has a default, never comes to dir
        ours = {"name": name.trial, "id": run, "save_dir": given.get("dir") or os.fspath(name.directory)}
        ours |= {} if os.environ.get("WANDB_PROJECT") else {"project": name.study}
        group = {} if os.environ.get("WANDB_RUN_GROUP") or given.get("group") else {"group": name.study}
        return {key: value for key, value in ours.items() if is_open[key]} | group
    elif issubclass(kind, MLFlowLogger):
        ours = {"experiment_name": name.study, "run_name": name.trial, "run_id": run}
        if is_open["save_dir"] and not given.get("tracking_uri"):
            given = {**given, "tracking_uri": None}
            is_open["tracking_uri"] = True
            ours |= _store(name.root)
        tags = {"lightningtune.study": name.study, "lightningtune.trial": name.trial, **(given.get("tags") or {})}
        return {key: value for key, value in ours.items() if is_open[key]} | {"tags": tags}
    elif "save_dir" in defaults:
        is_given = not is_open["save_dir"] and given["save_dir"]
        return {"save_dir": own_folder(given["save_dir"] if is_given else name.directory, name.directory)}
    return {key: value for key, value in ours.items() if is_open.get(key)}


def _store(root: Path) -> dict[str, Any]:
    """Return where MLflow's runs go: to its server where one is set, else to a database in the study's folder."""
    server = os.environ.get("MLFLOW_TRACKING_URI")
    if server:
        return {"tracking_uri": server}
    return {"tracking_uri": f"sqlite:///{root / 'mlflow.db'}", "artifact_location": (root / "mlartifacts").as_uri()}
