"""The page: what is said in words, put together with the figures and the table."""

from __future__ import annotations

import base64
import datetime
import functools
import gzip
import importlib.util
import secrets
from pathlib import Path
from typing import Any

import jinja2

from lightningtune.report.html.answer import find_answer
from lightningtune.report.html.certainty import gain_line, how_sure
from lightningtune.report.html.cost import Cost, find_cost, find_failures
from lightningtune.report.html.environment import environment_of
from lightningtune.report.html.record import Record
from lightningtune.report.html.running import commands, to_run
from lightningtune.report.html.sections import sections_of
from lightningtune.report.html.table import columns_of, link_to, rows_of, shown
from lightningtune.report.html.timeline import lanes_of
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.results import TrialResult
from lightningtune.wording import counted, listed, moment, short, spent

_ASSETS = Path(__file__).parent / "assets"


def render(record: Record, directory: StudyDirectory, page: Path, now: datetime.datetime) -> str:
    """Write the page of a study.

    Args:
        record: the study.
        directory: its folder, where it has one.
        page: where the page will lie.
        now: when it is written.
    """
    results, definition = record.results, directory.read_definition() if record.is_ours else {}
    lanes = lanes_of(record, now)
    answer = find_answer(results, {refit.number: results.repetitions(refit.number) for refit in results.refits})
    cost = find_cost(results.trials, lanes)
    best = results.best_trials
    copied, purpose = (
        commands(directory, best, record.is_ours, record.is_kept) if len(best) > 1 else ([""] * len(best), "")
    )
    return _template().render(
        title=results.study_name,
        aims=[f"{'maximize' if d == 'maximize' else 'minimize'} {m}" for d, m in _aims(record)],
        counts=results.counts,
        written=moment(now),
        metrics=results.metrics,
        answer=answer,
        front=[(trial, command, _folder(record, trial, page)) for trial, command in zip(best, copied, strict=True)],
        purpose=purpose,
        why_none="" if best else results.why_none(),
        gain=gain_line(answer) if answer and record.is_ours else "",
        sure=how_sure(answer) if answer else [],
        run=to_run(directory, best[0].number, best[0].params, record.is_ours, record.is_kept)
        if len(best) == 1
        else None,
        checkpoint=link_to(directory.best_checkpoint, page, is_folder=False) if record.is_ours else "",
        cost=_cost_lines(cost, "epoch" if record.is_ours else "report"),
        failures=[
            (failure, len(failure.trials), listed([trial.number for trial in failure.trials]), _error(failure, page))
            for failure in find_failures(results.trials)
        ],
        sections=sections_of(record),
        columns=columns_of(record),
        rows=rows_of(record, page),
        environment=environment_of(record, definition),
        nonce=secrets.token_urlsafe(12),
        style=(_ASSETS / "report.css").read_text(encoding="utf-8"),
        script=(_ASSETS / "report.js").read_text(encoding="utf-8"),
        plotly=plotly_packed(),
    )


@functools.cache
def plotly_packed() -> str:
    """Return Plotly's script, packed: it is 4.8 MB, and 2 MB like this.

    The wheel carries no smaller one, and a page that opens from disk without a network must bring it along.
    """
    spec = importlib.util.find_spec("plotly")
    assert spec is not None
    assert spec.origin is not None
    script = Path(spec.origin).parent / "package_data" / "plotly.min.js"
    return base64.b64encode(gzip.compress(script.read_bytes(), 6, mtime=0)).decode()


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": short, "shown": shown}
    return environment.get_template("report.html.jinja")


def _aims(record: Record) -> list[tuple[str, str]]:
    return list(zip(record.results.directions, record.results.metrics, strict=True))


def _folder(record: Record, trial: TrialResult, page: Path) -> str:
    return link_to(trial.directory, page, is_folder=True) if record.is_ours else ""


def _cost_lines(cost: Cost, unit: str) -> list[tuple[str, str, str]]:
    """Say what was spent: a number, what it is, and a remark."""
    waited = f"and {spent(cost.waited)} of waiting" if cost.waited >= 0.01 * max(cost.seconds, 1e-9) else ""
    lines = [
        (f"{cost.epochs:,}", f"{unit}s" if cost.epochs != 1 else unit, ""),
        (spent(cost.seconds), "of training, in all trials", waited),
        (spent(cost.elapsed), "from the first trial to the last", ""),
    ]
    if cost.full is not None and cost.saved:
        remark = f"had pruned trials been as long as the median completed one, {counted(cost.full, unit)}"
        lines.append((f"{cost.saved:,}", f"{unit}s saved by pruning, {cost.saved_share:.0%}", remark))
    elif cost.full is not None:
        lines.append(("0", f"{unit}s saved by pruning", ""))
    return lines


def _error(failure: Any, page: Path) -> str:
    return link_to(failure.trials[0].directory / "error.txt", page, is_folder=False)
