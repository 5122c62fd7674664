"""What goes from one process to another: what builds trials, what the script has set, and results."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import multiprocessing
import operator
import os
import pickle
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import cloudpickle
import torch

from lightningtune.contract import TrialOutcome
from lightningtune.errors import ConfigurationError, TrialError


def check_travels(name: str, part: Any) -> None:
    """Check that something can be sent to a trial's process.

    Raises:
        ConfigurationError: naming it, the variable or attribute at fault where that can be told, and the way out.
    """
    pickler = _Pickler(io.BytesIO())
    try:
        pickler.dump(part)
    except Exception as error:  # pickling runs whatever code the part has
        is_deep = isinstance(error.__cause__, RecursionError)  # then the last is only where it has ended
        culprit = None if is_deep else _find_last_name(pickler.met)
        uses = f"it uses {culprit}, and that cannot be pickled: " if culprit else ""
        raise ConfigurationError(
            f"{name} cannot be sent to a trial's process: {uses}{type(error).__name__}: {error}. Open files, "
            "connections and locks inside the class or the function, or train in this process with n_jobs=1 and "
            "isolate=False."
        ) from error


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Remembers what it meets, from the outside in: where it fails, the last is what cannot be pickled."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.met: list[Any] = []

    def reducer_override(self, value: Any) -> Any:
        self.met.append(value)
        return super().reducer_override(value)


def _find_last_name(met: Sequence[Any]) -> str | None:
    """Return the name of the last object met, by what refers to it: the nearest that was met before it."""
    for index in reversed(range(len(met) - 1)):
        holder = met[index]
        with contextlib.suppress(Exception):  # looking at an object may run its code
            for name, value in _variables(holder):
                if _holds(value, met[-1]):
                    if isinstance(holder, types.FunctionType):
                        return name
                    owner = _find_last_name(met[: index + 1]) or getattr(holder, "__name__", type(holder).__name__)
                    return f"{owner}.{name}"
    return None


def _variables(holder: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a function refers to, or what an object or a class has, by name."""
    if isinstance(holder, types.FunctionType):
        used = inspect.getclosurevars(holder)
        yield from {**used.globals, **used.nonlocals}.items()
    else:
        yield from vars(holder).items()


def _holds(value: Any, culprit: Any) -> bool:
    """Whether a value is the culprit, or a plain container of it."""
    items = value.values() if type(value) is dict else value if type(value) in (list, tuple, set) else ()
    return value is culprit or any(_holds(item, culprit) for item in items)


_PYTHONPATH = "PYTHONPATH"


@dataclass(frozen=True)
class Surroundings:
    """What a new interpreter takes over from the host's, beside the environment's variables."""

    path: list[str]
    folder: str
    python_path: str | None
    """The user's ``PYTHONPATH``; a new interpreter is started with another one, to find this package."""
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
    """The settings of torch that decide what a training computes."""

    dtype: torch.dtype
    deterministic: tuple[bool, bool]
    """Whether operations are deterministic, and whether one that is not only causes a warning."""
    precision: str
    anomaly: tuple[bool, bool]
    """Whether a backward pass looks for its errors' origin, and for NaN."""
    cudnn: tuple[bool, bool]
    """Whether it looks for the fastest algorithm, and whether it keeps to deterministic ones."""

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


Result: TypeAlias = TrialOutcome | bool
"""What a process ends with: a trial's outcome, or whether data is prepared for all trials."""


def pickle_result(result: Result) -> bytes:
    """Pickle a result for the host, whose scripts' classes are found there by their names.

    An error that cannot travel, or cannot be built again in the host, arrives as its message.
    """
    if isinstance(result, bool) or result.error is None:
        return pickle.dumps(result)
    is_mistake = isinstance(result.error, ConfigurationError)
    instead = ConfigurationError(str(result.error)) if is_mistake else TrialError(result.detail)
    try:
        file = io.BytesIO()
        _ByReference(file).dump(result.error)
        sent: BaseException = _Sent(file.getvalue(), instead)
    except Exception:  # pickling runs whatever code the error has
        sent = instead
    return pickle.dumps(dataclasses.replace(result, error=sent))


class _Sent(Exception):  # noqa: N818 - it stands in an outcome where an error does
    """An error on its way: it is unpickled as the error itself, and, where that fails, as another."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, self.args


def _arrived(pickled: bytes, instead: BaseException) -> BaseException:
    try:
        error = pickle.loads(pickled)
    except Exception:  # many an exception pickles, and cannot be built again
        return instead
    return error if isinstance(error, BaseException) else instead


class _ByReference(pickle.Pickler):
    """Pickles classes of the user's script by their names, though this process has only copies of them."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, type) and value.__module__ == "__main__":
            return _find_in_script, (value.__qualname__,)
        return NotImplemented


def _find_in_script(name: str) -> Any:
    return operator.attrgetter(name)(sys.modules["__main__"])
