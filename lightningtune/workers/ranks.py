"""The processes that train one trial together, and the variables by which they find each other."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping

from lightning.pytorch.utilities import rank_zero_only

from lightningtune.errors import ConfigurationError

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


def variables_of_ranks(count: int) -> list[dict[str, str]]:
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

    Args:
        variables: of the rank; none where it is the only one.
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
    """Refuse to run a study in each of several processes that a launcher has started for one training.

    Raises:
        ConfigurationError: naming the variables, and what to do.
    """
    told = {name: os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE") if name in os.environ}
    if len(told) < 2 or told.get("WORLD_SIZE", "1") == "1":
        return
    said = ", ".join(f"{name}={value}" for name, value in told.items())
    raise ConfigurationError(
        f"A launcher such as torchrun has started this process as one of {told['WORLD_SIZE']} ({said}). "
        "LightningTune starts the processes of each trial by itself: run the script once, with python, and set the "
        "trainer's devices and strategy. Where each process is to be a host of its own, unset these variables."
    )
