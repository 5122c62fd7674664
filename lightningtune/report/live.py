"""The live view of a running study: a line for each finished trial, and in a terminal what runs now."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text
from tqdm.auto import tqdm

from lightningtune.contract import StopReason, Values
from lightningtune.errors import redact
from lightningtune.report.html.timeline import saved_by_pruning
from lightningtune.study.events import (
    Event,
    Level,
    Message,
    StudyBegan,
    StudyEnded,
    TrialEnded,
    TrialPlaced,
    TrialStarted,
    ValuesReported,
)
from lightningtune.study.liveness import call_every
from lightningtune.study.progress import LATEST, time_left
from lightningtune.study.results import TrialResult, count_epochs, read_max_epochs
from lightningtune.wording import clock, counted, parameters, printable

log = logging.getLogger(__name__)

_REFRESHES = 2
"""Redraws of a terminal per second."""
_NOTEBOOK_SECONDS = 1.0
"""Seconds between two updates of a notebook that no event asks for."""
_STAYING = 50
"""Lines of finished trials that a notebook shows."""
_QUIET = 300.0
"""Seconds between two lines on the progress of long trials, outside a terminal."""
_KEPT = "\n\t"
"""Control characters that are kept in a text of several lines."""
_BARS = "▁▂▃▄▅▆▇█"
_CURVE = 12
"""Values that a trial's curve shows."""
_SHOWN = 10
"""Running trials that have a line."""
_LOG_LEVELS = {Level.NOTE: logging.INFO, Level.WARNING: logging.WARNING, Level.ERROR: logging.ERROR}
_STYLES = {"complete": "green", "pruned": "yellow", "interrupted": "yellow"}


def view_console(verbose: bool, is_shared: bool) -> Console:
    """Return the console of a view."""
    return Console(highlight=False, quiet=not verbose, force_interactive=False if is_shared else None)


@contextlib.contextmanager
def progress_bar(total: int, done: int) -> Iterator[Callable[[Event], None]]:
    """Show a bar of the trials that count, as Optuna's ``show_progress_bar`` does."""
    with tqdm(total=total, initial=done) as bar:

        def update(event: Event) -> None:
            if isinstance(event, TrialEnded):
                bar.update(event.done - bar.n)

        yield update


class LiveView:
    """Prints events to a console, and redraws the lines on running trials where it is a terminal.

    In a notebook all trials are one output, which is updated; in a log, long trials have a line now and then. What
    cannot be shown, since the terminal is gone for example, ends nothing: from then on nothing is shown.
    """

    def __init__(self, metrics: tuple[str, ...], console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self._metrics = metrics
        self._clock = clock
        self._lines = ProgressLines(metrics, clock)
        self._live: Live | None = None
        self._notebook: NotebookOutput | None = None
        self._said = clock()
        self._drawn = -math.inf
        self._urgent = ""
        self._is_lost = False
        self._written = contextlib.ExitStack()

    def __enter__(self) -> LiveView:
        self._said, self._urgent = self._clock(), ""
        if self.console.quiet:
            return self
        self._written.enter_context(_bearing(self.console.file))
        with self._unfailing():
            if self.console.is_jupyter:
                self._notebook = NotebookOutput(self._draw)
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
                if self._urgent:  # it was erased with the redrawn lines
                    self._say(self._urgent, "bold yellow")
            if self._notebook is not None:
                if self._urgent:
                    self._notebook.add(Text(self._urgent))
                self._notebook.close()
        self._live = self._notebook = None
        self._written.close()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case Message(text, Level.SIGNAL):
                self._show_at_once(text)
            case Message(text, level):
                self._log(text, _LOG_LEVELS[level])
                self._say(text, "red" if level is Level.ERROR else "yellow")
            case StudyBegan():
                self._log(event.headline)
                with self._unfailing():
                    self._lines.begin(event)
                    self.console.print(printable(event.headline), markup=False, soft_wrap=True)
            case TrialStarted():
                with self._unfailing():
                    self._lines.add_trial(event)
                    self._refresh()
            case TrialPlaced():
                self._lines.place_trial(event)
            case ValuesReported():
                with self._unfailing():
                    self._lines.add_values(event)
                    is_log = self._live is None and self._notebook is None
                    if is_log and self._clock() - self._said >= _QUIET:
                        self._print(Text(" · ".join(line.plain.strip() for line in self._lines.draw())))
            case TrialEnded():
                self._end_trial(event)
            case StudyEnded(text, is_empty):
                self._log(text, logging.WARNING if is_empty else logging.INFO)
                with self._unfailing():
                    self.console.print(f"\n{escape(printable(text, _KEPT))}", soft_wrap=True)

    def _end_trial(self, event: TrialEnded) -> None:
        trial, result = event.trial, self._describe_result(event.trial)
        self._log(f"Trial {trial.number}: {trial.outcome} {result}, with {parameters(trial.params)}")
        with self._unfailing():
            self._lines.end_trial(event)
            style = _STYLES.get(trial.outcome, "red")
            mark = "[bold green]★[/]" if trial in event.best else " "
            self._print(
                f"[dim]{trial.number:>4}[/] {mark} [{style}]{trial.outcome:<8}[/] {escape(result)}  "
                f"[dim]{escape(parameters(trial.params))}[/]"
            )
            self._refresh()

    def _show_at_once(self, text: str) -> None:
        """Show a text from within a signal handler, without any lock."""
        if self.console.quiet:
            return
        if self._live is not None or self._notebook is not None:
            self._urgent = text  # the next redraw shows it: printing now would garble the lines
            return
        with contextlib.suppress(OSError):  # the terminal may be gone
            os.write(2, f"\n{text}\n".encode())

    @contextlib.contextmanager
    def _unfailing(self) -> Iterator[None]:
        """Go quiet after a failure to print; rich raises SystemExit for a broken pipe."""
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
        """Log a text, at debug level where it is printed too."""
        log.log(level if self.console.quiet else logging.DEBUG, "%s", printable(text, _KEPT))

    def _describe_result(self, trial: TrialResult) -> str:
        """Return a trial's values, or why it has none, in a line."""
        if trial.state == "complete" and trial.values is not None:
            return named(self._metrics, trial.values) + ("" if trial.is_feasible else ", infeasible")
        detail = trial.detail.removeprefix(f"{trial.outcome} ")  # the line has that word already
        return printable(" ".join(detail.split()))

    def _say(self, text: str, style: str) -> None:
        """Print a text in full; in a notebook it stands among the trials."""
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
            self._drawn = self._clock()  # rich's own thread draws events that come faster
            self._live.refresh()

    def _draw(self) -> Sequence[Text]:
        urgent = [Text(self._urgent, style="bold yellow")] if self._urgent else []
        return [*self._lines.draw(), *urgent]

    def _now(self) -> Group:
        lines: Sequence[Text] = []
        with self._unfailing():  # an error would end rich's thread
            lines = self._draw()
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group("", *lines)


@contextlib.contextmanager
def _bearing(file: Any) -> Iterator[None]:
    """Write characters that the file's encoding lacks as question marks."""
    errors = getattr(file, "errors", None)
    if errors not in ("strict", "surrogateescape") or not hasattr(file, "reconfigure"):
        yield
        return
    with contextlib.suppress(OSError, ValueError):  # it flushes, and may be gone
        file.reconfigure(errors="replace")
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            file.reconfigure(errors=errors)


class NotebookOutput:
    """One output of a notebook's cell: lines that stay, and below them lines that change."""

    def __init__(self, changing: Callable[[], Sequence[Text]]) -> None:
        from IPython.display import display

        self._changing = changing
        self._staying: deque[str] = deque(maxlen=_STAYING)
        self._dropped = 0
        self._text = self._draw()
        self._turn = threading.Lock()
        show: Callable[..., Any] = display
        self._output = show({"text/plain": self._text}, raw=True, display_id=True)
        self._updates = contextlib.ExitStack()
        self._updates.enter_context(call_every(_NOTEBOOK_SECONDS, self._update_again, "lightningtune-notebook"))

    def add(self, line: Text) -> None:
        """Add a line that stays."""
        with self._turn:
            self._dropped += len(self._staying) == _STAYING
            self._staying.append(line.plain.rstrip())

    def update(self, is_last: bool = False) -> None:
        """Draw the lines now, at the end only those that stay."""
        with self._turn:
            text = self._draw(is_last)
            if text != self._text:
                self._text = text
                self._output.update({"text/plain": text}, raw=True)

    def close(self) -> None:
        """Stop drawing, and leave the lines that stay."""
        self._updates.close()
        self.update(is_last=True)

    def _draw(self, is_last: bool = False) -> str:
        dropped = [f"… {self._dropped} before"] if self._dropped else []
        changing = [] if is_last else ["", *(line.plain.rstrip() for line in self._changing())]
        return "\n".join([*dropped, *self._staying, *changing]) or " "

    def _update_again(self) -> None:
        try:
            self.update()
        except Exception as error:  # the kernel may be about to end
            log.debug("The notebook's output could not be updated: %s", error)


@dataclass
class Running:
    """A trial that runs."""

    number: int
    parameters: str  # in a line
    since: float
    trainer: Mapping[str, Any]  # that section of its config
    place: str = ""  # the accelerators it has; "" on a CPU
    values: deque[float] = field(default_factory=lambda: deque(maxlen=_CURVE))  # the latest of the first metric
    step: int = -1  # of the latest value


class ProgressLines:
    """Draws how far a study is, from its events."""

    def __init__(self, metrics: tuple[str, ...], clock: Callable[[], float]) -> None:
        self._metrics, self._clock = metrics, clock
        self._running: dict[int, Running] = {}
        self._reset()

    def _reset(self) -> None:
        self._running.clear()
        self._total = self._done = self._before = self._most_at_once = self._ended = 0
        self._latest_seconds: deque[float] = deque(maxlen=LATEST)
        self._counts: Counter[str] = Counter()
        self._epochs: dict[str, list[int]] = {"complete": [], "pruned": []}
        self._best = ""
        self._baseline: TrialResult | None = None
        self._sign = 1.0

    def begin(self, event: StudyBegan) -> None:
        """Take over what a study has found before."""
        self._reset()
        self._done = self._before = event.done
        self._total = event.total
        self._sign = 1.0 if event.results.directions[0] == "maximize" else -1.0
        for trial in event.results.trials:
            self._count(trial)
        self._best = self._describe_best(event.results.best_trials)

    def add_trial(self, event: TrialStarted) -> None:
        """Give a running trial a line."""
        tries = "untuned defaults" if event.is_baseline else parameters(event.params)
        self._running[event.number] = Running(event.number, tries, self._clock(), event.trainer or {})
        self._most_at_once = max(self._most_at_once, len(self._running))

    def place_trial(self, event: TrialPlaced) -> None:
        """Note which accelerators a trial has."""
        if event.number in self._running:
            self._running[event.number].place = ",".join(f"device {device}" for device in event.devices)

    def add_values(self, event: ValuesReported) -> None:
        """Note the values of a validation."""
        trial = self._running.get(event.number)
        if trial is not None:
            trial.values.append(event.values[0])
            trial.step = event.step

    def end_trial(self, event: TrialEnded) -> None:
        """Count a trial that has ended."""
        trial, begun = event.trial, self._running.pop(event.trial.number, None)
        self._done = event.done
        if self._count(trial) and trial.outcome != "interrupted":
            self._ended += 1
            if trial.continues is None:  # else it was only the rest of a training
                self._latest_seconds.append(trial.duration if begun is None else self._clock() - begun.since)
        self._best = self._describe_best(event.best)

    def draw(self) -> list[Text]:
        """Return the lines: how far the study is, what is best, what has ended, and what runs."""
        parts = [f"{self._done}/{self._total} trials", self._describe_time_left()]
        lines = [Text(" · ".join(part for part in parts if part))]
        if self._best:
            lines.append(Text(f"best {self._best}"))
        if self._counts["pruned"] or self._counts["fail"]:
            lines.append(Text(self._describe_ended(), style="dim"))
        running = [*self._running.values()]
        lines += [self._draw_trial(trial) for trial in running[:_SHOWN]]
        if len(running) > _SHOWN:
            lines.append(Text(f"and {len(running) - _SHOWN} more run", style="dim"))
        return lines

    def _count(self, trial: TrialResult) -> bool:
        """Count a trial, unless another counts in its place."""
        if trial.continued_by is not None or trial.reason == StopReason.REFUSED.value:
            return False
        self._counts[trial.outcome] += 1
        if trial.outcome in self._epochs:
            self._epochs[trial.outcome].append(trial.epochs)
        if trial.is_baseline and trial.state == "complete" and trial.is_feasible:
            self._baseline = trial
        return True

    def _describe_time_left(self) -> str:
        """Predict by the pace of this session; trials of other hosts count as if more ran at a time."""
        if not self._latest_seconds:
            return ""
        running = [self._clock() - trial.since for trial in [*self._running.values()]]
        at_a_time = self._most_at_once * max((self._done - self._before) / self._ended, 1.0)
        left = time_left(self._total - self._done, statistics.fmean(self._latest_seconds), running, at_a_time)
        return f"{clock(left)} left"

    def _describe_best(self, best: Sequence[TrialResult]) -> str:
        if not best:
            return ""
        if len(self._metrics) > 1:
            return f"{len(best)} on the Pareto front"
        text = f"{named(self._metrics, best[0].values or ())} (trial {best[0].number})"
        base, value = self._baseline, best[0].value
        if base is None or base.value is None or value is None:
            return text
        gain = self._sign * (value - base.value)
        return f"{text}, better by {gain:.3g} than the untuned defaults" if gain > 0 else text

    def _describe_ended(self) -> str:
        pruned, failed = self._counts["pruned"], self._counts["fail"]
        saved = saved_by_pruning(self._epochs["complete"], self._epochs["pruned"])
        parts = [f"{pruned} pruned" + (f", which saved {counted(saved, 'epoch')}" if saved else "")] if pruned else []
        return " · ".join([*parts, *([f"{failed} failed"] if failed else [])])

    def _draw_trial(self, trial: Running) -> Text:
        values = [*trial.values]
        said = f"{values[-1]:.4g} at {_moment(trial)}" if values else "no validation yet"
        taken = clock(self._clock() - trial.since)
        line = Text(f"{trial.number:>4}  ", style="dim")
        line.append(f"{sparkline(values):<{_CURVE}} ", style="cyan")
        line.append(f"{said}  ", style="default")
        return line.append("  ".join(part for part in (taken, trial.place, trial.parameters) if part))


def _moment(trial: Running) -> str:
    """Name the epoch of the latest values, or the validation where the epoch is unknown."""
    epochs, limit = count_epochs(trial.step + 1, trial.trainer), read_max_epochs(trial.trainer)
    if epochs is None:
        return f"validation {trial.step + 1}"
    return f"epoch {epochs}" + (f"/{limit}" if limit is not None else "")


def sparkline(values: Sequence[float]) -> str:
    """Draw a curve in one line; values that are not finite are gaps.

    Example:
        >>> sparkline([0.1, 0.5, float("nan"), 0.9])
        '▁▅ █'
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return " " * len(values)
    low, span = min(finite), max(finite) - min(finite)
    if span == 0 or not math.isfinite(span):
        return "".join("▁" if math.isfinite(value) else " " for value in values)
    return "".join(_BARS[round((v - low) / span * (len(_BARS) - 1))] if math.isfinite(v) else " " for v in values)


def named(metrics: Sequence[str], values: Values) -> str:
    """Write values with their metrics.

    Example:
        >>> named(("val_loss",), (0.12345,))
        'val_loss 0.1235'
    """
    return " ".join(f"{name} {value:.4g}" for name, value in zip(metrics, values, strict=True))
