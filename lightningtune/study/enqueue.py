"""A study in whose queue any value of a config may stand, and what of a queued point the search space takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna

from lightningtune.config.values import plain
from lightningtune.errors import SearchSpaceError, did_you_mean
from lightningtune.search.parameters import Parameter, describe, queued_values
from lightningtune.study.reporter import BASELINE
from lightningtune.study.succession import CONTINUES


class EnqueuingStudy(optuna.Study):
    """A study whose ``enqueue_trial`` takes choices as the search space has them: lists, members of an Enum, paths.

    Optuna's own takes what JSON holds. A trial finds its choice when it suggests the parameter.
    """

    def enqueue_trial(
        self, params: dict[str, Any], user_attrs: dict[str, Any] | None = None, skip_if_exists: bool = False
    ) -> None:
        """Queue a trial with these parameters, as ``optuna.Study.enqueue_trial`` does.

        Raises:
            SearchSpaceError: naming a value that no config can hold.
        """
        try:
            params = {name: plain(value, str(name)) for name, value in params.items()}
        except TypeError as error:
            raise SearchSpaceError(f"enqueue_trial: {error}.") from error
        super().enqueue_trial(params, user_attrs, skip_if_exists)


def check_queued(trial: optuna.Trial, is_fixed_space: bool, tell: Callable[[str], None]) -> None:
    """Compare a point that was queued with what the search space has suggested.

    Optuna ignores a name that is never suggested, and samples the parameter that was meant.

    Args:
        trial: after the space has suggested all parameters.
        is_fixed_space: whether the space suggests the same names in every trial.
        tell: is told of what is ignored, and, unless the trial is of our own making, of what lies outside its range.

    Raises:
        SearchSpaceError: naming what is queued and is no parameter of such a space.
    """
    suggested = trial.distributions
    is_users = not {BASELINE, CONTINUES} & {*trial.user_attrs}
    for name, value in queued_values(trial).items():
        if name in suggested:
            if is_users and not _is_within(trial.params[name], suggested[name]):
                described = describe(Parameter(name, suggested[name], (name,)))
                tell(f"Trial {trial.number}: {name}={value} was queued, and is tried outside its range ({described}).")
        elif is_fixed_space:
            raise SearchSpaceError(
                f"enqueue_trial: '{name}' is no parameter of the search space.{did_you_mean(name, suggested)} "
                f"It has: {', '.join(suggested)}."
            )
        else:
            tell(f"Trial {trial.number}: '{name}' was queued, and is ignored: the space does not suggest it here.")


def _is_within(value: Any, distribution: Any) -> bool:
    return bool(getattr(distribution, "low", value) <= value <= getattr(distribution, "high", value))
