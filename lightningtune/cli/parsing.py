"""The parser of a command: what is wrong in one line on stderr, with what is nearest to it."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from lightningtune.cli.output import tell
from lightningtune.errors import did_you_mean

NOT_UNDERSTOOD = 2
"""The exit code of a command line that is not understood."""


class CommandParser(argparse.ArgumentParser):
    """One command: its arguments, and the function that it runs, which returns the exit code or None for 0."""

    def __init__(
        self, name: str, command: Callable[[Any], int | None], description: str, epilog: str | None = None
    ) -> None:
        super().__init__(
            prog=f"lightningtune {name}",
            description=description,
            epilog=epilog,
            formatter_class=_Formatter,
            allow_abbrev=False,
        )
        self._command = command

    def run(self, arguments: Sequence[str]) -> int:
        """Parse the arguments, and do what the command does; return the exit code."""
        return self._command(self.parse_args(arguments)) or 0

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse the arguments; of an option that is not known, name the nearest."""
        given, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.refuse(unknown[0])
        return given

    def refuse(self, argument: str) -> NoReturn:
        """End the command with an argument that it does not take."""
        if argument.startswith("-"):
            self.error(f"unknown option '{argument}'.{self.hint(argument.partition('=')[0].lstrip('-'))}")
        self.error(f"unknown argument '{argument}'.")

    def hint(self, name: str) -> str:
        """Return what may be meant by an option that is not known: one that is near, or an argument without a name."""
        options = [text[2:] for action in self._actions for text in action.option_strings if text.startswith("--")]
        near = did_you_mean(name.replace("-", "_"), options).replace(" '", " '--")
        positional = " and ".join(str(action.metavar) for action in self._actions if not action.option_strings)
        return near or (f" {positional} are given without an option." if " " in positional else "")

    def error(self, message: str) -> NoReturn:
        """End the command with what was not understood."""
        end = "" if message.endswith((".", "?")) else "."
        tell(f"{self.prog}: {message}{end} See '{self.prog} --help'.")
        raise SystemExit(NOT_UNDERSTOOD)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help in columns, at most 80 wide; an epilog's lines stay as they are, a description is filled."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=min(shutil.get_terminal_size().columns, 80))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return super()._fill_text(text, width, indent)
        return argparse.HelpFormatter._fill_text(self, text, width, indent)


_Number = TypeVar("_Number", int, float)


def positive(kind: Callable[[str], _Number]) -> Callable[[str], _Number]:
    """Return what reads a number above 0 of a kind, ``int`` or ``float``.

    Example:
        >>> positive(int)("3")
        3
    """

    def read(text: str) -> _Number:
        try:
            value = kind(text)
        except ValueError:
            value = kind("0")
        if not 0 < value < float("inf"):
            what = "an integer" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"must be {what} above 0, but got '{text}'")
        return value

    return read


def integer(text: str) -> int:
    """Read an integer."""
    try:
        return int(text)
    except ValueError:
        several = f". Several are written with spaces: {text.replace(',', ' ')}" if "," in text else ""
        raise argparse.ArgumentTypeError(f"must be an integer, but got '{text}'{several}") from None


def jobs(text: str) -> int:
    """Read how many trials run at a time: above 0, or -1 for all that fit."""
    return -1 if text.strip() == "-1" else positive(int)(text)


def boolean(text: str) -> bool:
    """Read ``true`` or ``false``."""
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, but got '{text}'")
    return text == "true"
