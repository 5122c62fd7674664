"""``lightningtune worker``."""

from __future__ import annotations

from collections.abc import Sequence

from lightningtune.cli.parsing import CommandParser, jobs
from lightningtune.cli.resume import go_on
from lightningtune.cli.studies import NO_CHECK, add_study

_EPILOG = """\
The study's definition lies in the storage. Its modules, scripts and data are to
be where they were when it was begun, or in the working directory.

example, on each further machine:
  lightningtune worker digits --storage postgresql://host/studies
"""


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = CommandParser(
        "worker",
        "Works on a study beside the hosts that do so already: one process more, on this machine or on another that "
        "reaches the study's storage. It ends when the study has its trials.",
        _EPILOG,
    )
    add_study(parser)
    parser.add_argument("--n_jobs", metavar="N", type=jobs, help="trials at a time, here; -1 for all that fit")
    parser.add_argument("--no-check", **NO_CHECK)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Work on a study."""
    given = parser().parse_args(arguments)
    return go_on(given.study, given.storage, {"n_jobs": given.n_jobs}, is_checked=not given.no_check)
