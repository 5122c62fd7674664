"""What the commands that take a study have in common: the arguments, and opening it."""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lightningtune.cli.suggesting import studies_here, suggest
from lightningtune.errors import ConfigurationError

if TYPE_CHECKING:
    from lightningtune.study.finding import FoundStudy

PATIENCE = 3.0
"""Seconds for which a storage that is away is waited for: somebody sits in front of it."""


STORAGE = "LIGHTNINGTUNE_STORAGE"
"""The environment variable for ``--storage``: a URL there is in no shell history and no list of processes."""
STUDY = "the study's folder, or its name in lightningtune_runs"
"""What the argument ``STUDY`` is."""
JSON: Mapping[str, Any] = {"action": "store_true", "help": "print JSON, for programs"}
"""What the option ``--json`` is."""
NO_CHECK: Mapping[str, Any] = {"action": "store_true", "help": "begin without the check that comes before"}
"""What the option ``--no-check`` is."""


def add_study(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a study."""
    suggest(parser.add_argument("study", metavar="STUDY", help=STUDY), studies_here)
    add_storage(parser)


def add_storage(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where a study is stored."""
    parser.add_argument(
        "--storage",
        metavar="URL",
        default=given_storage(),
        help=f"where it is stored, unless that is the journal in its folder (default: ${STORAGE})",
    )


def given_storage() -> str | None:
    """Return the storage that the environment names, or None."""
    return os.environ.get(STORAGE) or None


def open_study(study: str, storage: str | None, is_to_run: bool = False) -> FoundStudy:
    """Open the study that a command is about.

    Args:
        study: its folder, or its name.
        storage: where it is stored; the journal in its folder when not given.
        is_to_run: whether the command runs it, and is to tell meanwhile when the storage is away.

    Raises:
        ConfigurationError: when there is none.
    """
    with _no_collections():
        # imported where it is used: --help is not to wait for Optuna
        from lightningtune.study import storage as storages
        from lightningtune.study.finding import find_study
        from lightningtune.study.opening import quiet_optuna

        if not is_to_run:
            storages.log.setLevel(logging.ERROR)  # that the storage is away is the command's own last word
        with quiet_optuna():
            try:
                return find_study(study, storage, storages.OUTAGE_SECONDS if is_to_run else PATIENCE)
            except ConfigurationError as error:
                if storage is None or storage != given_storage():
                    raise
                raise ConfigurationError(f"{error} The storage is that of {STORAGE}.") from None


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Collect no garbage while modules and trials are read, which make little of it: a seventh of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
