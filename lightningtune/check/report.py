"""What a check of a study has tried and found: frozen data, lines for a person, and JSON."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightningtune.contract import TrialOutcome
from lightningtune.files import dump_json
from lightningtune.wording import Readable, counted, format_value, printable

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
_WIDTH = 80


@dataclass
class DryRunNotes:
    """What a dry run noted of its one epoch; it is written to a file by the trial's process."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    train_batches: int | None = None  # of an epoch of a trial; None where the dataloaders do not tell
    val_batches: int | None = 0  # of one validation of a trial, over all dataloaders
    train_seconds: list[float] = field(default_factory=list)  # of each training batch, with loading it
    val_seconds: list[float] = field(default_factory=list)
    checkpoint: int | None = None  # bytes; None where none is written
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the trainer: how long it trains, when it validates
    device_total: int | None = None  # bytes of memory that the accelerator has
    fingerprint: Mapping[str, str] = field(default_factory=dict)  # what tells this training from another
    overhead: float = 0.0  # seconds that noting took

    @property
    def identity(self) -> str:
        """All that depends on what was computed: equal for two trainings that were the same to the last bit."""
        seen = (dict(self.metrics), list(self.losses), self.train_batches, self.val_batches)
        return repr((seen, dict(self.settings), dict(self.fingerprint)))

    @property
    def train_batch_seconds(self) -> float | None:
        """The seconds of the second training batch, since the first warms up."""
        return self.train_seconds[:2][-1] if self.train_seconds else None

    def write(self, path: Path) -> None:
        """Write the notes to a file."""
        path.write_text(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def read(cls, path: Path) -> DryRunNotes | None:
        """Read the notes of a dry run; None where it did not get that far."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError):
            return None


@dataclass(frozen=True)
class TriedPoint:
    """A point of the space that a dry run has trained.

    Attributes:
        name: of the point.
        values: its parameters; only the one that differs from the base, where there is a base.
        outcome: how the dry run ended.
        notes: what it noted; None where it did not get that far.
        parameter: the only parameter in which it differs from the base.
        base: the name of the point that it differs from.
        is_in_doubt: whether a trial, which is longer, need not fail as the dry run did.
    """

    name: str
    values: Mapping[str, Any]
    outcome: TrialOutcome
    notes: DryRunNotes | None = None
    parameter: str | None = None
    base: str | None = None
    is_in_doubt: bool = False

    def __str__(self) -> str:
        if not self.values or self.name.startswith(f"{self.parameter}="):
            return self.name
        given = [f"{name.rpartition('.')[2]}={format_value(value)}" for name, value in self.values.items()]
        text = ", ".join(given)
        return f"{self.name} ({text if len(text) <= _WIDTH else f'{len(given)} parameters'})"


@dataclass(frozen=True)
class Finding:
    """Something that a check has found.

    Attributes:
        severity: "error" for what fails in every such trial, "warning" for what is probably not meant, "note" for what
            is good to know.
        about: "run", "metric", "parameter", "pruner", "space", "memory", "disk" or "config".
        text: a sentence or two.
    """

    severity: Severity
    about: str
    text: str


@dataclass(frozen=True)
class Forecast:
    """What the whole study will take, as far as two batches tell; None where they do not.

    Attributes:
        seconds: of the study, if no trial is pruned.
        trial_seconds: of the shortest trial, of the mean trial, and of the longest.
        memory: bytes that trials hold at a time, at most.
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
        """Yield the lines to print, each with the severity of the finding that it belongs to.

        Args:
            width: characters of a line, at most.
        """
        yield None, printable(self.headline)
        column = max((len(heading) for heading, _ in self.facts), default=0)
        for heading, text in self.facts:
            yield from ((None, line) for line in _wrap(f"  {heading:<{column}}  ", text, width))
        if self.findings:
            yield None, ""
            yield from _list_findings(self.findings, width)
        yield None, ""
        yield None, self.verdict

    def notes(self, width: int = _WIDTH) -> Iterable[tuple[Severity | None, str]]:
        """Yield the lines of the notes alone."""
        return _list_findings([finding for finding in self.findings if finding.severity == "note"], width)

    def __str__(self) -> str:
        return "\n".join(line for _, line in self.lines())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold; NaN and infinity are None."""
        runs = [
            {
                "name": run.name,
                "params": dict(run.values),
                "outcome": run.outcome.reason.value,
                "detail": run.outcome.detail,
                "seconds": run.outcome.duration,
                "metrics": dict(run.notes.metrics) if run.notes is not None else {},
            }
            for run in self.runs
        ]
        report = {
            "ok": self.ok,
            "headline": self.headline,
            "findings": self.findings,
            "runs": runs,
            "facts": dict(self.facts),
            "forecast": self.forecast,
            "seconds": self.seconds,
        }
        plain: dict[str, Any] = json.loads(dump_json(report))
        return plain


def _list_findings(findings: Iterable[Finding], width: int) -> Iterator[tuple[Severity | None, str]]:
    for finding in findings:
        yield from ((finding.severity, line) for line in _wrap(f"  {finding.severity:<7}  ", finding.text, width))


def _wrap(head: str, text: str, width: int) -> list[str]:
    text = printable(" ".join(text.split()))
    lines = textwrap.wrap(text, max(width - len(head), 20), break_long_words=False, break_on_hyphens=False)
    return [head + line if i == 0 else " " * len(head) + line for i, line in enumerate(lines)] or [head.rstrip()]
