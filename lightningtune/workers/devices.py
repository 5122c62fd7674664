"""Where trials run: a machine cut into slots, and the ranks of a trial of several processes."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only

from lightningtune.errors import ConfigurationError

MOST = 1000
"""Trials that one machine runs at a time: each is a process, with files and memory of its own."""


@dataclass(frozen=True)
class Slot:
    """What one trial at a time may use."""

    devices: tuple[str, ...] = ()
    """Accelerators, as ``CUDA_VISIBLE_DEVICES`` names them; empty where trials run on CPU cores."""
    cores: tuple[int, ...] = ()
    """The CPU cores that a trial keeps to, and all it starts, such as a DataLoader's workers; empty for any."""
    threads: int = 1
    """How many threads a process computes with; the same in all slots, since it may decide the last bit."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables of a process that runs here, to be set before CUDA starts, and for what it starts itself."""
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(self.threads))
        return {**threads, "CUDA_VISIBLE_DEVICES": ",".join(self.devices)} if self.devices else threads


@dataclass(frozen=True)
class Machine:
    """What there is to be cut into slots: CPU cores, torch's threads, and accelerators, if trials are to use them."""

    cores: tuple[int, ...]
    threads: int
    devices: tuple[str, ...] = ()


def this_machine(accelerator: str) -> Machine:
    """Look at this machine, without starting CUDA."""
    known = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    count = torch.cuda.device_count() if accelerator in ("auto", "gpu", "cuda") else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else map(str, range(count))
    return Machine(tuple(sorted(known)), torch.get_num_threads(), tuple(name.strip() for name in names)[:count])


def plan_slots(
    trainer: Mapping[str, Any], n_jobs: int, isolate: bool, devices_per_trial: int | None, trials_per_device: int
) -> tuple[Sequence[Slot], Mapping[str, Any]]:
    """Return this machine's slots, and the trainer's section with the number of devices that it has in one.

    Raises:
        ConfigurationError: when that is not what there is, or this process is one of several ranks.
    """
    refuse_launcher()
    machine, devices = this_machine(str(trainer.get("accelerator", "auto"))), trainer.get("devices")
    per_trial = count_devices(machine, devices, devices_per_trial, n_jobs, isolate)
    is_to_be_said = machine.devices and (per_trial > 1 or devices in ("auto", "-1", -1))
    slots = cut_slots(machine, n_jobs, per_trial, trials_per_device)
    return slots, {**trainer, "devices": per_trial} if is_to_be_said else trainer


def count_devices(machine: Machine, given: Any, asked: int | None, n_jobs: int, isolate: bool) -> int:
    """Return how many accelerators one trial has: as the trainer's ``devices`` say, or ``asked``.

    Raises:
        ConfigurationError: when the two contradict each other, or the trainer's name devices.

    Example:
        >>> count_devices(Machine((0, 1), 2, ("0", "1", "2", "3")), given=2, asked=None, n_jobs=-1, isolate=True)
        2
    """
    if not machine.devices or given is None:
        return asked or 1
    if str(given) in ("auto", "-1"):
        return asked or (len(machine.devices) if n_jobs == 1 else 1)
    if isinstance(given, (list, str)) and not str(given).isdigit():
        if not isolate and isinstance(given, list) and len(given) == 1:
            return 1
        raise ConfigurationError(
            f"trainer.devices={given!r} names devices, but each trial is given its own. Write how many it needs; "
            "CUDA_VISIBLE_DEVICES says which there are."
        )
    if asked not in (None, int(given)):
        raise ConfigurationError(f"devices_per_trial={asked} contradicts the trainer's devices={given}. Leave one out.")
    return int(given)


def cut_slots(machine: Machine, n_jobs: int, devices_per_trial: int = 1, trials_per_device: int = 1) -> Sequence[Slot]:
    """Cut a machine into one slot for each trial that runs at a time.

    With ``n_jobs=-1`` as many run as fit: one for each accelerator (or group of ``devices_per_trial``, times
    ``trials_per_device``), otherwise one for each core.

    Raises:
        ConfigurationError: when there are not so many slots.

    Example:
        >>> for slot in cut_slots(Machine((0, 1, 2, 3), 4, ("0", "1")), n_jobs=2):
        ...     print(slot)
        Slot(devices=('0',), cores=(0, 1), threads=2)
        Slot(devices=('1',), cores=(2, 3), threads=2)
    """
    for name, count in (("n_jobs", n_jobs), ("trials_per_device", trials_per_device)):
        if count > MOST:
            raise ConfigurationError(f"{name} must be at most {MOST}, which is what one machine runs, but got {count}.")
    groups: list[tuple[str, ...]] = [()]
    if machine.devices:
        starts = range(0, len(machine.devices) - devices_per_trial + 1, devices_per_trial)
        groups = [machine.devices[start : start + devices_per_trial] for start in starts] * trials_per_device
        if not groups or n_jobs > len(groups):
            raise ConfigurationError(
                f"n_jobs={n_jobs}, devices_per_trial={devices_per_trial} and trials_per_device={trials_per_device} ask "
                f"for more than there is: {len(machine.devices)} accelerators give {len(groups)} slots. "
                "Trials share an accelerator with a larger trials_per_device."
            )
    elif devices_per_trial > 1 or trials_per_device > 1:
        raise ConfigurationError(
            f"devices_per_trial={devices_per_trial} and trials_per_device={trials_per_device} are for accelerators, "
            "and trials run on the CPU here. How many run at a time is n_jobs; how many processes train one trial, the "
            "trainer's devices."
        )
    else:
        groups *= len(machine.cores) if n_jobs == -1 else n_jobs
    count = len(groups) if n_jobs == -1 else n_jobs
    threads = max(1, min(machine.threads, len(machine.cores) // count))
    return [Slot(devices, _share(machine.cores, i, count), threads) for i, devices in enumerate(groups[:count])]


def _share(cores: tuple[int, ...], index: int, count: int) -> tuple[int, ...]:
    """Return the cores of one slot of ``count``; where there are fewer cores than slots, some share one."""
    if count >= len(cores):
        return (cores[index % len(cores)],)
    start, end = (i * len(cores) // count for i in (index, index + 1))
    return cores[start:end]


_VARIABLES = (
    "MASTER_ADDR",
    "MASTER_PORT",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "NODE_RANK",
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_USE_AGENT_STORE",
)
"""What launchers such as torchrun tell a process of its rank."""


def get_rank_variables(count: int) -> list[dict[str, str]]:
    """Return the variables by which torch's processes find each other; none for a trial of one process."""
    if count == 1:
        return [{}]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "NODE_RANK": "0"}
    return [{**shared, "LOCAL_RANK": str(rank), "RANK": str(rank)} for rank in range(count)]


def take_rank(variables: Mapping[str, str]) -> None:
    """Make this process one rank of a trial, whatever a launcher has told the study's process of its own rank.

    Lightning's functions for rank 0 alone, such as a logger's, go by a number that is read from the environment when it
    is imported. Under Slurm that is the number of the task.
    """
    for name in _VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(variables)
    rank_zero_only.rank = int(variables.get("RANK", 0))  # type: ignore[attr-defined]


@contextlib.contextmanager
def only_rank() -> Iterator[None]:
    """Make this process the only rank of a trial; afterwards its environment is what it was before."""
    before = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    rank = getattr(rank_zero_only, "rank", 0)
    take_rank({})
    try:
        yield
    finally:
        take_rank(before)
        rank_zero_only.rank = rank  # type: ignore[attr-defined]


def refuse_launcher() -> None:
    """Refuse to run a study in each of several processes that a launcher has started for one training."""
    told = {name: os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE") if name in os.environ}
    if len(told) < 2 or told.get("WORLD_SIZE", "1") == "1":
        return
    said = ", ".join(f"{name}={value}" for name, value in told.items())
    raise ConfigurationError(
        f"A launcher such as torchrun has started this process as one of {told['WORLD_SIZE']} ({said}). "
        "LightningTune starts the processes of each trial by itself: run the script once, with python, and set the "
        "trainer's devices and strategy. Where each process is to be a host of its own, unset these variables."
    )
