"""A logger that is given as an object becomes the block of a config that makes it: each trial gets one of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import loggers
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from lightningtune.config.importing import find_class
from lightningtune.config.signatures import signature_of
from lightningtune.config.values import plain
from lightningtune.errors import InvalidConfigError


def with_blocks(base_config: Any) -> Any:
    """Return a base config whose loggers are written as ``class_path`` blocks.

    Args:
        base_config: what a user gives; what is no mapping stays as it is.

    Raises:
        InvalidConfigError: when a logger cannot be made anew.

    Example:
        >>> with_blocks({"trainer": {"logger": CSVLogger("logs")}})["trainer"]["logger"]
        {'class_path': 'lightning.pytorch.loggers.CSVLogger', 'init_args': {'save_dir': 'logs'}}
    """
    trainer = base_config.get("trainer") if isinstance(base_config, Mapping) else None
    if not isinstance(trainer, Mapping):
        return base_config
    given = trainer.get("logger")
    if isinstance(given, (list, tuple)):
        blocks: Any = [_block(item) if isinstance(item, Logger) else item for item in given]
    elif isinstance(given, Logger):
        blocks = _block(given)
    else:
        return base_config
    return {**base_config, "trainer": {**trainer, "logger": blocks}}


def _block(logger: Logger) -> dict[str, Any]:
    kind = type(logger)
    path = f"{kind.__module__}.{kind.__qualname__}"
    short = f"{loggers.__name__}.{kind.__name__}"
    path = short if find_class(short) is kind else path
    held, target = _arguments(logger), find_class(path)
    if held is None or target is not kind:
        raise _cannot_be_made_anew(path, "it does not tell what it was made from")
    defaults = signature_of(target).defaults
    given = {name: value for name, value in held.items() if name not in defaults or value != defaults[name]}
    try:
        given = {name: plain(value) for name, value in given.items()}
    except TypeError as error:
        raise _cannot_be_made_anew(path, str(error)) from None
    block: dict[str, Any] = {"class_path": path}
    known = {name: value for name, value in given.items() if name in defaults}
    if known:
        block["init_args"] = known
    if len(known) < len(given):
        block["dict_kwargs"] = {name: value for name, value in given.items() if name not in known}
    return block


def _arguments(logger: Logger) -> dict[str, Any] | None:
    """Return what one of Lightning's loggers was made from; None for any other.

    Lightning keeps it in private attributes only. A run that the object has begun is left out: it was not asked for.
    """
    held = vars(logger)
    for maker, read in _READERS.items():
        if isinstance(logger, maker) and type(logger).__init__ is maker.__init__:
            return read(held)
    return None


def _of_csv(held: Mapping[str, Any]) -> dict[str, Any]:
    return {**_of_files(held), **_private(held, "prefix", "flush_logs_every_n_steps")}


def _of_tensorboard(held: Mapping[str, Any]) -> dict[str, Any]:
    own = _private(held, "default_hp_metric", "prefix", "sub_dir")
    # Lightning holds an object for it, which says why there is no graph where TensorBoard is missing
    return {**_of_files(held), "log_graph": bool(held["_log_graph"]), **own, **held["_kwargs"]}


def _of_files(held: Mapping[str, Any]) -> dict[str, Any]:
    version = held["_version"] if held["_experiment"] is None else None
    return {"save_dir": held["_root_dir"], "name": held["_name"], "version": version}


def _of_mlflow(held: Mapping[str, Any]) -> dict[str, Any]:
    own = _private(held, "experiment_name", "run_name", "tracking_uri", "log_model", "prefix", "artifact_location")
    if own["tracking_uri"] == "file:./mlruns":  # what it makes of no address
        own.pop("tracking_uri")
    run_id = None if held["_initialized"] else held["_run_id"]
    return {**own, "tags": held["tags"], "run_id": run_id, **held["_log_batch_kwargs"]}


def _of_wandb(held: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in held["_wandb_init"].items() if value is not None}
    own = {**_private(held, "offline", "log_model", "prefix", "checkpoint_name"), "save_dir": given.pop("dir", ".")}
    own |= {"anonymous": True} if given.pop("anonymous", None) else {}
    for name, default in (("project", "lightning_logs"), ("resume", "allow")):
        if given.get(name) == default:
            given.pop(name)
    return {**own, "add_file_policy": held["add_file_policy"], **given}


_READERS: Mapping[type[Logger], Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    CSVLogger: _of_csv,
    TensorBoardLogger: _of_tensorboard,
    MLFlowLogger: _of_mlflow,
    WandbLogger: _of_wandb,
}


def _private(held: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: held[f"_{name}"] for name in names}


def _cannot_be_made_anew(path: str, why: str) -> InvalidConfigError:
    return InvalidConfigError(
        f"trainer.logger: each trial has a logger of its own, and this {path.rpartition('.')[2]} cannot be made anew: "
        f"{why}. Write it as {{'class_path': '{path}', 'init_args': {{...}}}}."
    )
