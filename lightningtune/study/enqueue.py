"""A study in whose queue any value of a config may stand."""

from __future__ import annotations

from typing import Any

import optuna

from lightningtune.errors import SearchSpaceError
from lightningtune.values import plain


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
