"""The commands that read studies: ``list``, ``status``, ``best``, ``trials``, ``compare`` and ``dashboard``."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lightningtune.cli.completion import list_studies, suggest
from lightningtune.cli.output import LINES, print_json, show, width
from lightningtune.cli.parsing import CommandParser, integer, positive
from lightningtune.cli.studies import STORAGE_SECONDS, add_json, add_storage, add_study, open_study
from lightningtune.errors import ConfigurationError, LightningTuneError
from lightningtune.files import expand_home
from lightningtune.wording import printable

if TYPE_CHECKING:
    from lightningtune.study.finding import FoundStudy
    from lightningtune.study.progress import StudyProgress
    from lightningtune.study.results import StudyResults

# The study's modules are imported in the functions: --help does not wait for Optuna.


def list_parser() -> CommandParser:
    """Return the parser of ``list``."""
    description = (
        "Lists the studies that have a journal in a folder, or those of a storage, with the best value of each."
    )
    parser = CommandParser("list", _list, description)
    parser.add_argument("folder", metavar="FOLDER", nargs="?", help="where they lie (default: lightningtune_runs)")
    add_storage(parser)
    add_json(parser)
    return parser


def _list(given: Namespace) -> None:
    if given.folder is None and given.storage is not None:
        from lightningtune.study.finding import list_study_names

        names, where = list_study_names(given.storage, STORAGE_SECONDS), "the storage"
    else:
        folder = expand_home(given.folder or "lightningtune_runs")
        if not folder.is_dir():
            raise ConfigurationError(f"There is no folder '{folder}' here. Name the one in which the studies lie.")
        names, where = [str(journal.parent) for journal in sorted(folder.glob("*/journal.log"))], f"'{folder}'"
        given.storage = None
    rows = [_look_at(name, given.storage) for name in names]
    if given.json:
        print_json(
            [
                {"directory": root, **({"error": found} if isinstance(found, str) else found.as_dict())}
                for root, found in rows
            ]
        )
    elif not rows:
        show(f"There are no studies in {where}.")
    else:
        from lightningtune.report.terminal import draw_studies

        readable = [found for _, found in rows if not isinstance(found, str)]
        unreadable = {root.name: found for root, found in rows if isinstance(found, str)}
        show(draw_studies(readable, unreadable, width()), LINES)


def _look_at(study: str, storage: str | None) -> tuple[Path, StudyProgress | str]:
    """Return a study's folder, and how far it is or why it cannot be read."""
    from lightningtune.study.progress import progress_of

    try:
        found = open_study(study, storage)
        return found.directory.root, progress_of(found.study, found.directory)
    except Exception as error:  # whatever a spoilt file raises, the other studies are listed
        is_ours = isinstance(error, (LightningTuneError, OSError))
        text = " ".join((str(error) if is_ours else f"{type(error).__name__}: {error}").split())
        return Path(study).absolute(), text


def status_parser() -> CommandParser:
    """Return the parser of ``status``."""
    parser = CommandParser(
        "status",
        _show_status,
        "Shows how far a study is: its counts, the best trial so far, the rate and the time left, what runs now, "
        "and the trials that ended last.",
    )
    add_study(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--watch", action="store_true", help="show it again and again, until it is done")
    parser.add_argument(
        "--every", metavar="SECONDS", type=positive(float), default=2.0, help="with --watch, how often (default: 2)"
    )
    parser.add_argument(
        "--latest", metavar="N", type=positive(int), default=10, help="how many ended trials are shown (default: 10)"
    )
    add_json(form)
    return parser


def _show_status(given: Namespace) -> None:
    found = open_study(given.study, given.storage)
    from lightningtune.report.terminal import draw_status
    from lightningtune.study.progress import progress_of

    def look() -> StudyProgress:
        return progress_of(found.study, found.directory)

    if given.json:
        print_json({"directory": found.directory.root, "storage": found.storage, **look().as_dict()})
    elif given.watch:
        _watch(look, lambda progress, size: draw_status(progress, size, given.latest), given.every)
    else:
        show(draw_status(look(), width(), given.latest), LINES)


# What a terminal understands: another screen without a cursor, and back; home; the rest of the line; all that is below.
_OTHER_SCREEN, _OWN_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def _watch(look: Callable[[], StudyProgress], draw: Callable[[StudyProgress, int | None], str], every: float) -> None:
    """Draw a study until it has all its trials or somebody presses Ctrl-C; the last picture stays."""
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


def best_parser() -> CommandParser:
    """Return the parser of ``best``."""
    parser = CommandParser(
        "best",
        _show_best,
        "Shows the best trial: its score, what that is better than the untuned defaults by, and its config.",
        "example:\n  lightningtune best digits --config_only > best.yaml\n",
    )
    add_study(parser)
    parser.add_argument("--number", metavar="N", type=integer, help="another trial, which is complete")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--config_only", action="store_true", help="print the config alone: YAML that runs as it is")
    add_json(form)
    return parser


def _show_best(given: Namespace) -> None:
    found = open_study(given.study, given.storage)
    from lightningtune.report.terminal import draw_best
    from lightningtune.study.reporter import read_config_sum

    directory, results = found.directory, _read_results(found)
    number = results.choose(given.number)
    file = directory.config(number)
    config = None
    if given.config_only or file.is_file():
        config = directory.read_config(number, read_config_sum(found.study, number))
    if given.config_only:
        sys.stdout.write(file.read_text(encoding="utf-8"))
    elif given.json:
        trial = results.trials[number]
        print_json(
            {
                "study_name": results.study_name,
                "number": number,
                "values": dict(zip(results.metrics, trial.values or (), strict=True)),
                "params": trial.params,
                "baseline": None if results.baseline is None else results.baseline.values,
                "improvement": results.improvement if number in results.best_numbers else None,
                "refits": [refit for refit in results.refits if refit.number == number],
                "checkpoint": trial.checkpoint,
                "config_file": None if config is None else file,
                "config": config,
            }
        )
    else:
        show(draw_best(results, number, directory, config), LINES)


def _read_results(found: FoundStudy) -> StudyResults:
    from lightningtune.study.progress import metric_names
    from lightningtune.study.results import collect_results

    metrics = metric_names(found.study, found.directory.read_definition())
    return collect_results(found.study, metrics, found.directory)


_STATES = ("complete", "pruned", "fail", "interrupted", "running", "waiting")
_TRIALS_EXAMPLES = """\
examples:
  lightningtune trials digits --sort val_acc --descending --limit 5
  lightningtune trials digits --where 'val_acc>0.9' --where optimizer=sgd
  lightningtune trials digits --state fail --csv > failed.csv
"""


def trials_parser() -> CommandParser:
    """Return the parser of ``trials``."""
    description = "Lists the trials of a study, all of them or those that are asked for."
    parser = CommandParser("trials", _list_trials, description, _TRIALS_EXAMPLES)
    add_study(parser)
    states = f"only these: {', '.join(_STATES)}"
    parser.add_argument("--state", metavar="STATE", action="append", choices=_STATES, default=[], help=states)
    parser.add_argument(
        "--where",
        metavar="CONDITION",
        action="append",
        default=[],
        help="only those for which it holds, such as 'lr<1e-3'; the signs are = != < <= > >=; of several, all hold",
    )
    parser.add_argument("--sort", metavar="COLUMN", default="number", help="by a metric, a parameter, duration, ...")
    parser.add_argument("--descending", action="store_true", help="the largest first")
    parser.add_argument("--limit", metavar="N", type=positive(int), help="the first N only")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV, with all columns")
    add_json(form)
    return parser


def _list_trials(given: Namespace) -> None:
    found = open_study(given.study, given.storage)
    from lightningtune.study.portable import write_table
    from lightningtune.study.selection import list_columns, parse_condition, select

    results = _read_results(found)
    everything = results.rows()
    conditions = [parse_condition(text) for text in given.where]
    rows = select(everything, given.state, conditions, given.sort, given.descending, given.limit)
    if given.json:
        print_json(rows)
    elif given.csv:
        text = io.StringIO()
        write_table(rows, list_columns(everything), text)
        # a program gets the values as they are
        sys.stdout.write(printable(text.getvalue(), LINES) if sys.stdout.isatty() else text.getvalue())
    elif rows:
        from lightningtune.report.terminal import draw_trials

        show(draw_trials(rows, results.metrics, width()), LINES)
    else:
        show(f"Study '{found.study.study_name}' has no trials{' of that kind' if everything else ''}.")


def compare_parser() -> CommandParser:
    """Return the parser of ``compare``."""
    parser = CommandParser(
        "compare",
        _compare,
        "Puts studies side by side: what each has found, how many trials, epochs and how much time that took, and what "
        "differs in their definitions.",
    )
    add_study(parser)
    suggest(parser.add_argument("others", metavar="OTHER", nargs="+", help="another, or several"), list_studies)
    add_json(parser)
    return parser


def _compare(given: Namespace) -> None:
    studies = [open_study(study, given.storage) for study in (given.study, *given.others)]
    from lightningtune.report.compare import compare_studies, draw_comparison

    definitions = [found.directory.read_definition() for found in studies]
    comparison = compare_studies([_read_results(found) for found in studies], definitions)
    if given.json:
        print_json(comparison)
    else:
        show(draw_comparison(comparison, width()), LINES)


def dashboard_parser() -> CommandParser:
    """Return the parser of ``dashboard``."""
    description = "Opens a study in optuna-dashboard, a page in the browser, until Ctrl-C."
    parser = CommandParser("dashboard", _serve_dashboard, description)
    add_study(parser)
    parser.add_argument("--port", metavar="N", type=positive(int), default=8080, help="(default: 8080)")
    return parser


def _serve_dashboard(given: Namespace) -> None:
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise ConfigurationError("optuna-dashboard is not installed. Try: pip install 'lightningtune[dashboard]'")
    study = open_study(given.study, given.storage).study
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

    from optuna_dashboard import wsgi

    from lightningtune.study.storage import get_storage

    class Server(ThreadingMixIn, WSGIServer):  # in threads: a browser opens connections that it does not use at once
        daemon_threads = True

    class Handler(WSGIRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Print nothing: a page asks every few seconds."""

    host = "127.0.0.1"  # the dashboard asks for no password, so only this machine may reach it
    address = f"{host}:{given.port}"
    try:
        server = make_server(host, given.port, wsgi(get_storage(study)), Server, Handler)
    except (OSError, OverflowError) as error:  # the port is taken, or there is no such port
        raise ConfigurationError(
            f"The dashboard cannot listen at {address}: {error}. Give it another port with --port."
        ) from error
    with server:
        show(f"Study '{study.study_name}': http://{address}, until Ctrl-C.")
        with contextlib.suppress(KeyboardInterrupt):  # the way to end it
            server.serve_forever()
