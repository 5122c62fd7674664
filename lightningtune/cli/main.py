"""The command ``lightningtune``: finds the command that is asked for, imports only that, and tells what went wrong."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import select
import sys
import traceback
from collections.abc import Sequence

from lightningtune._version import __version__
from lightningtune.cli.commands import COMMANDS, GROUPS
from lightningtune.cli.output import LINES, show, tell
from lightningtune.cli.parsing import NOT_UNDERSTOOD
from lightningtune.errors import LightningTuneError, did_you_mean
from lightningtune.streams import open_missing_streams

COULD_NOT = 1
"""The exit code of a command that could not do what it was asked to."""
INTERRUPTED = 130
"""The exit code after Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    What goes wrong is one line on stderr; with ``--debug``, which may stand anywhere, there is the traceback too.

    Args:
        arguments: of the command line; this process's when not given.

    Returns:
        The exit code: 0 when it did what it was asked to, 1 when it could not, 2 when it was not understood, 130 when
        it was interrupted by Ctrl-C.
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

            complete()
        code = _dispatch(given)
        sys.stdout.flush()
    except SystemExit as end:
        if isinstance(end.code, str):
            tell(end.code)
            return COULD_NOT
        return end.code or 0
    except KeyboardInterrupt:
        if is_debugged:
            tell(traceback.format_exc().rstrip(), LINES)
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _has_no_reader():
            _forget_output()
            return 0
        if is_debugged:
            tell(traceback.format_exc().rstrip(), LINES)
        else:
            tell(f"lightningtune: {said(error)}")
        return COULD_NOT
    finally:
        log.setLevel(level)
    return code


def overview() -> str:
    """Return what ``lightningtune --help`` prints."""
    lines = [
        "usage: lightningtune COMMAND ...",
        "",
        "Tunes PyTorch Lightning models, and shows what came of it.",
    ]
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


def _dispatch(given: list[str]) -> int:
    if not given or given[0] in {"-h", "--help"}:
        show(overview(), LINES)
        return 0
    name, *rest = given
    if name == "--version":
        show(f"lightningtune {__version__}")
        return 0
    if name not in COMMANDS:
        what = "option" if name.startswith("-") else "command"
        near = did_you_mean(name, ("--help", "--version", "--debug") if what == "option" else COMMANDS)
        tell(f"lightningtune: there is no {what} '{name}'.{near} See 'lightningtune --help'.")
        return NOT_UNDERSTOOD
    code: int = importlib.import_module(COMMANDS[name].module).run(rest)
    return code


def said(error: Exception, help: str = " With --debug there is the traceback.") -> str:
    """Say in one line what went wrong, and what may help.

    Args:
        error: what was raised.
        help: what is said of an error that nobody has foreseen.

    Example:
        >>> said(ValueError("no"))
        'ValueError: no. With --debug there is the traceback.'
    """
    # imported where it is used: --help is not to wait for the study's modules
    from lightningtune.study.outage import is_of_storage

    text = " ".join(str(error).split())
    if isinstance(error, LightningTuneError):
        return text
    if is_of_storage(error):
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        return f"The storage is away: {reason.rstrip('.')}. Try again when it is back."
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"'{error.filename}': {error.strerror}.{help}"
    kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
    return f"{kind}{text.rstrip('.')}.{help}"


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
    """Let what is still to be written go nowhere: whoever reads has had enough, and is not to hear of it at the end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
