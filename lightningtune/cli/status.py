"""``lightningtune status``."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lightningtune.cli.output import LINES, print_json, show, width
from lightningtune.cli.parsing import CommandParser, positive
from lightningtune.cli.studies import JSON, add_study, open_study
from lightningtune.wording import printable

if TYPE_CHECKING:
    from lightningtune.study.progress import StudyProgress

# what a terminal understands: another screen without a cursor, and back; home; the rest of the line; all that is below
_OTHER_SCREEN, _OWN_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = CommandParser(
        "status",
        "Shows how far a study is: its counts, the best trial so far, the rate and the time left, what runs now, "
        "and the trials that ended last.",
    )
    add_study(parser)
    parser.add_argument("--watch", action="store_true", help="show it again and again, until it is done")
    parser.add_argument(
        "--every", metavar="SECONDS", type=positive(float), default=2.0, help="with --watch, how often (default: 2)"
    )
    parser.add_argument(
        "--latest", metavar="N", type=positive(int), default=10, help="how many ended trials are shown (default: 10)"
    )
    parser.add_argument("--json", **JSON)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Show how far a study is, once or until Ctrl-C."""
    command = parser()
    given = command.parse_args(arguments)
    if given.watch and given.json:
        command.error("--watch is for a terminal, and --json for a program: choose one")
    found = open_study(given.study, given.storage)

    from lightningtune.report.terminal import draw_status
    from lightningtune.study.progress import progress_of

    def look() -> StudyProgress:
        return progress_of(found.study, found.directory)

    if given.json:
        print_json({"directory": found.directory.root, "storage": found.storage, **look().as_dict()})
    elif given.watch:
        watch(look, lambda progress, size: draw_status(progress, size, given.latest), given.every)
    else:
        show(draw_status(look(), width(), given.latest), LINES)
    return 0


def watch(look: Callable[[], StudyProgress], draw: Callable[[StudyProgress, int | None], str], every: float) -> None:
    """Draw a study again and again, until it has all its trials or somebody presses Ctrl-C; the last picture stays.

    Args:
        look: looks at the study.
        draw: draws it, so many characters wide.
        every: seconds between two pictures.
    """
    is_terminal = sys.stdout.isatty()
    text = ""
    if is_terminal:
        _write(_OTHER_SCREEN)
    try:
        while True:
            progress = look()
            text = printable(draw(progress, width()), LINES)
            if is_terminal:
                lines = text.splitlines()[: shutil.get_terminal_size().lines - 1]
                # each line takes the place of the one before, so that nothing flickers
                _write(_HOME + "".join(f"{line}{_CLEAR_LINE}\n" for line in lines) + _CLEAR_BELOW)
            else:
                _write(f"{text}\n\n")
            if progress.is_over:
                return
            time.sleep(every)
    except KeyboardInterrupt:
        return
    finally:
        if is_terminal:
            _write(f"{_OWN_SCREEN}{text}\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
