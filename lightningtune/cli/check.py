"""``lightningtune check``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightningtune.cli.output import print_json
from lightningtune.cli.tune import StudyParser
from lightningtune.errors import LightningTuneError
from lightningtune.report.cells import plural

if TYPE_CHECKING:
    from lightningtune.check import Checkable
    from lightningtune.report.check_report import CheckReport

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
    parser = StudyParser("check", "Finds in seconds what would fail in the night.", _EPILOG)
    parser.add_argument("--json", action="store_true", help="print what was tried and found as JSON")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Check a study."""
    given, study = parser().parse_study(arguments)

    # imported where it is used: --help is not to wait for torch
    from lightningtune.cli.building import build_optimizer
    from lightningtune.report.check_report import CheckReport, Finding

    try:
        report = _checked(build_optimizer(study, Path(given.study or "").parent))
    except LightningTuneError as mistake:  # before anything could be tried
        if not given.json:
            raise
        report = CheckReport(f"Study '{study.study_name}'", (Finding("error", "config", str(mistake)),), ())
    if given.json:
        print_json(report.to_dict())
    else:
        show(report)
    return 0 if report.ok else 1


def _checked(optimizer: Checkable) -> CheckReport:
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


def show(report: CheckReport) -> None:
    """Print a report: in colours in a terminal, in 80 columns elsewhere."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    width = min(console.width, _WIDEST) if console.is_terminal else 80
    for severity, line in report.lines(width):
        console.print(Text(line, style=_STYLES.get(severity or "", "")), soft_wrap=True)


def allows(optimizer: Checkable) -> bool:
    """Check a study that is about to run, and return whether it may: whether there is no error.

    What was found is shown; where there is nothing but notes, only that it was checked.
    """
    report = _checked(optimizer)
    if any(finding.severity != "note" for finding in report.findings):
        show(report)
    else:
        print(f"Checked with {plural(len(report.runs), 'run')} of two batches: no errors, no warnings.")
    return report.ok
