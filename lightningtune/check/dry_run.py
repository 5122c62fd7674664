"""The callback of a dry run: it cuts a trial's first epoch short, and notes what tells two trainings apart.

Trial processes import this file: it needs no Optuna, and nothing of the host.
"""

from __future__ import annotations

import copy
import math
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, Callback, Checkpoint, LearningRateFinder
from lightning.pytorch.loggers import Logger
from torch.nn.parameter import UninitializedParameter

from lightningtune.check.report import DryRunNotes
from lightningtune.config.importing import find_block_class
from lightningtune.errors import MetricError
from lightningtune.training.loops import end_epoch, get_callbacks, set_callbacks, shorten_validation, stop_softly
from lightningtune.training.metrics import find_missing_metric, why_never_validated
from lightningtune.training.tracker_names import is_local

NOTES_FILE = "dry_run.json"
"""The file in a dry run's folder that holds what was noted."""
DOUBT_FILE = "in_doubt"
"""The file in a dry run's folder that says: what was raised need not be raised in a trial."""
_BATCHES = 2
"""Batches to train on, and to validate on: the first warms up, the second is timed."""
_MAX_SANITY_STEPS = 2
_MAX_CHECKPOINT = 2 * 1024**3
"""Bytes of the largest checkpoint that is written to see how large it is."""
_SETTINGS = (
    *("max_epochs", "max_steps", "min_epochs", "min_steps", "accumulate_grad_batches", "gradient_clip_val"),
    *("val_check_batch", "check_val_every_n_epoch"),
)
"""Attributes of a trainer that say what it does after a dry run has ended."""
_SEARCHES = (BatchSizeFinder, LearningRateFinder)


def dry_run_config(config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return a trial's config without a profiler and a folder of the user's, and with a seed if it has none.

    Example:
        >>> dry_run_config({"trainer": {"max_epochs": 9, "profiler": "simple", "limit_val_batches": 0}}, 1)
        {'trainer': {'max_epochs': 9, 'limit_val_batches': 0}, 'seed_everything': 1}
    """
    trainer = copy.deepcopy(dict(config.get("trainer") or {}))
    for name in ("default_root_dir", "profiler"):
        trainer.pop(name, None)
    if not 0 <= (trainer.get("num_sanity_val_steps") or 0) <= _MAX_SANITY_STEPS:
        trainer.pop("num_sanity_val_steps")  # it takes too long, and cutting it short may break it
    own = config.get("seed_everything")
    is_seed = isinstance(own, int) and not isinstance(own, bool)
    return {**config, "seed_everything": own if is_seed else seed, "trainer": trainer}


def name_untried(logger: Any, callbacks: Sequence[Any]) -> list[str]:
    """Name what a trial has and a dry run has not: trackers, and searches before the training.

    Example:
        >>> name_untried(["CSVLogger", {"class_path": "WandbLogger"}], [LearningRateFinder()])
        ['WandbLogger', 'LearningRateFinder']
    """
    loggers = [] if logger is None or isinstance(logger, bool) else logger if isinstance(logger, list) else [logger]
    trackers = [(find_block_class(block, Logger), block) for block in loggers if not is_local(block)]
    kinds = [find_block_class(each, Callback) or type(each) for each in callbacks]
    searches = [kind.__name__ for kind in kinds if issubclass(kind, _SEARCHES)]
    return [str(block) if kind is None else kind.__name__ for kind, block in trackers] + searches


class DryRun(Callback):
    """Ends a fit after its first epoch, which is cut short, and writes down what it was.

    The trainer's settings stay as a trial has them, and so does every count and every schedule that is made from them.
    The epoch is cut from within: its second batch is declared the last, and the fit is asked to stop, whereupon
    Lightning validates. What is raised before the cut, or by a batch, is raised in a trial too. Of what is raised
    afterwards that is not sure, and the file `DOUBT_FILE` says so.
    """

    def __init__(self, directory: Path, saves: bool) -> None:
        self._directory = directory
        self._saves = saves
        self._is_cut = False  # the epoch ends early
        self._is_shortened = False  # by now, something was left out that a trial does
        self._is_in_batch = False  # what is raised now is raised in a trial too
        self._every_n_epochs: int | None = None  # the user's setting, while the trainer has another
        self._notes = DryRunNotes()
        self._since = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have checkpoints written here, wherever they come from, and leave out what trains more than once."""
        kept: list[Callback] = []
        for callback in get_callbacks(trainer):
            if callback is self or isinstance(callback, _SEARCHES):
                continue
            if isinstance(callback, Checkpoint) and hasattr(callback, "dirpath"):
                callback.dirpath = str(self._directory / "checkpoints")
            kept.append(callback)
        set_callbacks(trainer, [self, *kept])  # first, so that the notes are written when another one raises

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note how long a trial is, and begin to take the time."""
        self._notes.settings = {name: getattr(trainer, name) for name in _SETTINGS}
        self._since = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Declare the second batch the last, before the optimizer is asked whether it accumulates."""
        self._is_in_batch = True
        if trainer.fit_loop.batch_idx + 1 >= _BATCHES and not trainer.is_last_batch:
            self._is_cut = self._is_shortened = True
            end_epoch(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss, for which an accelerator has to be waited for, and the time; end the fit with the epoch."""
        self._is_in_batch = False
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, torch.Tensor) and loss.numel() == 1:
            self._notes.losses.append(float(loss))
        self._note_seconds(self._notes.train_seconds)
        if self._is_cut:
            end_epoch(trainer)  # a step that takes an iterator of the dataloader has undone it
        if trainer.is_last_batch:
            stop_softly(trainer)
            # Lightning validates after this epoch, whenever a trial would; why_never_validated knows where it must not
            if trainer.check_val_every_n_epoch is not None and why_never_validated(trainer) is None:
                self._every_n_epochs, trainer.check_val_every_n_epoch = trainer.check_val_every_n_epoch, 1

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the batches, shorten the validation, and begin to take the time."""
        self._restore_interval(trainer)
        if not trainer.sanity_checking:
            if self._notes.val_batches == 0:  # else an earlier validation has shortened the numbers
                self._notes.val_batches = _known(sum(trainer.num_val_batches))
            self._is_shortened |= shorten_validation(trainer, _BATCHES)
        self._since = time.perf_counter()

    def on_validation_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Note that what is raised now would be raised in a trial."""
        self._is_in_batch = True

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Note the time, with all that an accelerator has been given to do."""
        self._is_in_batch = False
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self._note_seconds(self._notes.val_seconds)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to take the time of the training batches that follow, where there are any."""
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the interval of validations, where none came."""
        self._restore_interval(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write down what the training was, and whether a trial would have ended here too."""
        self._is_in_batch = True  # a trial writes checkpoints too
        self._write_notes(trainer, pl_module)
        self._is_in_batch = False
        is_over = trainer.max_epochs == 1 or 0 <= trainer.max_steps <= trainer.global_step
        self._is_shortened |= not is_over
        if self._is_shortened:  # an exception that follows does not reach on_exception
            self._note_doubt()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say whether a trial would have raised it, too: it misses a metric after its first epoch as well."""
        is_of_metric = isinstance(exception, MetricError) or find_missing_metric(exception) is not None
        if self._is_shortened and not self._is_in_batch and not is_of_metric:
            self._note_doubt()

    def _note_seconds(self, seconds: list[float]) -> None:
        before, self._since = self._since, time.perf_counter()
        seconds.append(self._since - before)

    def _note_doubt(self) -> None:
        (self._directory / DOUBT_FILE).touch()

    def _restore_interval(self, trainer: Trainer) -> None:
        """Let the trainer have its own setting again, by which some callbacks decide when to act."""
        if self._every_n_epochs is not None:
            trainer.check_val_every_n_epoch, self._every_n_epochs = self._every_n_epochs, None

    def _write_notes(self, trainer: Trainer, pl_module: LightningModule) -> None:
        began = time.perf_counter()
        size = self._measure_checkpoint(trainer)  # on all ranks
        if not trainer.is_global_zero:
            return
        notes, device = self._notes, pl_module.device
        notes.metrics = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        notes.train_batches = _known(trainer.num_training_batches)
        notes.checkpoint = size
        if device.type == "cuda":
            notes.device_total = torch.cuda.get_device_properties(device).total_memory
        notes.fingerprint = fingerprint(trainer, pl_module)
        notes.overhead = time.perf_counter() - began
        notes.write(self._directory / NOTES_FILE)

    def _measure_checkpoint(self, trainer: Trainer) -> int | None:
        """Write and remove a checkpoint, and return its bytes; of a very large one, return those of its tensors."""
        if not self._saves:
            return None
        tensors = [tensor for _, tensor in _named_tensors(trainer.lightning_module)]
        for optimizer in trainer.optimizers:
            tensors += _find_tensors(optimizer.state)
        size = sum(tensor.nbytes for tensor in tensors)
        is_too_large = size > min(_MAX_CHECKPOINT, shutil.disk_usage(self._directory).free // 2)
        if trainer.strategy.broadcast(is_too_large):
            return size
        path = self._directory / "size.ckpt"
        trainer.save_checkpoint(path)
        if not trainer.is_global_zero:
            return None
        if path.is_dir():  # of a sharded strategy
            size = sum(file.stat().st_size for file in path.rglob("*"))
            shutil.rmtree(path)
        else:
            size = path.stat().st_size
            path.unlink()
        return size


def fingerprint(trainer: Trainer, model: LightningModule) -> dict[str, str]:
    """Return what tells one training from another after a few batches, each part as text.

    Of tensors there are the sums, which are the same to the last bit where the same was computed.
    """
    optimizers: list[Any] = trainer.optimizers
    parts = {
        "model": model,
        "weights": [(name, tuple(tensor.shape), _sums(tensor)) for name, tensor in _named_tensors(model)],
        "optimizers": [
            (type(optimizer).__name__, {key: value for key, value in group.items() if key != "params"})
            for optimizer in optimizers
            for group in optimizer.param_groups
        ],
        "momenta": [_sums(tensor) for optimizer in optimizers for tensor in _find_tensors(optimizer.state)],
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
    }
    return {name: re.sub(r" at 0x[0-9a-f]+", "", repr(part)) for name, part in parts.items()}


def _named_tensors(model: LightningModule) -> Iterator[tuple[str, torch.Tensor]]:
    for tensors in (model.named_parameters(), model.named_buffers()):
        yield from ((name, tensor) for name, tensor in tensors if not isinstance(tensor, UninitializedParameter))


def _find_tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _find_tensors(inner)


def _sums(tensor: torch.Tensor) -> tuple[float, float] | None:
    """Return two sums; of a tensor that is spread over processes, of the part that is here; None where it has none."""
    if hasattr(tensor, "to_local"):  # a DTensor, whose module not every torch has
        tensor = tensor.to_local()
    if tensor.is_meta:
        return None
    tensor = tensor.detach().cpu() if tensor.device.type == "mps" else tensor.detach()  # which has no float64
    values = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
    return float(values.abs().sum()), float(values.real.sum())


def _known(count: int | float) -> int | None:
    return int(count) if math.isfinite(count) else None
