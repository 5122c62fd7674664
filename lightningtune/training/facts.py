"""What a training was done with: device, threads, parameters, and the most memory that it held."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import platform
import re
from pathlib import Path

import torch
from lightning.pytorch import LightningModule
from torch.nn.parameter import UninitializedParameter

from lightningtune.contract import TrialFacts
from lightningtune.training.build import Fit

_PROC = Path("/proc/self")


def reset_peaks() -> int:
    """Count the peaks of this process's memory anew; return the bytes above which a peak is a new one."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)
    try:
        (_PROC / "clear_refs").write_text("5")
    except OSError:  # there is no such file but on Linux, and a container may forbid it
        return _peak() or 0
    return 0


def collect_facts(fit: Fit | None, above: int) -> TrialFacts:
    """Return what is known of a training that has ended; ``above`` is what `reset_peaks` has returned."""
    peak = _peak() or 0
    facts = TrialFacts(threads=torch.get_num_threads(), memory=peak if peak > above else None)
    if fit is None:
        return facts
    parameters, trainable = _count(fit.model)
    facts = dataclasses.replace(facts, ranks=fit.trainer.world_size, parameters=parameters, trainable=trainable)
    device = fit.trainer.strategy.root_device
    if device.type != "cuda":
        return dataclasses.replace(facts, device=f"{device.type} ({_processor()})")
    try:
        name, most = torch.cuda.get_device_name(device), torch.cuda.max_memory_allocated(device)
    except RuntimeError:  # a device on which something has failed answers nothing
        return dataclasses.replace(facts, device=device.type)
    return dataclasses.replace(facts, device=f"{device.type} ({name})", device_memory=most)


def _count(model: LightningModule) -> tuple[int, int]:
    """Count the parameters of a model, and those that are trained; a lazy one that was never used has none."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters() if not isinstance(p, UninitializedParameter)]
    return sum(size for size, _ in sizes), sum(size for size, is_trained in sizes if is_trained)


def _peak() -> int | None:
    """Return the most bytes that this process has held at once since the count began."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", (_PROC / "status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


@functools.cache
def _processor() -> str:
    """Return the name of the CPU, as far as the system tells it."""
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
