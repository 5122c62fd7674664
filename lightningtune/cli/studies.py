"""What the commands that take a study have in common: the arguments, and opening it."""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lightningtune.cli.completion import list_studies, one_of, suggest
from lightningtune.cli.parsing import boolean
from lightningtune.errors import ConfigurationError

if TYPE_CHECKING:
    from lightningtune.study.finding import FoundStudy

STORAGE_SECONDS = 3.0
"""How long a storage that is away is waited for: somebody sits in front of it."""
STORAGE = "LIGHTNINGTUNE_STORAGE"
"""The environment variable for ``--storage``: a URL there is in no shell history and no list of processes."""


def add_study(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a study."""
    what = "the study's folder, or its name in lightningtune_runs"
    suggest(parser.add_argument("study", metavar="STUDY", help=what), list_studies)
    add_storage(parser)


def add_storage(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where a study is stored."""
    what = f"where it is stored, unless that is the journal in its folder (default: ${STORAGE})"
    parser.add_argument("--storage", metavar="URL", default=get_default_storage(), help=what)


def add_json(parser: argparse._ActionsContainer) -> None:
    """Add the option that asks for JSON; `print_json` prints it."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def add_check(parser: argparse.ArgumentParser) -> None:
    """Add the option that leaves out the check before a study."""
    what = "check the study before it runs (default: true)"
    option = parser.add_argument("--check", metavar="BOOL", type=boolean, default=True, help=what)
    suggest(option, one_of("true", "false"))


def get_default_storage() -> str | None:
    """Return the storage that the environment names, or None."""
    return os.environ.get(STORAGE) or None


def open_study(study: str, storage: str | None, wait: float | None = STORAGE_SECONDS) -> FoundStudy:
    """Open the study that a command is about.

    Args:
        study: its folder, or its name.
        storage: where it is stored; the journal in its folder when not given.
        wait: seconds for which a storage that is away is waited for; None for as long as a study that runs does,
            which also tells when it is away.

    Raises:
        ConfigurationError: when there is none.
    """
    with _no_collections():
        # deferred imports: keep --help fast
        from lightningtune.study import storage as storages
        from lightningtune.study.finding import find_study
        from lightningtune.study.opening import quiet_optuna

        if wait is not None:
            storages.log.setLevel(logging.ERROR)  # that the storage is away is the command's own last word
        with quiet_optuna():
            try:
                return find_study(study, storage, storages.OUTAGE_SECONDS if wait is None else wait)
            except ConfigurationError as error:
                if storage is None or storage != get_default_storage():
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
