"""``lightningtune completion``, and what a shell is told when somebody presses Tab."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Sequence

from lightningtune.cli.commands import COMMANDS
from lightningtune.cli.parsing import CommandParser
from lightningtune.errors import ConfigurationError

ASKED = "_ARGCOMPLETE"
"""The variable that a shell sets when it asks; its number is of the word at which the arguments begin."""
_EPILOG = """\
bash, a line in ~/.bashrc:
  eval "$(lightningtune completion bash)"

zsh, two lines in ~/.zshrc:
  autoload -U compinit && compinit
  eval "$(lightningtune completion zsh)"
"""


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = CommandParser(
        "completion",
        "Prints what makes a shell complete commands, options, study files and the names of studies.",
        _EPILOG,
    )
    parser.add_argument("shell", choices=("bash", "zsh"), help="your shell")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Print the code for a shell."""
    given = parser().parse_args(arguments)
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError:
        raise ConfigurationError("Completion needs a package: pip install argcomplete") from None
    print(shellcode(["lightningtune"], shell=given.shell))
    return 0


def complete() -> None:
    """Tell the shell that asks what may stand where the cursor is, and end the process.

    Of a command that is there already, only its own module is imported.
    """
    # only a shell asks, and it was argcomplete that told it how to
    from argcomplete import autocomplete
    from argcomplete.lexers import split_line

    *_, words, _ = split_line(os.environ["COMP_LINE"], int(os.environ["COMP_POINT"]))
    command = COMMANDS.get(words[1]) if len(words) > 1 else None
    if command is None:
        asked = argparse.ArgumentParser()
        asked.add_argument("--version", action="store_true")
        asked.add_argument("--debug", action="store_true")
        asked.add_argument("command", choices=[*COMMANDS])
    else:
        asked = importlib.import_module(command.module).parser()
        os.environ[ASKED] = "2"
    autocomplete(asked, always_complete_options=False)
