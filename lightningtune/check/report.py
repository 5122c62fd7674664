"""What a check of a study has found: frozen data, lines for a person, and JSON."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lightningtune.check.runs import TriedPoint
from lightningtune.wording import Readable, counted, format_value, printable

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
_WIDTH = 80


@dataclass(frozen=True)
class Finding:
    """Something that was found.

    Attributes:
        severity: "error" for what fails in every such trial, "warning" for what is probably not meant, "note" for what
            is good to know.
        about: what it is about, in a word: "run", "metric", "parameter", "pruner", "time", "memory", "disk", "config".
        text: in a sentence or two.
    """

    severity: Severity
    about: str
    text: str


@dataclass(frozen=True)
class Forecast:
    """What the whole study will take, as far as two batches tell; None where they do not.

    Attributes:
        seconds: of the study, none of its trials being pruned.
        trial_seconds: of the shortest trial, of one on the average, and of the longest.
        memory: bytes that the trials hold which run at a time, at most.
        disk: bytes of the checkpoints that are kept at a time, at most.
        validations: of one trial, where they are the same in all.
    """

    seconds: float | None = None
    trial_seconds: tuple[float, float, float] | None = None
    memory: int | None = None
    disk: int | None = None
    validations: int | None = None


@dataclass(frozen=True, repr=False)
class CheckReport(Readable):
    """What a check has tried and found.

    Attributes:
        headline: which study it was.
        findings: the errors first.
        runs: what was tried, in order.
        facts: what was learnt, as pairs of a heading and a line.
        forecast: the same in numbers.
        seconds: that the check took.

    Example:
        >>> report = CheckReport("Study 'mnist'", (Finding("warning", "parameter", "'dropout' changed nothing."),), ())
        >>> report.ok
        True
        >>> print(report)
        Study 'mnist'
        <BLANKLINE>
          warning  'dropout' changed nothing.
        <BLANKLINE>
        1 warning.
    """

    headline: str
    findings: tuple[Finding, ...]
    runs: tuple[TriedPoint, ...]
    facts: tuple[tuple[str, str], ...] = ()
    forecast: Forecast = field(default_factory=Forecast)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether there was no error."""
        return not any(finding.severity == "error" for finding in self.findings)

    @property
    def verdict(self) -> str:
        """The number of findings, in a line."""
        counts = {severity: sum(one.severity == severity for one in self.findings) for severity in SEVERITIES}
        parts = [counted(count, severity) for severity, count in counts.items() if count]
        return f"{', '.join(parts)}." if parts else "Nothing was found."

    def lines(self, width: int = _WIDTH) -> Iterable[tuple[Severity | None, str]]:
        """Yield what there is to print line by line, each with the severity of the finding that it belongs to."""
        yield None, printable(self.headline)
        if self.facts:
            column = max(len(heading) for heading, _ in self.facts)
            for heading, text in self.facts:
                yield from ((None, line) for line in _column(f"  {heading:<{column}}  ", text, width))
        if self.findings:
            yield None, ""
            yield from _listed(self.findings, width)
        yield None, ""
        yield None, self.verdict

    def notes(self, width: int = _WIDTH) -> Iterable[tuple[Severity | None, str]]:
        """Yield the lines of the notes alone."""
        return _listed([finding for finding in self.findings if finding.severity == "note"], width)

    def __str__(self) -> str:
        return "\n".join(line for _, line in self.lines())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold; what is not finite, as text."""
        runs = [
            {
                "name": run.name,
                "params": dict(run.values),
                "outcome": run.outcome.reason.value,
                "detail": run.outcome.detail,
                "seconds": run.outcome.duration,
                "metrics": dict(run.noted.metrics) if run.noted is not None else {},
            }
            for run in self.runs
        ]
        plain: dict[str, Any] = _plain(
            {
                "ok": self.ok,
                "headline": self.headline,
                "findings": [dataclasses.asdict(finding) for finding in self.findings],
                "runs": runs,
                "facts": dict(self.facts),
                "forecast": dataclasses.asdict(self.forecast),
                "seconds": self.seconds,
            }
        )
        return plain


def _listed(findings: Iterable[Finding], width: int) -> Iterator[tuple[Severity | None, str]]:
    for finding in findings:
        yield from ((finding.severity, line) for line in _column(f"  {finding.severity:<7}  ", finding.text, width))


def _column(head: str, text: str, width: int) -> list[str]:
    text = printable(" ".join(text.split()))
    lines = textwrap.wrap(text, max(width - len(head), 20), break_long_words=False, break_on_hyphens=False)
    return [head + line if i == 0 else " " * len(head) + line for i, line in enumerate(lines)] or [head.rstrip()]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)


def named(run: TriedPoint) -> str:
    """Name a point with its parameters.

    Example:
        >>> from lightningtune.contract import StopReason, TrialOutcome
        >>> named(TriedPoint("all low", {"lr": 0.1, "act": "relu"}, TrialOutcome(StopReason.COMPLETED)))
        'all low (lr=0.1, act=relu)'
    """
    if not run.values or run.name.startswith(f"{run.parameter}="):
        return run.name
    given = [f"{name.rpartition('.')[2]}={format_value(value)}" for name, value in run.values.items()]
    text = ", ".join(given)
    return f"{run.name} ({text if len(text) <= _WIDTH else f'{len(given)} parameters'})"


def in_order(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Put the errors first, then the warnings; each as they were found, and once."""
    unique = list(dict.fromkeys(findings))
    return tuple(sorted(unique, key=lambda finding: SEVERITIES.index(finding.severity)))
