"""The table of commands: each is a module of this folder, and has its line in ``lightningtune --help``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One command.

    Its module has ``run(arguments) -> int``, which returns the exit code, and ``parser()``, which builds its parser.

    Attributes:
        name: the command's, and its module's in `lightningtune.cli`.
        help: what it does, in one line of at most 66 characters.
    """

    name: str
    help: str

    @property
    def module(self) -> str:
        """The module that is imported when the command is used."""
        return f"lightningtune.cli.{self.name}"


GROUPS: Mapping[str, tuple[Command, ...]] = {
    "Running a study": (
        Command("init", "write a commented study file for your own model"),
        Command("check", "find in seconds the problems of a study"),
        Command("tune", "run a study, or go on with it"),
        Command("pause", "save the running trials, and stop"),
        Command("resume", "go on with a study"),
        Command("worker", "work on a study from one more process or machine"),
    ),
    "Looking at studies": (
        Command("list", "the studies that are here"),
        Command("status", "trials, what runs now, the best so far, the time left"),
        Command("best", "the best trial, and its config, which runs as it is"),
        Command("trials", "the trials: filtered, sorted, as a table, CSV or JSON"),
        Command("compare", "two studies or more, side by side"),
        Command("report", "what was found, as one HTML page"),
        Command("dashboard", "open a study in optuna-dashboard"),
        Command("replay", "train a trial again, and compare"),
        Command("refit", "train the best trial again, with other seeds or for longer"),
    ),
    "Keeping house": (
        Command("export", "a study as one file"),
        Command("rm", "remove a study, or only its weights"),
        Command("completion", "let your shell complete commands and studies"),
    ),
}
"""The commands, as ``--help`` groups them. After a change ``python tests/cli/test_help.py`` keeps what it prints."""

COMMANDS: Mapping[str, Command] = {command.name: command for group in GROUPS.values() for command in group}
"""The commands by name."""
