"""The commands that hand out a study, or remove it: ``report``, ``export`` and ``rm``."""

from __future__ import annotations

import sys
import webbrowser
from argparse import Namespace
from pathlib import Path

from lightningtune.cli.output import print_json, show, tell
from lightningtune.cli.parsing import CommandParser
from lightningtune.cli.studies import add_json, add_study, open_study
from lightningtune.errors import ConfigurationError
from lightningtune.files import expand_home
from lightningtune.wording import as_argument, command, counted, size

# The study's modules are imported in the functions: --help does not wait for Optuna.


def report_parser() -> CommandParser:
    """Return the parser of ``report``."""
    parser = CommandParser(
        "report",
        _write_report,
        "Writes what a study has found so far as one HTML file, which opens anywhere: the answer, figures, and a table "
        "of all trials. A study that runs writes it itself, now and then and at its end.",
        "example:\n  lightningtune report digits --open\n",
    )
    add_study(parser)
    where = "where to write it (default: report.html in the study's folder)"
    parser.add_argument("--output", metavar="FILE", type=expand_home, help=where)
    parser.add_argument("--open", action="store_true", help="open it in a browser")
    add_json(parser)
    return parser


def _write_report(given: Namespace) -> None:
    found = open_study(given.study, given.storage)
    from lightningtune.report.html.writer import write_report

    target = found.directory.report if given.output is None else given.output.absolute()
    if target.is_dir():
        raise ConfigurationError(f"'{target}' is a folder; name the file, such as '{target / 'report.html'}'.")
    write_report(found.study, found.directory, target)
    if given.json:
        print_json({"study_name": found.study.study_name, "file": target, "bytes": target.stat().st_size})
    else:
        show(str(target))
    if given.open and not webbrowser.open(target.as_uri()):
        raise ConfigurationError(f"No browser was found to open '{target}' with.")


_EXPORT_EPILOG = """\
A .zip holds the study's folder, without weights, and a journal, whatever the
study is stored in. Unpacked into a folder lightningtune_runs, it is opened by
its name. A .csv holds the trials; a .json the definition too, and of each trial
its values and its config.
"""


def export_parser() -> CommandParser:
    """Return the parser of ``export``."""
    description = "Writes a study to one file, to be kept or given to somebody."
    parser = CommandParser("export", _export, description, _EXPORT_EPILOG)
    add_study(parser)
    file = "ends in .zip, .csv or .json (default: STUDY.zip)"
    parser.add_argument("file", metavar="FILE", nargs="?", type=expand_home, help=file)
    parser.add_argument("--weights", action="store_true", help="put the best checkpoint into the .zip too")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    add_json(parser)
    return parser


def _export(given: Namespace) -> None:
    found = open_study(given.study, given.storage)
    from lightningtune.study.directory import check_study_name
    from lightningtune.study.portable import export_study

    name = found.study.study_name
    target = given.file or Path(f"{check_study_name(name)}.zip")
    if target.exists() and not given.force:
        raise ConfigurationError(f"'{target}' is there already. Replace it with --force, or name another.")
    export_study(found, target, given.weights)
    if given.json:
        print_json({"study_name": name, "file": target.absolute(), "bytes": target.stat().st_size})
        return
    show(f"Wrote '{target}', {size(target.stat().st_size)}.")
    if target.suffix == ".zip":
        file = target.absolute() if str(target).startswith("-") else target  # else it would be an option
        unpack = command("python", "-m", "zipfile", "-e", file, "lightningtune_runs")
        show(f"To open it: {unpack}, then {command('lightningtune', 'status', *as_argument(name))}.")


def rm_parser() -> CommandParser:
    """Return the parser of ``rm``."""
    parser = CommandParser(
        "rm",
        _remove,
        "Removes a study: from its storage, and what is its own in its folder. Asks first. A study that is being run "
        "is not removed.",
    )
    add_study(parser)
    parser.add_argument("--weights", action="store_true", help="remove only the checkpoints; the study stays")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def _remove(given: Namespace) -> None:
    found = open_study(given.study, given.storage)
    from lightningtune.study.finding import (
        check_idle,
        check_own,
        find_weights,
        measure_size,
        remove_study,
        remove_weights,
    )
    from lightningtune.study.liveness import find_busy_hosts, find_idle_hosts

    study, directory = found.study, found.directory
    if not find_busy_hosts(study) and (hosts := find_idle_hosts(study)):
        who = f"{hosts[0]} has" if len(hosts) == 1 else f"{len(hosts)} processes have"
        tell(f"{who[:1].upper()}{who[1:]} worked on it: looking for half a minute whether that goes on.")
    check_idle(study)
    check_own(found)
    if given.weights:
        weights = find_weights(directory)
        if not weights:
            show(f"Study '{study.study_name}' has no weights.")
            return
        what = f"{counted(len(weights), 'checkpoint')} of study '{study.study_name}', {size(measure_size(weights))}"
        _ask(f"Remove {what} in {directory.root}?", given.yes)
        remove_weights(found)
        show(f"Removed {what}.")
        return
    trials = counted(len(study.get_trials(deepcopy=False)), "trial")
    where = f", {size(measure_size(directory.belongings()))} in {directory.root}" if directory.root.is_dir() else ""
    what = f"study '{study.study_name}' with {trials}{where}"
    _ask(f"Remove {what}?", given.yes)
    stays = remove_study(found)
    show(f"Removed {what}.")
    if stays:
        show(f"What is not the study's stays in {directory.root}: {', '.join(path.name for path in stays)}.")


def _ask(question: str, is_yes: bool) -> None:
    """Ask, unless it was said that there is no need; raise a `ConfigurationError` if the answer is not yes."""
    if is_yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError("Nothing was removed: nobody is there to be asked. With --yes it is done at once.")
    show(f"{question} [y/N] ", end="")
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise ConfigurationError("Nothing was removed.")
