"""``lightningtune export``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightningtune.cli.output import print_json, show
from lightningtune.cli.parsing import CommandParser
from lightningtune.cli.studies import JSON, add_study, open_study
from lightningtune.errors import ConfigurationError
from lightningtune.files import expand_home

_EPILOG = """\
A .zip holds the study's folder, without weights, and a journal, whatever the
study is stored in. Unpacked into a folder lightningtune_runs, it is opened by
its name. A .csv holds the trials; a .json the definition too, and of each trial
its values and its config.
"""


def parser() -> CommandParser:
    """Return the command's parser."""
    parser = CommandParser("export", "Writes a study to one file, to be kept or given to somebody.", _EPILOG)
    add_study(parser)
    parser.add_argument(
        "file", metavar="FILE", nargs="?", type=expand_home, help="ends in .zip, .csv or .json (default: STUDY.zip)"
    )
    parser.add_argument("--weights", action="store_true", help="put the best checkpoint into the .zip too")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    parser.add_argument("--json", **JSON)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Export a study."""
    given = parser().parse_args(arguments)
    found = open_study(given.study, given.storage)

    from lightningtune.study.directory import check_study_name
    from lightningtune.study.portable import export_study
    from lightningtune.wording import as_argument, command, size

    name = found.study.study_name
    target = given.file or Path(f"{check_study_name(name)}.zip")
    if target.exists() and not given.force:
        raise ConfigurationError(f"'{target}' is there already. Replace it with --force, or name another.")
    export_study(found, target, given.weights)
    if given.json:
        print_json({"study_name": name, "file": target.absolute(), "bytes": target.stat().st_size})
        return 0
    show(f"Wrote '{target}', {size(target.stat().st_size)}.")
    if target.suffix == ".zip":
        file = target.absolute() if str(target).startswith("-") else target  # else it would be an option
        unpack = command("python", "-m", "zipfile", "-e", file, "lightningtune_runs")
        show(f"To open it: {unpack}, then {command('lightningtune', 'status', *as_argument(name))}.")
    return 0
