"""Studies side by side, drawn for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightningtune.report.tables import table
from lightningtune.study.contrast import Contrast, Finding
from lightningtune.wording import clock, number

_LONGEST = 40
_OUTCOMES = ("complete", "pruned", "fail", "interrupted", "running", "waiting")


def draw_contrast(seen: Contrast, width: int | None = None) -> str:
    """Draw studies as the columns of a table: what each has found, and below, what differs in their definitions.

    Args:
        seen: the studies.
        width: characters of a line; nothing is cut when not given.
    """
    findings = seen.findings
    header = ("", *(f"{one.study_name}{' ★' if place == seen.winner else ''}" for place, one in enumerate(findings)))
    rows = [(name, *(_rows(one)[name] for one in findings)) for name in _rows(findings[0])]
    shown = [row for row in rows if any(row[1:])]
    parts = [table(header, shown, width=width)]
    if seen.differences:
        differences = [(path, *(_text(value) for value in values)) for path, values in seen.differences.items()]
        header = ("what differs", *(one.study_name for one in findings))
        parts.append(table(header, differences, width=width))
    else:
        parts.append("Nothing that was written down of them differs.")
    return "\n\n".join(parts)


def _rows(finding: Finding) -> Mapping[str, str]:
    aims = ", ".join(f"{way} {name}" for way, name in zip(finding.directions, finding.metrics, strict=True))
    counts = {outcome: str(finding.counts.get(outcome, "")) for outcome in _OUTCOMES}
    return {
        "aim": aims,
        "best": _values(finding.best) + ("" if finding.best_number is None else f"  (trial {finding.best_number})"),
        "untuned defaults": _values(finding.baseline),
        "better by": number(finding.improvement),
        **counts,
        "epochs": str(finding.epochs),
        "time of all trials": clock(finding.seconds),
    }


def _values(values: tuple[float, ...] | None) -> str:
    return ", ".join(map(number, values or ()))


def _text(value: Any) -> str:
    text = "" if value is None else " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
