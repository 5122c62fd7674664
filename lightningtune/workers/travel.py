"""Whether something can be sent to a trial's process; what cannot is named as the user's code names it."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import types
from collections.abc import Iterator, Sequence
from typing import Any

import cloudpickle

from lightningtune.errors import ConfigurationError


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
        culprit = None if is_deep else _name_of_last(pickler.met)
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


def _name_of_last(met: Sequence[Any]) -> str | None:
    """Return the name of the last object met, by what refers to it: the nearest that was met before it."""
    for index in reversed(range(len(met) - 1)):
        holder = met[index]
        with contextlib.suppress(Exception):  # looking at an object may run its code
            for name, value in _variables(holder):
                if _holds(value, met[-1]):
                    if isinstance(holder, types.FunctionType):
                        return name
                    owner = _name_of_last(met[: index + 1]) or getattr(holder, "__name__", type(holder).__name__)
                    return f"{owner}.{name}"
    return None


def _variables(holder: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a function refers to, or what an object or a class has, by name."""
    if not isinstance(holder, types.FunctionType):
        yield from (holder.keywords if isinstance(holder, functools.partial) else vars(holder)).items()
        return
    codes = [holder.__code__]
    for code in codes:  # the list grows by the functions within each
        codes += [inner for inner in code.co_consts if isinstance(inner, types.CodeType)]
        yield from ((name, holder.__globals__.get(name)) for name in code.co_names)
    for name, cell in zip(holder.__code__.co_freevars, holder.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # it is empty
            yield name, cell.cell_contents
    parameters = inspect.signature(holder, follow_wrapped=False).parameters.values()
    yield from ((parameter.name, parameter.default) for parameter in parameters)


def _holds(value: Any, culprit: Any) -> bool:
    """Whether a value is the culprit, or a plain container of it."""
    items = value.values() if type(value) is dict else value if type(value) in (list, tuple, set) else ()
    return value is culprit or any(_holds(item, culprit) for item in items)
