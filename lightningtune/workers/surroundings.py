"""What a process takes over from the host's, for a trial to find there what it would find in the user's script."""

from __future__ import annotations

import multiprocessing
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

_PYTHONPATH = "PYTHONPATH"


@dataclass(frozen=True)
class Surroundings:
    """What a new interpreter takes over from the host's, beside the environment's variables.

    Attributes:
        path: where modules are found.
        folder: where relative paths lead.
        python_path: the user's ``PYTHONPATH``, which the new interpreter has another of, to find this package.
        arguments: of the command line.
        start_method: how ``multiprocessing`` starts processes, where the user has said so.
        torch: what the user's script has set in torch.
    """

    path: list[str]
    folder: str
    python_path: str | None
    arguments: list[str]
    start_method: str | None
    torch: TorchSettings

    @classmethod
    def here(cls) -> Surroundings:
        """Return those of this process."""
        # what is no path is the name of a hook, such as that of a package installed to be edited
        path = [str(Path(entry).absolute()) if Path(entry).exists() else entry for entry in sys.path]
        return cls(
            path,
            str(Path.cwd()),
            os.environ.get(_PYTHONPATH),
            [*sys.argv],
            multiprocessing.get_start_method(allow_none=True),
            TorchSettings.here(),
        )

    def environment(self) -> dict[str, str]:
        """Return the variables with which an interpreter finds this package wherever the host has found it."""
        return {**os.environ, _PYTHONPATH: os.pathsep.join(self.path)}

    def take_over(self) -> None:
        """Make them those of this process; what it starts may be another Python, with other modules."""
        sys.path[:] = self.path
        sys.argv[:] = self.arguments
        os.chdir(self.folder)
        os.environ.pop(_PYTHONPATH, None)
        if self.python_path is not None:
            os.environ[_PYTHONPATH] = self.python_path
        if self.start_method is not None:
            multiprocessing.set_start_method(self.start_method, force=True)
        self.torch.take_over()


@dataclass(frozen=True)
class TorchSettings:
    """The settings of torch that decide what a training computes.

    Attributes:
        dtype: of new tensors.
        deterministic: whether operations are to be, and whether one that is not is only warned of.
        precision: of float32 matrix products on an accelerator.
        anomaly: whether a backward pass looks for its errors' origin, and for NaN.
        cudnn: whether it looks for the fastest algorithm, and whether it keeps to deterministic ones.
    """

    dtype: torch.dtype
    deterministic: tuple[bool, bool]
    precision: str
    anomaly: tuple[bool, bool]
    cudnn: tuple[bool, bool]

    @classmethod
    def here(cls) -> TorchSettings:
        """Return those of this process."""
        return cls(
            torch.get_default_dtype(),
            (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
            torch.get_float32_matmul_precision(),
            (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
            (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        )

    def take_over(self) -> None:
        """Make them those of this process."""
        torch.set_default_dtype(self.dtype)
        mode, warn_only = self.deterministic
        torch.use_deterministic_algorithms(mode, warn_only=warn_only)
        torch.set_float32_matmul_precision(self.precision)
        torch.autograd.set_detect_anomaly(*self.anomaly)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = self.cudnn
