"""A result on its way to the host, which may not have what the trial's process had."""

from __future__ import annotations

import dataclasses
import io
import operator
import pickle
import sys
from typing import Any, TypeAlias

from lightningtune.contract import TrialOutcome
from lightningtune.errors import ConfigurationError, TrialError

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
        sent: BaseException = _Sent(_by_reference(result.error), instead)
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


def _by_reference(error: BaseException) -> bytes:
    """Pickle an error; classes of the user's script by their names, though this process has only copies of them."""
    file = io.BytesIO()
    _ByReference(file).dump(error)
    return file.getvalue()


class _ByReference(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, type) and value.__module__ == "__main__":
            return _of_script, (value.__qualname__,)
        return NotImplemented


def _of_script(name: str) -> Any:
    return operator.attrgetter(name)(sys.modules["__main__"])
