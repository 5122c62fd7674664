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


_Number = TypeVar("_Number", int, float)


class CommandParser(argparse.ArgumentParser):
    """A parser of one command.

    Args:
        name: the command's.
        description: what it does, in a sentence or two.
        epilog: what stands below the options, such as examples; its lines stay as they are.

    Example:
        >>> parser = CommandParser("pause", "Pauses a study.")
        >>> parser.prog
        'lightningtune pause'
    """

    def __init__(self, name: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=f"lightningtune {name}",
            description=description,
            epilog=epilog,
            formatter_class=_Formatter,
            allow_abbrev=False,
        )

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse the arguments; of an option that is not known, name the nearest."""
        given, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.refuse(unknown[0])
        return given

    def refuse(self, argument: str) -> NoReturn:
        """End the command with an argument that it does not take."""
        what = "option" if argument.startswith("-") else "argument"
        near = self.near(argument.partition("=")[0].lstrip("-")) if what == "option" else ""
        self.error(f"there is no such {what} here: '{argument}'.{near}")

    def near(self, name: str) -> str:
        """Say which option is meant by one that is not known; the name has no dashes before it."""
        options = [text[2:] for action in self._actions for text in action.option_strings if text.startswith("--")]
        return did_you_mean(name, options).replace(" '", " '--")

    def error(self, message: str) -> NoReturn:
        """End the command with what was not understood."""
        end = "" if message.endswith((".", "?")) else "."
        tell(f"{self.prog}: {message}{end} See '{self.prog} --help'.")
        raise SystemExit(NOT_UNDERSTOOD)


def positive(kind: Callable[[str], _Number]) -> Callable[[str], _Number]:
    """Return what reads a number above 0.

    Args:
        kind: ``int`` or ``float``.

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
    """Read an integer.

    Example:
        >>> integer("3")
        3
    """
    try:
        return int(text)
    except ValueError:
        several = f". Several are written with spaces: {text.replace(',', ' ')}" if "," in text else ""
        raise argparse.ArgumentTypeError(f"must be an integer, but got '{text}'{several}") from None


def jobs(text: str) -> int:
    """Read how many trials run at a time.

    Example:
        >>> jobs("2"), jobs("-1")
        (2, -1)
    """
    return -1 if text.strip() == "-1" else positive(int)(text)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help in columns, at most 80 wide; an epilog's lines stay as they are, a description is filled."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=min(shutil.get_terminal_size().columns, 80))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return super()._fill_text(text, width, indent)
        return argparse.HelpFormatter._fill_text(self, text, width, indent)
