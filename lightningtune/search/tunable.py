"""`@tunable`: declares on a class what may vary. The class stays the same class."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import optuna
from jsonargparse import ArgumentParser

from lightningtune.errors import SearchSpaceError, did_you_mean
from lightningtune.search.distributions import Parameter
from lightningtune.search.spaces import SearchSpace, SearchSpaceLike, as_search_space, override
from lightningtune.signatures import signature_of, type_hints

C = TypeVar("C", bound=type)
_ATTRIBUTE = "__search_space__"


def tunable(*, search_space: SearchSpaceLike) -> Callable[[C], C]:
    """Declare the search space of a LightningModule or a LightningDataModule.

    The same class comes back, with a search space that `OptunaDrivenOptimizer` finds and a class method
    ``from_trial(trial, **fixed)`` that suggests values and constructs. A subclass inherits the space; decorated again,
    it extends the space, and its own definition of a name wins.

    Args:
        search_space: the names are parameters of ``__init__``.

    Raises:
        SearchSpaceError: when a name is not a parameter, or a value does not fit its annotation.

    Example:
        >>> @tunable(search_space={"lr": ("loguniform", 1e-5, 1e-1)})
        ... class Net:  # a LightningModule
        ...     def __init__(self, lr: float = 1e-3, hidden: int = 64):
        ...         self.lr, self.hidden = lr, hidden
        >>> net = Net.from_trial(optuna.trial.FixedTrial({"lr": 0.01}), hidden=8)
        >>> net.lr, net.hidden
        (0.01, 8)
    """
    own = as_search_space(search_space)

    def declare(cls: C) -> C:
        if not inspect.isclass(cls):
            raise SearchSpaceError(f"@tunable decorates a class, but got {cls!r}.")
        inherited = search_space_of(cls)
        space = own if inherited is None else override(own, inherited)
        for parameter in space.parameters or ():
            _check(cls, parameter)
        setattr(cls, _ATTRIBUTE, space)
        setattr(cls, "from_trial", classmethod(_from_trial))  # noqa: B010 - no type checker knows the attribute
        return cls

    return declare


def search_space_of(target: Any) -> SearchSpace | None:
    """Return the search space declared on a class, or on the class that a callable is bound to; None without one."""
    while isinstance(target, functools.partial):
        target = target.func
    owner = target.__self__ if inspect.ismethod(target) else target  # Net.from_dataset builds a Net
    space = getattr(owner, _ATTRIBUTE, None) if inspect.isclass(owner) else None
    return space if isinstance(space, SearchSpace) else None


def _from_trial(cls: type, /, trial: optuna.trial.BaseTrial, **fixed: Any) -> Any:
    """Suggest values from the class's search space and construct an instance.

    Args:
        cls: the decorated class.
        trial: the Optuna trial.
        fixed: arguments that win over the space and are not sampled.

    Raises:
        SearchSpaceError: when it is no trial, or a name is not a parameter.
    """
    space = search_space_of(cls)
    assert space is not None
    if not isinstance(trial, optuna.trial.BaseTrial):
        raise SearchSpaceError(f"{cls.__name__}.from_trial takes an Optuna trial, but got {trial!r}.")
    values = space.suggest(trial, fixed)
    signature = signature_of(cls)
    for name in (*values, *fixed):
        if not signature.accepts(name):
            raise _unknown(cls, name)
    return cls(**_instantiated(cls, values), **fixed)


def _instantiated(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    """Turn ``class_path`` blocks among the values into what the parameter's annotation asks for."""
    hints = type_hints(cls)
    blocks = {name for name, value in values.items() if isinstance(value, dict) and "class_path" in value}
    return {
        name: _parse(hints[name], value, build=True) if name in blocks and name in hints else value
        for name, value in values.items()
    }


def _check(cls: type, parameter: Parameter) -> None:
    signature, hints = signature_of(cls), type_hints(cls)
    for path in parameter.paths:
        if not signature.accepts(path):
            raise _unknown(cls, path)
        for value in parameter.corners if path in hints else ():
            try:
                _parse(hints[path], value, build=False)
            except Exception as error:
                annotation = inspect.formatannotation(hints[path])
                raise SearchSpaceError(
                    f"{cls.__name__}: '{path}' is annotated {annotation}, but its search space holds {value!r}."
                ) from error


def _parse(hint: Any, value: Any, build: bool) -> Any:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    parsed = parser.parse_object({"value": value})
    return parser.instantiate(parsed).value if build else parsed.value


def _unknown(cls: type, name: str) -> SearchSpaceError:
    names = signature_of(cls).defaults
    return SearchSpaceError(
        f"'{name}' is not a parameter of {cls.__name__}.__init__.{did_you_mean(name, names)} "
        f"It takes: {', '.join(names) or 'nothing'}."
    )
