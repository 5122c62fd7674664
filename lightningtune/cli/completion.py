"""``lightningtune completion``, and what a shell is told when somebody presses Tab."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import os
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

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


def completion_parser() -> CommandParser:
    """Return the parser of ``completion``."""
    parser = CommandParser(
        "completion",
        _print_code,
        "Prints what makes a shell complete commands, options, study files and the names of studies.",
        _EPILOG,
    )
    parser.add_argument("shell", choices=("bash", "zsh"), help="your shell")
    return parser


def _print_code(given: Namespace) -> None:
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError:
        raise ConfigurationError("Completion needs a package: pip install argcomplete") from None
    print(shellcode(["lightningtune"], shell=given.shell))


def complete(commands: Mapping[str, Callable[[], argparse.ArgumentParser]]) -> None:
    """Tell the shell that asks what may stand where the cursor is, and end the process.

    Only the parser of the command that is there already is made, which imports its module.
    """
    # only a shell asks, and it was argcomplete that told it how to
    from argcomplete import autocomplete
    from argcomplete.lexers import split_line

    *_, words, _ = split_line(os.environ["COMP_LINE"], int(os.environ["COMP_POINT"]))
    make_parser = commands.get(words[1]) if len(words) > 1 else None
    if make_parser is None:
        asked = argparse.ArgumentParser()
        asked.add_argument("--version", action="store_true")
        asked.add_argument("--debug", action="store_true")
        asked.add_argument("command", choices=[*commands])
    else:
        asked = make_parser()
        os.environ[ASKED] = "2"
    autocomplete(asked, always_complete_options=False)


def suggest(action: argparse.Action, values: Callable[..., Iterable[str]]) -> None:
    """Have a shell complete an argument: `values` is called with ``prefix`` and other keywords of argcomplete's.

    Example:
        >>> suggest(argparse.ArgumentParser().add_argument("--verbose"), one_of("true", "false"))
    """
    action.completer = values  # type: ignore[attr-defined]  # this is where argcomplete looks


def one_of(*values: str) -> Callable[..., Iterable[str]]:
    """Return what suggests some values."""
    return lambda **_: values


def list_studies(**_: Any) -> list[str]:
    """Return the names of the studies that lie where studies do."""
    return [folder.name for folder in sorted(Path("lightningtune_runs").glob("*")) if folder.is_dir()]


def list_of_optuna(kind: str) -> Callable[..., Iterable[str]]:
    """Return what suggests Optuna's samplers or pruners, by "sampler" or "pruner", without importing Optuna.

    Example:
        >>> "TPESampler" in list_of_optuna("sampler")()
        True
    """

    def names(**_: Any) -> list[str]:
        found = importlib.util.find_spec("optuna")
        if found is None or found.origin is None:
            return []
        text = Path(found.origin).with_name(f"{kind}s").joinpath("__init__.py").read_text(encoding="utf-8")
        every = {node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)}
        named = [str(name) for name in every if str(name).endswith(kind.title())]
        return sorted(name for name in named if not name.startswith("Base"))

    return names


def list_study_files(prefix: str, **_: Any) -> list[str]:
    """Return the YAML and JSON files, and the folders, that begin as what was typed does."""
    from argcomplete.completers import FilesCompleter  # only a shell asks, which argcomplete has told how to

    return list(FilesCompleter(("yaml", "yml", "json"))(prefix))
