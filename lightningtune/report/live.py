"""The live view of a running study: one line for each finished trial, and below them, where it can, what runs now."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from lightningtune.contract import Reporter, Stop, Values
from lightningtune.errors import redact
from lightningtune.report.notebook import NotebookOutput
from lightningtune.report.progress import Progress, named
from lightningtune.study.results import StudyResults, TrialResult
from lightningtune.wording import parameters, printable

log = logging.getLogger(__name__)

_REFRESHES = 2
"""Times in a second that a terminal is drawn anew."""
_QUIET = 300.0
"""Seconds after which a log that is no terminal is told how far the study is."""
_KEPT = "\n\t"
"""What does not print and is printed all the same, in a text of several lines."""
_STYLES = {"complete": "green", "pruned": "yellow", "interrupted": "yellow"}


def view_console(verbose: bool, is_shared: bool) -> Console:
    """Return the console of a view.

    Args:
        verbose: whether anything is shown.
        is_shared: whether trials print to the same terminal, a progress bar for one: lines that are kept alive and
            theirs would be drawn over each other, so each trial is a plain line.
    """
    return Console(highlight=False, quiet=not verbose, force_interactive=False if is_shared else None)


class LiveView:
    """Prints to a console, and keeps some lines alive at its bottom where that is a terminal.

    In a notebook all trials are one output, which is updated; in a log, long trials have a line now and then. What
    cannot be shown, since the terminal is gone for example, ends nothing: from then on nothing is shown.

    Args:
        metrics: the names of the tuned metrics.
        console: where to print; a quiet console shows nothing.
        clock: tells seconds.
    """

    def __init__(self, metrics: tuple[str, ...], console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self._metrics = metrics
        self._clock = clock
        self._progress = Progress(metrics, clock)
        self._live: Live | None = None
        self._notebook: NotebookOutput | None = None
        self._said = clock()
        self._drawn = -math.inf
        self._urgent = ""
        self._warned: set[str] = set()
        self._is_lost = False
        self._written = contextlib.ExitStack()

    def __enter__(self) -> LiveView:
        self._said, self._urgent = self._clock(), ""
        if self.console.quiet:
            return self
        self._written.enter_context(_bearing(self.console.file))
        with self._unfailing():
            if self.console.is_jupyter:
                self._notebook = NotebookOutput(self._lines)
            elif self.console.is_interactive:
                self._live = Live(
                    console=self.console,
                    get_renderable=self._now,
                    refresh_per_second=_REFRESHES,
                    transient=True,
                )
                self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._unfailing():
            if self._live is not None:
                self._live.stop()
                if self._urgent:  # it went with the lines that were alive
                    self._say(self._urgent, "bold yellow")
            if self._notebook is not None:
                if self._urgent:
                    self._notebook.add(Text(self._urgent))
                self._notebook.close()
        self._live = self._notebook = None
        self._written.close()

    def begin(self, so_far: StudyResults, done: int, total: int, headline: str) -> None:
        """Print the head of a session.

        Args:
            so_far: what the study has come to before.
            done: how many trials need not be run again.
            total: how many trials it is to have.
            headline: what is about to run.
        """
        self._log(headline)
        with self._unfailing():
            self._progress.begin(so_far, done, total)
            self.console.print(printable(headline), markup=False, soft_wrap=True)

    def trial_started(self, number: int, params: Mapping[str, Any], is_baseline: bool) -> None:
        """Show that a trial runs."""
        with self._unfailing():
            self._progress.started(number, "untuned defaults" if is_baseline else parameters(params))
            self._refresh()

    def trial_placed(self, number: int, place: str) -> None:
        """Show which accelerators a trial has."""
        self._progress.placed(number, place)

    def trial_trains(self, number: int, trainer: Any) -> None:
        """Tell epochs from validations, by the trainer's section of a trial's config."""
        if isinstance(trainer, Mapping):
            self._progress.trains(number, trainer)

    def value_reported(self, number: int, values: Values, step: int) -> None:
        """Show the latest value of a running trial."""
        with self._unfailing():
            self._progress.reported(number, values, step)
            is_log = self._live is None and self._notebook is None
            if is_log and self._clock() - self._said >= _QUIET:
                self._print(Text(" · ".join(line.plain.strip() for line in self._progress.lines())))

    def trial_ended(self, trial: TrialResult, best: tuple[TrialResult, ...], done: int) -> None:
        """Print the line of a finished trial.

        Args:
            trial: which has ended.
            best: the best one, or the Pareto front.
            done: how many trials need not be run again.
        """
        said = self._result_of(trial)
        self._log(f"Trial {trial.number}: {trial.outcome} {said}, with {parameters(trial.params)}")
        with self._unfailing():
            self._progress.ended(trial, best, done)
            style = _STYLES.get(trial.outcome, "red")
            mark = "[bold green]★[/]" if trial in best else " "
            self._print(
                f"[dim]{trial.number:>4}[/] {mark} [{style}]{trial.outcome:<8}[/] {escape(said)}  "
                f"[dim]{escape(parameters(trial.params))}[/]"
            )
            self._refresh()

    def urgent(self, text: str) -> None:
        """Show at once, from within a signal handler, where nothing else may be touched."""
        if self.console.quiet:
            return
        if self._live is not None or self._notebook is not None:
            self._urgent = text  # the next refresh shows it: what is written beside the lines would move them
            return
        with contextlib.suppress(OSError):  # the terminal may be what has gone
            os.write(2, f"\n{text}\n".encode())

    def note(self, text: str) -> None:
        """Print a note in full."""
        self._log(text)
        self._say(text, "yellow")

    def warn(self, text: str) -> None:
        """Print a note; in the log where nothing is shown, since it must be seen."""
        self._log(text, logging.WARNING)
        self._say(text, "yellow")

    def warn_once(self, text: str) -> None:
        """Print a note that every trial of the study would repeat."""
        if text not in self._warned:
            self._warned.add(text)
            self.warn(text)

    def stopped(self, text: str) -> None:
        """Say why the study ends early; in the log where nothing is shown, since it must be seen."""
        self._log(text, logging.ERROR)
        self._say(text, "red")

    def end(self, text: str, is_empty: bool) -> None:
        """Print what was found; that nothing was, stands in the log where nothing is shown."""
        self._log(text, logging.WARNING if is_empty else logging.INFO)
        with self._unfailing():
            self.console.print(f"\n{escape(printable(text, _KEPT))}", soft_wrap=True)

    @contextlib.contextmanager
    def _unfailing(self) -> Iterator[None]:
        """Show nothing more where something could not be shown; rich raises SystemExit for a broken pipe."""
        try:
            with _bearing(self.console.file):
                yield
        except (Exception, SystemExit) as error:
            self.console.quiet = True
            if not self._is_lost:
                self._is_lost = True
                why = "nobody reads it" if isinstance(error, SystemExit) else f"{type(error).__name__}: {error}"
                log.warning("The study is not shown any more: %s", redact(why))

    def _log(self, text: str, level: int = logging.INFO) -> None:
        """Log what is shown, where nothing is; elsewhere it would stand there twice, and is for who debugs."""
        log.log(level if self.console.quiet else logging.DEBUG, "%s", printable(text, _KEPT))

    def _result_of(self, trial: TrialResult) -> str:
        """Say what a trial came to, or why it came to nothing, in a line."""
        if trial.state == "complete" and trial.values is not None:
            return named(self._metrics, trial.values) + ("" if trial.is_feasible else ", infeasible")
        return printable(" ".join(trial.detail.removeprefix("pruned by ").removeprefix("interrupted ").split()))

    def _say(self, text: str, style: str) -> None:
        """Print a text in full, in a notebook among the trials."""
        text = printable(text, _KEPT)
        with self._unfailing():
            if self._notebook is not None:
                self._notebook.add(Text(text))
                self._notebook.update()
            else:
                self.console.print(f"[{style}]{escape(text)}[/]", soft_wrap=True)

    def _print(self, line: str | Text) -> None:
        self._said = self._clock()
        if self._notebook is not None:
            self._notebook.add(Text.from_markup(line) if isinstance(line, str) else line)
            return
        wrapping: dict[str, Any] = {"no_wrap": True, "overflow": "ellipsis"}
        self.console.print(line, **(wrapping if self.console.is_terminal else {"soft_wrap": True}))

    def _refresh(self) -> None:
        if self._notebook is not None:
            self._notebook.update()
        elif self._live is not None and self._clock() - self._drawn >= 1 / _REFRESHES:
            self._drawn = self._clock()  # of many trials that end in a second, rich's own thread shows the rest
            self._live.refresh()

    def _lines(self) -> Sequence[Text]:
        urgent = [Text(self._urgent, style="bold yellow")] if self._urgent else []
        return [*self._progress.lines(), *urgent]

    def _now(self) -> Group:
        lines: Sequence[Text] = []
        with self._unfailing():  # in rich's own thread, which an error would end
            lines = self._lines()
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group("", *lines)


@contextlib.contextmanager
def _bearing(file: Any) -> Iterator[None]:
    """Let a file take what it has no letters for, as question marks."""
    errors = getattr(file, "errors", None)
    if errors not in ("strict", "surrogateescape") or not hasattr(file, "reconfigure"):
        yield
        return
    with contextlib.suppress(OSError, ValueError):  # it writes what it holds, and may have gone
        file.reconfigure(errors="replace")
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            file.reconfigure(errors=errors)


class WatchedReporter:
    """A reporter that a view looks over the shoulder of."""

    def __init__(self, reporter: Reporter, view: LiveView, number: int) -> None:
        self._reporter = reporter
        self._view = view
        self._number = number

    def report(self, values: Values, step: int) -> Stop | None:
        """Report, and show."""
        self._view.value_reported(self._number, values, step)
        return self._reporter.report(values, step)

    def notice(self, text: str) -> None:
        """Show what all trials have in common, once."""
        self._view.warn_once(text)
