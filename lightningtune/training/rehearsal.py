"""A rehearsal: one epoch of two batches, of which everything is noted that tells one training from another."""

from __future__ import annotations

import copy
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sized
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, Callback, Checkpoint, LearningRateFinder
from lightning.pytorch.loggers.logger import DummyLogger
from torch.nn.parameter import UninitializedParameter

from lightningtune.training.callback_list import callbacks_of, set_callbacks

RECORD = "rehearsal.json"
"""The file in a rehearsal's folder that holds what was noted."""
BATCHES = 2
"""Batches to train on, and to validate on: the first warms up, the second is timed."""
_OVERRIDDEN = (
    "default_root_dir",
    "profiler",
    "min_epochs",
    "min_steps",
    "overfit_batches",
    "fast_dev_run",
    "val_check_interval",
    "check_val_every_n_epoch",
)
"""Settings of the trainer that a rehearsal goes without: with them it would be longer, or write elsewhere."""
_LARGE = 2 * 1024**3
"""Bytes of a checkpoint that is not written to see how large it is."""


def rehearsal_of(config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return a config for one epoch of two batches.

    Limits such as ``max_epochs`` stay, for schedules are made from them; `Rehearsal` ends the fit after one epoch.

    Args:
        config: a resolved config.
        seed: where the config does not say one.

    Example:
        >>> rehearsal_of({"trainer": {"max_epochs": 9, "profiler": "simple", "limit_val_batches": 0}}, 1)
        {'trainer': {'max_epochs': 9, 'limit_val_batches': 0, 'limit_train_batches': 2}, 'seed_everything': 1}
    """
    given = copy.deepcopy(dict(config.get("trainer") or {}))
    trainer = {key: value for key, value in given.items() if key not in _OVERRIDDEN}
    for limit in ("limit_train_batches", "limit_val_batches"):
        wanted = given.get(limit)
        is_less = wanted == 0 or (isinstance(wanted, int) and wanted < BATCHES)
        trainer[limit] = wanted if is_less else BATCHES
    if why_no_validation(given) is not None:
        trainer["limit_val_batches"] = 0
    own = config.get("seed_everything")
    is_seed = isinstance(own, int) and not isinstance(own, bool)
    return {**config, "seed_everything": own if is_seed else seed, "trainer": trainer}


def with_stage_logger(config: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """Return a config whose logger forgets what it is told, unless it has none on purpose."""
    trainer = config.get("trainer") or {}
    if trainer.get("logger") is False:
        return dict(config)
    block = {"class_path": f"{__name__}.{StageLogger.__name__}", "init_args": {"save_dir": str(directory)}}
    return {**config, "trainer": {**trainer, "logger": block}}


class StageLogger(DummyLogger):
    """Lightning's logger for runs that leave nothing behind, with a folder for a user's code that asks for it.

    Args:
        save_dir: the rehearsal's own.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self._save_dir = save_dir

    @property
    def save_dir(self) -> str:
        """The rehearsal's own folder."""
        return self._save_dir

    @property
    def log_dir(self) -> str:
        """The rehearsal's own folder."""
        return self._save_dir


def why_no_validation(trainer: Mapping[str, Any]) -> str | None:
    """Say why no epoch of a trial would validate, as far as the trainer's section tells; None where one does.

    Example:
        >>> why_no_validation({"max_epochs": 3, "check_val_every_n_epoch": 5})
        'check_val_every_n_epoch=5 is more than max_epochs=3'
    """
    every, epochs = trainer.get("check_val_every_n_epoch"), trainer.get("max_epochs")
    if isinstance(every, int) and isinstance(epochs, int) and 0 <= epochs < every:
        return f"check_val_every_n_epoch={every} is more than max_epochs={epochs}"
    return None


class Rehearsal(Callback):
    """Ends a fit after its first epoch, and writes down what it was.

    Args:
        directory: the training's own folder.
        saves: whether a checkpoint is to be written, to see that it can be, and how large it is.
    """

    def __init__(self, directory: Path, saves: bool) -> None:
        self._directory = directory
        self._saves = saves
        self._losses: list[float] = []
        self._train_marks: list[float] = []
        self._val_marks: list[float] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have checkpoints written here, wherever they come from, and leave out what trains more than once."""
        kept = []
        for callback in callbacks_of(trainer):
            if isinstance(callback, (BatchSizeFinder, LearningRateFinder)):
                continue
            if isinstance(callback, Checkpoint) and hasattr(callback, "dirpath"):
                callback.dirpath = str(self._directory / "checkpoints")
            kept.append(callback)
        set_callbacks(trainer, kept)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to take the time."""
        self._train_marks.append(time.perf_counter())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss, for which an accelerator has to be waited for, and the time."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, torch.Tensor) and loss.numel() == 1:
            self._losses.append(float(loss))
        self._train_marks.append(time.perf_counter())

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to take the time."""
        self._val_marks = [time.perf_counter()]

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note the time, with all that an accelerator has been given to do."""
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self._val_marks.append(time.perf_counter())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the fit."""
        trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write down what it was."""
        began = time.perf_counter()
        size = self._size(trainer)  # on all ranks
        if not trainer.is_global_zero:
            return
        device = pl_module.device
        is_cuda = device.type == "cuda"
        noted = {
            "metrics": {name: float(value) for name, value in sorted(trainer.callback_metrics.items())},
            "losses": self._losses,
            "train_lengths": _lengths(trainer.train_dataloader),
            "val_lengths": _lengths(trainer.val_dataloaders) if self._val_marks else [],
            "train_seconds": _second(self._train_marks),
            "val_seconds": _second(self._val_marks),
            "checkpoint": size,
            "limits": {"max_epochs": trainer.max_epochs, "max_steps": trainer.max_steps},
            "device_total": torch.cuda.get_device_properties(device).total_memory if is_cuda else None,
            "marks": fingerprint(trainer, pl_module),
        }
        noted["overhead"] = time.perf_counter() - began
        (self._directory / RECORD).write_text(json.dumps(noted))

    def _size(self, trainer: Trainer) -> int | None:
        """Return the bytes of a checkpoint, which is written and removed; of a very large one, those of its tensors."""
        if not self._saves:
            return None
        held = sum(tensor.nbytes for tensor in _tensors_of(trainer))
        is_too_large = held > min(_LARGE, shutil.disk_usage(self._directory).free // 2)
        if trainer.strategy.broadcast(is_too_large):
            return held
        path = self._directory / "size.ckpt"
        trainer.save_checkpoint(path)
        if not trainer.is_global_zero:
            return None
        if path.is_dir():  # of a sharded strategy
            size = sum(file.stat().st_size for file in path.rglob("*"))
            shutil.rmtree(path)
            return size
        size = path.stat().st_size
        path.unlink()
        return size


def fingerprint(trainer: Trainer, model: LightningModule) -> dict[str, str]:
    """Return what tells one training from another after a few batches, each part as text.

    Of tensors there are the sums, which are the same to the last bit where the same was computed.
    """
    state = [(name, tuple(tensor.shape), _sums(tensor)) for name, tensor in _named_tensors(model)]
    optimizers = [
        (type(optimizer).__name__, [{k: v for k, v in group.items() if k != "params"} for group in _groups(optimizer)])
        for optimizer in trainer.optimizers
    ]
    momenta = [_sums(tensor) for optimizer in trainer.optimizers for tensor in _tensors(optimizer.state)]
    schedulers = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
    settings = (trainer.max_epochs, trainer.max_steps, trainer.accumulate_grad_batches, trainer.gradient_clip_val)
    parts = {
        "model": repr(model),
        "weights": state,
        "optimizers": optimizers,
        "momenta": momenta,
        "schedulers": schedulers,
        "trainer": settings,
    }
    return {name: re.sub(r" at 0x[0-9a-f]+", "", repr(part)) for name, part in parts.items()}


def _groups(optimizer: Any) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = optimizer.param_groups
    return groups


def _named_tensors(model: LightningModule) -> Iterator[tuple[str, torch.Tensor]]:
    for kind in (model.named_parameters(), model.named_buffers()):
        yield from ((name, tensor) for name, tensor in kind if not isinstance(tensor, UninitializedParameter))


def _tensors_of(trainer: Trainer) -> Iterator[torch.Tensor]:
    """Return what makes a checkpoint large."""
    yield from (tensor for _, tensor in _named_tensors(trainer.lightning_module))
    for optimizer in trainer.optimizers:
        yield from _tensors(optimizer.state)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _tensors(inner)


def _sums(tensor: torch.Tensor) -> tuple[float, float] | None:
    """Return two sums; of a tensor that is spread over processes, of the part that is here; None where it has none."""
    if hasattr(tensor, "to_local"):  # a DTensor, whose module not every torch has
        tensor = tensor.to_local()
    if tensor.is_meta:
        return None
    tensor = tensor.detach().cpu() if tensor.device.type == "mps" else tensor.detach()  # which has no float64
    values = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
    return float(values.abs().sum()), float(values.real.sum())


def _lengths(loaders: Any) -> list[int | None]:
    """Return how many batches each dataloader has; None for one that does not tell."""
    if isinstance(loaders, Mapping):
        loaders = [*loaders.values()]
    listed = loaders if isinstance(loaders, (list, tuple)) else [loaders]
    return [_length(loader) for loader in listed]


def _length(loader: Any) -> int | None:
    try:
        return len(loader) if isinstance(loader, Sized) else None
    except TypeError:  # of a dataset without a length
        return None


def _second(marks: list[float]) -> float | None:
    """Return the seconds of the second batch, or of the first where there is no other."""
    return marks[-1] - marks[-2] if len(marks) > 1 else None
