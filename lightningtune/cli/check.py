"""``lightningtune check``, and the check before a study runs."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lightningtune.cli.output import print_json, show, width
from lightningtune.cli.studies import STORAGE_SECONDS, add_json
from lightningtune.cli.study_file import StudyFile, StudyParser, fill_in_storage
from lightningtune.errors import ConfigurationError, LightningTuneError
from lightningtune.wording import counted

if TYPE_CHECKING:
    from lightningtune.check.report import CheckReport, Severity
    from lightningtune.optimizer import OptunaDrivenOptimizer

_EPILOG = """\
The untuned defaults and the corners of the space are trained for two batches
each, in a temporary folder. The study is neither opened nor made.

exit code: 0 when no error was found, warnings or not; 1 when there was one;
2 when the command line was not understood."""


def check_parser() -> StudyParser:
    """Return the parser of ``check``."""
    parser = StudyParser("check", _check, "Finds in seconds the problems that a study would meet in hours.", _EPILOG)
    add_json(parser)
    return parser


def _check(given: Namespace) -> int:
    headline = "No study"
    try:
        study = fill_in_storage(given.read_study())
        headline = f"Study '{study.study_name}'"

        # deferred import: keeps --help fast
        from lightningtune.cli.building import build_optimizer

        report = _run_check(build_optimizer(study, Path(given.study or "").parent))
    except LightningTuneError as mistake:  # before anything could be tried
        if not given.json:
            raise
        from lightningtune.check.report import CheckReport, Finding

        report = CheckReport(headline, (Finding("error", "config", str(mistake)),), ())
    if given.json:
        print_json(report.to_dict())
    else:
        _print(report.lines(_width()))
    return 0 if report.ok else 1


def _run_check(optimizer: OptunaDrivenOptimizer) -> CheckReport:
    """Check a study, and show in a terminal what is tried."""
    from rich.console import Console
    from rich.live import Live
    from rich.markup import escape

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        return optimizer.check()
    # without a thread of its own: a process that has one is not forked, and trying would wait for imports
    with Live(console=console, auto_refresh=False, transient=True) as live:
        return optimizer.check(lambda text: live.update(f"Checking {escape(text)}", refresh=True))


def _width() -> int:
    return min(width() or 80, 100)


def _print(lines: Iterable[tuple[Severity | None, str]]) -> None:
    from rich.console import Console
    from rich.text import Text

    console, styles = Console(highlight=False), {"error": "red", "warning": "yellow", "note": "dim", None: ""}
    for severity, line in lines:
        console.print(Text(line, style=styles[severity]), soft_wrap=True)


def check_first(optimizer: OptunaDrivenOptimizer, asked_for: StudyFile, skip: str = "--check false") -> None:
    """Check a study that is about to run, unless it has its trials already, and show what was found.

    Raises:
        ConfigurationError: when there is an error; it names `skip`, the option that leaves out the check.
    """
    # deferred imports: keep --help fast
    from lightningtune.study.finding import find_study
    from lightningtune.study.storage import open_storage
    from lightningtune.study.tally import is_over

    storage = asked_for.storage or ""
    if "://" in storage and not storage.startswith("sqlite"):  # whose file the check does not make
        open_storage(storage, Path())
    try:
        find_study(str(optimizer.directory), asked_for.storage, STORAGE_SECONDS)
    except ConfigurationError:  # there is none yet, and the check makes none
        pass
    else:
        if is_over(optimizer.study, asked_for.n_trials):
            return
    report = _run_check(optimizer)
    if any(finding.severity != "note" for finding in report.findings):
        _print(report.lines(_width()))
    else:
        show(f"Checked with {counted(len(report.runs), 'run')} of two batches: no errors, no warnings.")
        _print(report.notes(_width()))
    if not report.ok:
        raise ConfigurationError(f"The study was not begun, since the check found errors. Skip it with {skip}.")
