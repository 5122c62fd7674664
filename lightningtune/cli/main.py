"""The command ``lightningtune``: finds the command that is asked for, imports only that, and tells what went wrong."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import select
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightningtune._version import __version__
from lightningtune.cli.output import LINES, show, tell
from lightningtune.cli.parsing import NOT_UNDERSTOOD, CommandParser
from lightningtune.errors import LightningTuneError, did_you_mean
from lightningtune.streams import open_missing_streams

COULD_NOT = 1
"""The exit code of a command that could not do what it was asked to."""
INTERRUPTED = 130
"""The exit code after Ctrl-C."""


@dataclass(frozen=True)
class Command:
    """A command: its name, the module with its ``NAME_parser()``, and its line in ``--help``, at most 66 characters."""

    name: str
    module: str
    help: str

    def parser(self) -> CommandParser:
        """Import the module, and make the command's parser."""
        module = importlib.import_module(f"lightningtune.cli.{self.module}")
        parser: CommandParser = getattr(module, f"{self.name}_parser")()
        return parser


GROUPS: Mapping[str, tuple[Command, ...]] = {
    "Running a study": (
        Command("init", "init", "write a commented study file for your own model"),
        Command("check", "check", "find in seconds the problems of a study"),
        Command("tune", "running", "run a study, or go on with it"),
        Command("pause", "running", "save the running trials, and stop"),
        Command("resume", "running", "go on with a study"),
        Command("worker", "running", "work on a study from one more process or machine"),
    ),
    "Looking at studies": (
        Command("list", "looking", "the studies that are here"),
        Command("status", "looking", "trials, what runs now, the best so far, the time left"),
        Command("best", "looking", "the best trial, and its config, which runs as it is"),
        Command("trials", "looking", "the trials: filtered, sorted, as a table, CSV or JSON"),
        Command("compare", "looking", "two studies or more, side by side"),
        Command("report", "keeping", "what was found, as one HTML page"),
        Command("dashboard", "looking", "open a study in optuna-dashboard"),
        Command("replay", "retraining", "train a trial again, and compare"),
        Command("refit", "retraining", "train the best trial again, with other seeds or for longer"),
    ),
    "Keeping house": (
        Command("export", "keeping", "a study as one file"),
        Command("rm", "keeping", "remove a study, or only its weights"),
        Command("completion", "completion", "let your shell complete commands and studies"),
    ),
}
"""The commands, as ``--help`` groups them. After a change ``python tests/cli/test_help.py`` keeps what it prints."""

COMMANDS: Mapping[str, Command] = {command.name: command for group in GROUPS.values() for command in group}


def main(arguments: Sequence[str] | None = None, commands: Mapping[str, Command] = COMMANDS) -> int:
    """Run the command, and return its exit code.

    What goes wrong is one line on stderr; with ``--debug``, which may stand anywhere, there is the traceback too.
    """
    open_missing_streams()
    given = [*(sys.argv[1:] if arguments is None else arguments)]
    own = given[: given.index("--")] if "--" in given else given
    is_debugged = "--debug" in own
    if is_debugged:
        given.remove("--debug")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # a stream that somebody has put in its place
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    log = logging.getLogger("lightningtune.study.storage")  # which a command that looks at a study turns down
    level = log.level
    try:
        if "_ARGCOMPLETE" in os.environ:  # a shell asks what may stand where the cursor is
            from lightningtune.cli.completion import complete

            complete({name: command.parser for name, command in commands.items()})
        code = _dispatch(given, commands)
        sys.stdout.flush()
    except SystemExit as end:
        if isinstance(end.code, str):
            tell(end.code)
            return COULD_NOT
        return end.code or 0
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and _has_no_reader():
            _forget_output()
            return 0
        if is_debugged:
            tell(traceback.format_exc().rstrip(), LINES)
        elif isinstance(error, Exception):
            tell(f"lightningtune: {describe_error(error, ' With --debug there is the traceback.')}")
        return COULD_NOT if isinstance(error, Exception) else INTERRUPTED
    finally:
        log.setLevel(level)
    return code


def overview() -> str:
    """Return what ``lightningtune --help`` prints."""
    lines = ["usage: lightningtune COMMAND ...", "", "Tunes PyTorch Lightning models, and shows what came of it."]
    for title, commands in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {command.name:<12}{command.help}" for command in commands)]
    lines += [
        "",
        "Options:",
        "  --help      this; after a command, what that takes",
        "  --version   the version",
        "  --debug     anywhere: show the traceback of what went wrong",
    ]
    return "\n".join(lines)


def _dispatch(given: list[str], commands: Mapping[str, Command]) -> int:
    if not given or given[0] in {"-h", "--help"}:
        show(overview(), LINES)
        return 0
    name, *rest = given
    if name == "--version":
        show(f"lightningtune {__version__}")
        return 0
    if name not in commands:
        what = "option" if name.startswith("-") else "command"
        near = did_you_mean(name, ("--help", "--version", "--debug") if what == "option" else commands)
        tell(f"lightningtune: unknown {what} '{name}'.{near} See 'lightningtune --help'.")
        return NOT_UNDERSTOOD
    return commands[name].parser().run(rest)


def describe_error(error: Exception, advice: str = "") -> str:
    """Say in one line what went wrong; with advice, if the error is none that we raise ourselves.

    Example:
        >>> describe_error(ValueError("no"), " With --debug there is the traceback.")
        'ValueError: no. With --debug there is the traceback.'
    """
    # deferred import: keeps --help fast
    from lightningtune.study.outage import is_of_storage

    text = " ".join(str(error).split())
    if isinstance(error, LightningTuneError):
        return text
    if is_of_storage(error):
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        return f"The storage is away: {reason.rstrip('.')}. Try again when it is back."
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"'{error.filename}': {error.strerror}.{advice}"
    kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
    return f"{kind}{text.rstrip('.')}.{advice}"


def _has_no_reader() -> bool:
    """Whether the pipe is broken into which this process prints; a storage's connection can break too."""
    try:
        sys.stdout.flush()
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(sys.stdout.fileno(), select.POLLOUT)
            return any(event & select.POLLERR for _, event in poll.poll(0))
    except BrokenPipeError:
        return True
    except (OSError, ValueError):  # it is closed, or no file
        pass
    return False


def _forget_output() -> None:
    """Let what is still to be written go nowhere: Python would print an error about it at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
