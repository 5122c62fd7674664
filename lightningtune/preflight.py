"""What is checked before the first epoch: that every point of the space is a config that can be built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import optuna

from lightningtune.config.base import check_names
from lightningtune.config.overrides import Schema
from lightningtune.errors import ConfigError, ConfigurationError, SearchSpaceError
from lightningtune.files import plain
from lightningtune.search.distributions import NoDefault
from lightningtune.search.spaces import SearchSpace
from lightningtune.training.build import Blueprint

_PROBES = 5


def check_space(space: SearchSpace, schema: Schema, config: Mapping[str, Any], blueprint: Blueprint) -> None:
    """Sample a few points, and each end of each range, and parse the configs they make.

    Raises:
        ConfigurationError: naming the path, the type or the value that does not fit.
    """
    check_names(schema, config)
    points = list(_probes(space))
    for parameter in space.parameters or ():
        for value in parameter.corners:
            corner = points[0] | dict.fromkeys(parameter.paths, value)
            merged = schema.merge(config, corner)
            try:
                blueprint.check(merged)
            except ConfigError as error:
                if not any(path.rpartition(".")[2] in str(error) for path in parameter.paths):
                    raise
                raise ConfigError(f"'{parameter.name}'={value!r} does not fit. {error}") from error
    for point in points:
        blueprint.check(schema.merge(config, point))


def _probes(space: SearchSpace) -> Iterator[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(_PROBES):
        try:
            yield space.suggest(study.ask())
        except optuna.TrialPruned:  # the user's way to say that a point is of no interest
            continue
        except ConfigurationError:
            raise
        except Exception as error:
            raise SearchSpaceError(f"{space!r} raised {type(error).__name__}: {error}") from error


def baseline_point(
    space: SearchSpace, schema: Schema, config: Mapping[str, Any], blueprint: Blueprint
) -> dict[str, Any]:
    """Express the untuned defaults, the base config as it is, as a point of the space.

    Returns:
        Parameter name to what Optuna stores for it.

    Raises:
        NoDefault: when there is no such point, saying why.
    """
    try:
        blueprint.check(config)
        return space.defaults(lambda path: _as_written(schema.lookup(config, path)))
    except ConfigurationError as error:
        raise NoDefault(str(error)) from error


def _as_written(default: Any) -> Any:
    """Return a default as a config would hold it, for comparison with what the space makes of it."""
    try:
        return plain(default)
    except TypeError:
        return default


def check_point(space: SearchSpace, point: Mapping[str, Any]) -> None:
    """Check that a point the user gave names every parameter of the space.

    A number may lie outside its range, as an untuned default may.

    Raises:
        SearchSpaceError: naming the one that is missing, unknown or none of the choices.
    """
    trial = optuna.trial.FixedTrial(dict(point))
    try:
        space.suggest(trial)
    except Exception as error:  # a user's function may raise anything; Optuna says which value is missing
        reason = "it prunes it" if isinstance(error, optuna.TrialPruned) else f"{type(error).__name__}: {error}"
        raise SearchSpaceError(f"baseline={dict(point)!r} is not a point of the search space: {reason}") from error
    unknown = point.keys() - trial.params.keys()
    if unknown:
        raise SearchSpaceError(
            f"baseline names '{min(unknown)}', which the search space does not suggest there. It suggests: "
            f"{', '.join(trial.params)}."
        )
