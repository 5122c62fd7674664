"""``lightningtune check``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightningtune.cli.output import print_json, show, width
from lightningtune.cli.studies import PATIENCE
from lightningtune.cli.study_file import StudyFile, with_given_storage
from lightningtune.cli.tune import StudyParser
from lightningtune.errors import ConfigurationError, LightningTuneError
from lightningtune.wording import counted

if TYPE_CHECKING:
    from lightningtune.check.report import CheckReport, Severity
    from lightningtune.optimizer import OptunaDrivenOptimizer

_STYLES = {"error": "red", "warning": "yellow", "note": "dim"}
_WIDEST = 100
"""Characters of a line, however wide the terminal is."""
_EPILOG = """\
The untuned defaults and the corners of the space are trained for two batches
each, in a temporary folder. The study is neither opened nor made.

exit code: 0 when no error was found, warnings or not; 1 when there was one;
2 when the command line was not understood."""


def parser() -> StudyParser:
    """Return the command's parser."""
    parser = StudyParser("check", "Finds in seconds the problems that a study would meet in hours.", _EPILOG)
    parser.add_argument("--json", action="store_true", help="print what was tried and found as JSON")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Check a study."""
    is_json, headline = "--json" in arguments, "No study"
    try:
        given, study = parser().parse_study(arguments)
        study = with_given_storage(study)
        headline = f"Study '{study.study_name}'"

        # imported where it is used: --help is not to wait for torch
        from lightningtune.cli.building import build_optimizer

        report = _checked(build_optimizer(study, Path(given.study or "").parent))
    except LightningTuneError as mistake:  # before anything could be tried
        if not is_json:
            raise
        from lightningtune.check.report import CheckReport, Finding

        report = CheckReport(headline, (Finding("error", "config", str(mistake)),), ())
    if is_json:
        print_json(report.to_dict())
    else:
        show_report(report)
    return 0 if report.ok else 1


def _checked(optimizer: OptunaDrivenOptimizer) -> CheckReport:
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


def show_report(report: CheckReport) -> None:
    """Print a report: in colours in a terminal, in 80 columns elsewhere."""
    _print(report.lines(_width()))


def _width() -> int:
    return min(width() or 80, _WIDEST)


def _print(lines: Iterable[tuple[Severity | None, str]]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for severity, line in lines:
        console.print(Text(line, style=_STYLES.get(severity or "", "")), soft_wrap=True)


def check_first(optimizer: OptunaDrivenOptimizer, asked_for: StudyFile, skip: str = "--no-check") -> None:
    """Check a study that is about to run, unless it has its trials already.

    What was found is shown; where there is no error and no warning, a line says so, and notes follow.

    Args:
        optimizer: of the study.
        asked_for: what it was built from.
        skip: the option that leaves the check out.

    Raises:
        ConfigurationError: when there is an error.
    """
    # imported where it is used: --help is not to wait for Optuna
    from lightningtune.check.report import describe_extent
    from lightningtune.study.finding import find_study
    from lightningtune.study.storage import open_storage
    from lightningtune.study.succession import is_over

    storage = asked_for.storage or ""
    if "://" in storage and not storage.startswith("sqlite"):  # whose file the check does not make
        open_storage(storage, Path())
    try:
        find_study(str(optimizer.directory), asked_for.storage, PATIENCE)
    except ConfigurationError:  # there is none yet, and the check makes none
        pass
    else:
        if is_over(optimizer.study, asked_for.n_trials):
            return
    report = _checked(optimizer)
    if any(finding.severity != "note" for finding in report.findings):
        show_report(report)
    else:
        runs = f"{counted(len(report.runs), 'run')} of {describe_extent(report.runs)}"
        show(f"Checked with {runs}: no errors, no warnings.")
        _print(report.notes(_width()))
    optimizer.seen_notes = frozenset(finding.text for finding in report.findings)
    if not report.ok:
        raise ConfigurationError(f"The study was not begun, since the check found errors. Skip it with {skip}.")
