"""The live view of a running study: one line for each finished trial, and in a terminal a line of what runs now."""

from __future__ import annotations

import logging
import os
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn

from lightningtune.contract import Reporter, Stop, Values
from lightningtune.study.results import TrialResult

log = logging.getLogger(__name__)


class LiveView:
    """Prints to a console, and keeps one line alive at its bottom where that is a terminal.

    Args:
        metrics: the names of the tuned metrics.
        console: where to print; a quiet console shows nothing.
    """

    def __init__(self, metrics: tuple[str, ...], console: Console) -> None:
        self.console = console
        self._metrics = metrics
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            console=self.console,
            transient=True,
            expand=False,
        )
        self._task = self._progress.add_task("starting")
        self._live: Live | None = self._progress.live if console.is_terminal and not console.quiet else None
        self._total = self._done = 0
        self._session_done = 0
        self._started = time.monotonic()
        self._best = ""
        self._running: set[int] = set()

    def __enter__(self) -> LiveView:
        if self._live is not None:
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(self, done: int, total: int, headline: str) -> None:
        """Print the head of a session that goes from ``done`` trials to ``total``."""
        self._done, self._total, self._session_done = done, total, 0
        self._started = time.monotonic()
        self.console.print(headline, markup=False, soft_wrap=True)

    def trial_started(self, number: int, is_baseline: bool) -> None:
        """Show that a trial runs."""
        self._running.add(number)
        self._show(f"trial {number}{' (untuned defaults)' if is_baseline else ''}", now=True)

    def value_reported(self, number: int, values: Values, step: int) -> None:
        """Show the latest value of the running trial."""
        self._show(f"trial {number}: {self._named(values)} at validation {step}")

    def trial_ended(self, trial: TrialResult, best: tuple[TrialResult, ...]) -> None:
        """Print the line of a finished trial."""
        self._running.discard(trial.number)
        if trial.outcome != "interrupted" and trial.continued_by is None:
            self._done, self._session_done = self._done + 1, self._session_done + 1
        self._best = self._best_of(best)
        is_complete = trial.state == "complete" and trial.values is not None
        result = self._named(trial.values or ()) if is_complete else trial.detail.removeprefix("pruned by ")
        shown = " ".join(f"{name.rpartition('.')[2]}={_short(value)}" for name, value in trial.params.items())
        style = {"complete": "green", "pruned": "yellow", "interrupted": "yellow"}.get(trial.outcome, "red")
        mark = "[bold green]★[/]" if trial in best else " "
        line = (
            f"[dim]{trial.number:>4}[/] {mark} [{style}]{trial.outcome:<8}[/] {escape(result)}  [dim]{escape(shown)}[/]"
        )
        wrapping: dict[str, Any] = {"no_wrap": True, "overflow": "ellipsis"}
        self.console.print(line, **(wrapping if self.console.is_terminal else {"soft_wrap": True}))
        self._show("")

    def urgent(self, text: str) -> None:
        """Print at once, from within a signal handler, where nothing else may be touched."""
        if not self.console.quiet:
            os.write(2, f"\n{text}\n".encode())

    def note(self, text: str) -> None:
        """Print a note in full."""
        self.console.print(f"[yellow]{escape(text)}[/]", soft_wrap=True)

    def stopped(self, text: str) -> None:
        """Say why the study ends early; in the log where nothing is shown, since it must be seen."""
        if self.console.quiet:
            log.error(text)
        self.console.print(f"[red]{escape(text)}[/]", soft_wrap=True)

    def end(self, text: str, is_empty: bool) -> None:
        """Print what was found; that nothing was, stands in the log where nothing is shown."""
        if is_empty and self.console.quiet:
            log.warning(text)
        self.console.print(f"\n{escape(text)}", soft_wrap=True)

    def _named(self, values: Values) -> str:
        return " ".join(f"{name} {value:.4g}" for name, value in zip(self._metrics, values, strict=True))

    def _best_of(self, best: tuple[TrialResult, ...]) -> str:
        if len(self._metrics) > 1:
            return f"{len(best)} on the Pareto front"
        return f"best {best[0].value:.4g} (trial {best[0].number})" if best else ""

    def _show(self, running: str, now: bool = False) -> None:
        if self._live is None:
            return
        several = f"{len(self._running)} running" if len(self._running) > 1 else ""
        parts = [f"{self._done}/{self._total}", self._time_left(), self._best, several, running]
        self._progress.update(self._task, description=escape(" · ".join(part for part in parts if part)), refresh=now)

    def _time_left(self) -> str:
        if not self._session_done:
            return ""
        each = (time.monotonic() - self._started) / self._session_done
        seconds = round(each * max(self._total - self._done, 0))
        return f"{seconds // 60}:{seconds % 60:02d} left"


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


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
