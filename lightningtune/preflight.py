"""Check before the first epoch that the space can be sampled and its points can be built."""

from __future__ import annotations

import argparse
import copy
import datetime
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import optuna

from lightningtune.config.base import LIMITS, is_block
from lightningtune.config.schema import Place, check_names, get_at
from lightningtune.config.values import as_python, briefly, is_kept, plain
from lightningtune.contract import Notice, Objective
from lightningtune.errors import ConfigurationError, InvalidConfigError, SearchSpaceError, did_you_mean
from lightningtune.search.parameters import NoDefault, Parameter, describe
from lightningtune.search.spaces import ProbingStudy, SearchSpace
from lightningtune.study.objective import looks_reversed
from lightningtune.training.build import Blueprint

_PROBES = 5


_MAY_CHANGE = (Enum, tuple, list, Mapping, os.PathLike, datetime.date, datetime.time, datetime.timedelta)
"""Types that a file cannot hold, or containers of them."""


def check_space(space: SearchSpace, blueprint: Blueprint) -> None:
    """Parse the configs of a few sampled points and of both ends of each range."""
    check_names(blueprint.schema, blueprint.config)
    points, parameters = list(_probes(space)), space.parameters or ()
    for parameter in parameters:
        for value in parameter.ends:
            placed = dict.fromkeys(parameter.paths, value)
            try:
                _check_point(points[0] | placed, placed, blueprint)
            except InvalidConfigError as error:
                if not any(path.rpartition(".")[2] in str(error) for path in parameter.paths):
                    raise
                raise InvalidConfigError(f"'{parameter.name}'={value!r} does not fit. {error}") from None
    for point in points:
        _check_point(point, point if space.parameters is None else {}, blueprint)
    for parameter in parameters:
        for path in parameter.paths:
            _check_given(path, points[0], blueprint)


def _check_point(point: Mapping[str, Any], placed: Mapping[str, Any], blueprint: Blueprint) -> None:
    """Parse the config of a point, and check that some of its values reach the classes unchanged."""
    merged = blueprint.schema.merge(blueprint.config, point)
    blueprint.check(merged)
    for path, value in placed.items():
        _check_kept(blueprint.schema.locate(merged, path), value, merged, blueprint)


def check_config(given: Any, blueprint: Blueprint) -> None:
    """Check that Python objects in a base config reach the classes unchanged."""
    sections = vars(given) if isinstance(given, argparse.Namespace) else given
    if not isinstance(sections, Mapping):
        return
    names = blueprint.schema.sections
    if not {*sections} & {*names} and len(sections) == 1:  # the config of a whole LightningCLI command
        sections = next(iter(sections.values()))
    for name in names if isinstance(sections, Mapping) else ():
        _check_kept((name,), as_python(sections.get(name)), blueprint.config, blueprint)


def _check_kept(place: Place, given: Any, config: Mapping[str, Any], blueprint: Blueprint) -> None:
    """Check that a class gets a value as given, or converted by its annotation."""
    if is_block(given):
        place, given = (*place, "init_args"), given.get("init_args")
    elif len(place) > 1 or not isinstance(given, Mapping):
        _check_argument(place, given, config, blueprint)
        return
    for name, value in given.items() if isinstance(given, Mapping) else ():
        _check_kept((*place, name), value, config, blueprint)


def _check_argument(place: Place, given: Any, config: Mapping[str, Any], blueprint: Blueprint) -> None:
    found = blueprint.schema.annotation(config, place) if isinstance(given, _MAY_CHANGE) else None
    if found is None:
        return
    got: Any = blueprint.arguments(config, str(place[0]))
    try:
        for key in place[1:]:
            got = got[key]
    except (LookupError, TypeError):  # it goes to **kwargs as it is
        got = get_at(config, place)
    owner, hint = found
    if is_kept(given, got, hint):
        return
    kinds = {os.PathLike: "Path", datetime.date: "str", datetime.time: "str"}  # jsonargparse reads no dates
    kind = next((kind for base, kind in kinds.items() if isinstance(given, base)), type(given).__name__)
    name, written = place[-1], given.value if isinstance(given, Enum) else plain(given)
    annotation = "has no annotation that tells" if hint is Any else f"is annotated {inspect.formatannotation(hint)}"
    is_container = isinstance(given, (list, Mapping))
    remedy = "Annotate what is in it, too" if is_container else f"Annotate it, as '{name}: {kind}'"
    raise InvalidConfigError(
        f"'{'.'.join(map(str, place))}'={briefly(given)} would be {briefly(got)} once it was written to a file: "
        f"'{name}' of {getattr(owner, '__name__', owner)} {annotation}. {remedy}, or write {briefly(written)}."
    )


def _check_given(path: str, point: Mapping[str, Any], blueprint: Blueprint) -> None:
    """Check the base config's own value at a tuned path: the untuned defaults use it."""
    schema, config = blueprint.schema, blueprint.config
    try:
        given = get_at(config, schema.locate(config, path))
    except (LookupError, InvalidConfigError):  # no value there, or only the space creates that place
        return
    if given is None:  # the space fills it
        return
    others = {other: value for other, value in point.items() if not other.startswith(f"{path}.")}
    try:
        blueprint.check(schema.merge(config, {**others, path: given}))
    except InvalidConfigError as error:
        if path.rpartition(".")[2] in str(error):
            raise InvalidConfigError(f"'{path}'={given!r} in the config does not fit. {error}") from None


def notices(objective: Objective, config: Mapping[str, Any]) -> Iterator[Notice]:
    """Yield what is probably a mistake, about the "config" or a "metric"."""
    if not LIMITS & {*config.get("trainer", {})}:
        yield Notice("config", "trainer.max_epochs is not set: Lightning trains each trial for 1000 epochs.")
    reversed_direction = looks_reversed(objective)
    if reversed_direction is not None:
        yield Notice("metric", reversed_direction)


def _probes(space: SearchSpace) -> Iterator[dict[str, Any]]:
    study = ProbingStudy()
    for _ in range(_PROBES):
        try:
            yield space.suggest(study.ask())
        except optuna.TrialPruned:  # the user rejects this point
            continue
        except ConfigurationError:
            raise
        except Exception as error:
            raise SearchSpaceError(f"{space!r} raised {type(error).__name__}: {error}") from error


def baseline_point(space: SearchSpace, blueprint: Blueprint) -> dict[str, Any]:
    """Express the untuned defaults, the base config as it is, as a point of the space: as Optuna stores it."""
    try:
        blueprint.check(blueprint.config)
        return space.defaults(lambda path: blueprint.schema.lookup(blueprint.config, path))
    except NoDefault:
        raise
    except ConfigurationError as error:
        if space.parameters is None:  # a function may suggest names that the config lacks
            raise NoDefault("the search space is a function, and they cannot be told from it") from error
        raise NoDefault(str(error).rstrip(".")) from error
    except Exception as error:  # a user's function may raise anything
        text = f"{type(error).__name__}: {error}".rstrip(": .")
        raise NoDefault(f"the search space raises {text} for them") from error


def plan_baseline(
    given: bool | Mapping[str, Any], space: SearchSpace, blueprint: Blueprint
) -> tuple[Mapping[str, Any] | None, Notice | None]:
    """Return the point that is tried first, as the untuned defaults, and what the user should know of it, if any."""
    if given is False:
        return None, None
    try:
        point = given if isinstance(given, Mapping) else baseline_point(space, blueprint)
    except NoDefault as reason:
        return None, Notice("space", f"The untuned defaults are not tried first: {reason}. See baseline=.")
    beyond = [
        f"{parameter.name}={point[parameter.name]} ({describe(parameter)})"
        for parameter in space.parameters or ()
        if not parameter.choices
        and parameter.name in point
        and not parameter.ends[0] <= point[parameter.name] <= parameter.ends[1]
    ]
    if not beyond:
        return point, None
    detail = "The untuned defaults lie outside the search space, and are tried first all the same"
    return point, Notice("space", f"{detail}: {', '.join(beyond)}. See baseline=.")


def stored_point(space: SearchSpace, given: Mapping[str, Any]) -> dict[str, Any]:
    """Express a point that the user gave, by parameter name, as Optuna stores it.

    A number may lie outside its range, as an untuned default may.
    """
    point: dict[str, Any] = {}

    def answer(parameter: Parameter) -> Any:
        if parameter.name not in given:
            meant = (f"'{name}' is given.{did_you_mean(name, [parameter.name])}" for name in given if name not in point)
            hint = next((text for text in meant if text.endswith("?")), f"It gives: {', '.join(given) or 'nothing'}.")
            raise SearchSpaceError(f"baseline gives no value for '{parameter.name}'. {hint}")
        try:
            point[parameter.name] = parameter.stored_as(given[parameter.name])
        except NoDefault as error:
            raise SearchSpaceError(f"baseline: {error}.") from None
        return parameter.value_of(point[parameter.name])

    try:
        space.collect(optuna.trial.FixedTrial({}), answer, {})
    except SearchSpaceError:
        raise
    except Exception as error:  # a user's function may raise anything
        reason = "it prunes it" if isinstance(error, optuna.TrialPruned) else f"{type(error).__name__}: {error}"
        raise SearchSpaceError(f"baseline={dict(given)!r} is not a point of the search space: {reason}") from error
    unknown = given.keys() - point.keys()
    if unknown:
        raise SearchSpaceError(
            f"baseline names '{min(unknown)}', which the search space does not suggest there. It suggests: "
            f"{', '.join(point)}."
        )
    return point


def check_sampler(sampler: optuna.samplers.BaseSampler | None, space: SearchSpace, directions: Sequence[str]) -> None:
    """Sample a few points with a copy of the sampler: it may lack a package, or not support this space."""
    try:
        probed = copy.deepcopy(sampler)
    except Exception:  # it cannot be copied, so it is not tried
        return
    if probed is None:
        return
    study = optuna.create_study(sampler=probed, directions=[*directions])  # type: ignore[list-item]
    name = type(sampler).__name__

    def objective(trial: optuna.Trial) -> list[float]:
        space.suggest(trial)
        return [float(trial.number)] * len(directions)

    try:
        study.optimize(objective, n_trials=_PROBES)
    except ImportError as error:
        package = f" It needs a package: pip install {error.name}." if error.name else ""
        raise ConfigurationError(f"{name} cannot sample: {error}.{package}") from None
    except ConfigurationError:
        raise
    except Exception as error:
        if space.parameters is not None:  # a function may raise for other reasons
            raise ConfigurationError(f"{name} cannot sample this search space: {error}") from None
