"""`@tunable`: declares on a class what may vary. The class stays the same class."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import optuna

from lightningtune.config.base import has_block
from lightningtune.config.signatures import (
    REQUIRED,
    Misfit,
    fit,
    given_hyperparameters,
    signature_of,
    type_hints,
)
from lightningtune.config.values import is_kept, plain
from lightningtune.errors import SearchSpaceError, did_you_mean
from lightningtune.search.spaces import ProbingStudy, SearchSpace, SearchSpaceLike, as_search_space, override

C = TypeVar("C", bound=type)
_ATTRIBUTE = "__search_space__"
_NOT_GIVEN: Any = object()
_PROBES = 5


def tunable(*unnamed: Any, search_space: SearchSpaceLike = _NOT_GIVEN) -> Callable[[C], C]:
    """Declare the search space of a LightningModule or a LightningDataModule.

    The same class comes back, with a search space that `OptunaDrivenOptimizer` finds and a class method
    ``from_trial(trial, **fixed)`` that suggests values and constructs. A subclass inherits the space; decorated again,
    it extends the space, and its own definition of a name wins.

    Args:
        unnamed: nothing; it is there to say so, where ``@tunable`` stands alone.
        search_space: the names are parameters of ``__init__``. A function of the trial is called a few times here, with
            a study of its own; what it raises itself is left for later.

    Raises:
        SearchSpaceError: when a name is not a parameter, a value does not fit its annotation, or the class has a
            ``from_trial`` of its own.

    Example:
        >>> @tunable(search_space={"lr": ("loguniform", 1e-5, 1e-1)})
        ... class Net:  # a LightningModule
        ...     def __init__(self, lr: float = 1e-3, hidden: int = 64):
        ...         self.lr, self.hidden = lr, hidden
        >>> net = Net.from_trial(optuna.trial.FixedTrial({"lr": 0.01}), hidden=8)
        >>> net.lr, net.hidden
        (0.01, 8)
    """
    if unnamed or search_space is _NOT_GIVEN:
        given = f", but got {unnamed[0]!r}" if unnamed else ""
        raise SearchSpaceError(f"@tunable takes the space by its name{given}: write @tunable(search_space=...).")
    own = as_search_space(search_space)

    def declare(cls: C) -> C:
        if not inspect.isclass(cls):
            raise SearchSpaceError(f"@tunable decorates a class, but got {cls!r}.")
        inherited = search_space_of(cls)
        space = own if inherited is None else override(own, inherited)
        _refuse_own_from_trial(cls)
        _check(cls, space)
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
    for name in fixed:
        if not signature_of(cls).accepts(name):
            raise _unknown(cls, name)
    arguments = {**_as_annotated(cls, values, build=True), **fixed}
    if not has_block([*values.values()]):
        return cls(**arguments)
    defaults = {name: value for name, value in signature_of(cls).defaults.items() if value is not REQUIRED}
    with given_hyperparameters(cls, {**defaults, **values, **fixed}):
        return cls(**arguments)


def _as_annotated(cls: type, values: Mapping[str, Any], build: bool) -> dict[str, Any]:
    """Return what the annotations of ``__init__`` make of values: tuples, members of Enums, instances of blocks.

    What only ``**kwargs`` takes, and what is no YAML value (a function of the trial may return it), passes as it is.

    Raises:
        SearchSpaceError: when a name is not a parameter, or a value does not fit.
    """
    signature, hints = signature_of(cls), type_hints(cls)
    made: dict[str, Any] = {}
    for name, value in values.items():
        if not signature.accepts(name):
            raise _unknown(cls, name)
        given, hint = value, hints.get(name, Any)
        try:
            made[name] = value = plain(given)
        except TypeError:
            made[name] = given
            continue
        if name in signature.defaults and not (value is None and signature.defaults[name] is None):
            try:
                fitted = fit(hint, value, build)
                made[name] = fitted if is_kept(given, fitted, hint) else given
            except Misfit as error:
                annotation = inspect.formatannotation(hint)
                raise SearchSpaceError(
                    f"{cls.__name__}: '{name}' is annotated {annotation}, but its search space holds {value!r}."
                ) from error
    return made


def _check(cls: type, space: SearchSpace) -> None:
    """Check the names and the values of a space: each end and choice, or a few points where a function makes them."""
    if space.parameters is not None:
        for parameter in space.parameters:
            for value in parameter.ends:
                _as_annotated(cls, dict.fromkeys(parameter.paths, value), build=False)
        return
    study = ProbingStudy()
    for _ in range(_PROBES):
        try:
            point = space.suggest(study.ask())
        except SearchSpaceError:
            raise
        except Exception:  # the function may need what its module defines later; the study will tell
            continue
        _as_annotated(cls, point, build=False)


def _refuse_own_from_trial(cls: type) -> None:
    for owner in cls.__mro__:
        own = vars(owner).get("from_trial")
        if own is not None and getattr(getattr(own, "__func__", own), "__module__", None) != __name__:
            raise SearchSpaceError(
                f"{cls.__name__} has a from_trial of its own, of {owner.__name__}, which @tunable would replace. "
                "Give it another name."
            )


def _unknown(cls: type, name: str) -> SearchSpaceError:
    names = signature_of(cls).defaults
    return SearchSpaceError(
        f"'{name}' is not a parameter of {cls.__name__}.__init__.{did_you_mean(name, names)} "
        f"It takes: {', '.join(names) or 'nothing'}."
    )
