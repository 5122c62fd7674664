"""The page: what is said in words, put together with the figures and the table of trials."""

from __future__ import annotations

import base64
import datetime
import functools
import gzip
import importlib.util
import os
import platform
import secrets
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import optuna

from lightningtune._version import __version__
from lightningtune.config.base import is_block
from lightningtune.errors import InvalidConfigError
from lightningtune.files import dump_yaml
from lightningtune.report.html.results import DrawableResults
from lightningtune.report.html.sections import draw_sections
from lightningtune.report.html.summary import summarize
from lightningtune.report.html.timeline import Cost, find_cost, find_lanes, group_failures
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.results import TrialResult
from lightningtune.wording import counted, format_duration, format_value, list_numbers, moment, short, size

_ASSETS = Path(__file__).parent / "assets"
_CLI = "from lightning.pytorch.cli import LightningCLI; LightningCLI()"


def render(results: DrawableResults, directory: StudyDirectory, page: Path, now: datetime.datetime) -> str:
    """Return the page of a study, which has its folder in ``directory`` where it has one, to be written as ``page``."""
    definition = directory.read_definition() if results.is_ours else {}
    lanes = find_lanes(results.trials, results.optuna_trials, results.is_ours, now)
    best = results.best_trials
    config = read_best_config(results, directory)
    runs = [describe_run(trial, config, directory, results.is_of_command) for trial in best]
    return _template().render(
        title=results.study_name,
        aims=[f"{way} {metric}" for way, metric in zip(results.directions, results.metrics, strict=True)],
        counts=results.counts,
        written=moment(now),
        sample=_describe_sample(results),
        metrics=results.metrics,
        summary=summarize(results),
        is_ours=results.is_ours,
        front=[(trial, run, link_folder(trial.directory, page)) for trial, run in zip(best, runs, strict=True)],
        why_none="" if best else results.why_none(),
        run=runs[0] if len(runs) == 1 else None,
        config=dump_yaml({**best[0].params} if config is None else config) if best else "",
        checkpoint=link_file(directory.best_checkpoint, page) if results.is_ours else "",
        cost=_describe_cost(find_cost(results.trials, lanes), "epoch" if results.is_ours else "report"),
        failures=[
            (group, list_numbers([trial.number for trial in group]), link_file(group[0].directory / "error.txt", page))
            for group in group_failures(results.trials)
        ],
        sections=draw_sections(results),
        columns=make_columns(results),
        rows=make_rows(results, page),
        best_numbers=results.best_numbers,
        environment=describe_environment(results, definition),
        nonce=secrets.token_urlsafe(12),
        style=(_ASSETS / "report.css").read_text(encoding="utf-8"),
        script=(_ASSETS / "report.js").read_text(encoding="utf-8"),
        plotly=pack_plotly(),
    )


@functools.cache
def pack_plotly() -> str:
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
    environment.filters |= {"short": short, "parameter": format_value}
    return environment.get_template("report.html.jinja")


def _describe_sample(results: DrawableResults) -> str:
    """Say what figures and table leave out; "" where that is nothing."""
    count, drawn = len(results.trials), len(results.drawn)
    if drawn == count:
        return ""
    return (
        f"The figures and the table show {drawn:,} of the {count:,} trials: the best, and a sample of the others. "
        "The numbers in the text count all trials."
    )


def _describe_cost(cost: Cost, unit: str) -> list[tuple[str, str, str]]:
    """Return lines of a number, what it is, and a remark."""
    waited = f"and {format_duration(cost.waited)} of waiting" if cost.waited >= 0.01 * max(cost.seconds, 1e-9) else ""
    lines = [
        (f"{cost.epochs:,}", f"{unit}s" if cost.epochs != 1 else unit, ""),
        (format_duration(cost.seconds), "of training, in all trials", waited),
        (format_duration(cost.elapsed), "from the first trial to the last", ""),
    ]
    if cost.median is not None and cost.saved:
        remark = f"had pruned trials been as long as the median completed one, {counted(cost.median, unit)}"
        lines.append((f"{cost.saved:,}", f"{unit}s saved by pruning, {cost.saved_share:.0%}", remark))
    elif cost.median is not None:
        lines.append(("0", f"{unit}s saved by pruning", ""))
    return lines


def read_best_config(results: DrawableResults, directory: StudyDirectory) -> Mapping[str, Any] | None:
    """Return the config of the first of the best trials; None where there is none, or none can be read here."""
    if not results.is_ours or not results.best_trials:
        return None
    try:
        return directory.read_config(results.best_trials[0].number)
    except InvalidConfigError:  # not there, or another computer's
        return None


@dataclass(frozen=True)
class Run:
    """What to copy to run a trial again."""

    command: str  # of a shell, or a line of Python
    purpose: str  # of the command, and where to run it


def describe_run(
    trial: TrialResult, config: Mapping[str, Any] | None, directory: StudyDirectory, is_of_command: bool
) -> Run:
    """Say how a trial is run again; all configs of a study name the same classes, so one tells for all.

    A config that names its classes runs as LightningCLI runs any. Only what ran the study can run another.
    """
    if config is None:
        return Run(f"study.enqueue_trial({dict(trial.params)!r})", "To try it in another study")
    if is_of_command:
        command = f"lightningtune refit {shlex.quote(str(directory.root))} --number {trial.number} --seeds 1 2 3"
        if directory.journal.is_file():
            return Run(command, "To train it again, in a shell")
        return Run(f"{command} --storage URL", "To train it again, in a shell, with the URL of its storage")
    parts = [config[name] for name in ("model", "data") if config.get(name)]
    if parts and all(map(is_block, parts)):
        path = shlex.quote(str(directory.config(trial.number)))
        command = f"python -c {shlex.quote(_CLI)} fit --config {path}"
        return Run(command, "To train it, in a shell where its classes can be imported")
    command = f"optimizer.refit(number={trial.number}, seeds=[1, 2, 3])"
    return Run(command, "To train it again, in the script that made the optimizer")


@dataclass(frozen=True)
class Cell:
    """One cell of the table: its text, what it is sorted by if that is not the text, and where a click leads."""

    text: str
    value: Any = None
    link: str = ""

    @property
    def is_number(self) -> bool:
        """Whether it is sorted as a number, and stands to the right."""
        return isinstance(self.value, (int, float))

    @property
    def key(self) -> str:
        """What the page sorts by, where that is not the text."""
        return "" if self.value is None or str(self.value) == self.text else str(self.value)


def make_columns(results: DrawableResults) -> list[str]:
    """Return the heads of the table's columns."""
    last = ["epochs", "time", "memory", "note"] if results.is_ours else ["reports", "time"]
    return ["trial", "state", *results.metrics, *results.parameters, *last]


def make_rows(results: DrawableResults, page: Path) -> list[tuple[TrialResult, list[Cell]]]:
    """Return each trial that the page, which will lie there, lists, and its cell for each column."""
    trials = [trial for trial in results.trials if trial.number in results.drawn]
    return [(trial, [*_make_cells(trial, results, page)]) for trial in trials]


def _make_cells(trial: TrialResult, results: DrawableResults, page: Path) -> Iterator[Cell]:
    link = link_folder(trial.directory, page) if results.is_ours else ""
    yield Cell(str(trial.number), trial.number, link)
    yield Cell(trial.outcome if trial.is_feasible else f"{trial.outcome}, infeasible")
    for value in trial.values or (None,) * len(results.metrics):
        yield Cell(short(value), value)
    for name in results.parameters:
        value = trial.params.get(name)
        yield Cell(format_value(value), value) if name in trial.params else Cell("")
    yield Cell(str(trial.epochs), trial.epochs)
    yield Cell(format_duration(trial.duration), trial.duration) if trial.duration else Cell("")
    if results.is_ours:
        memory = trial.facts.memory
        yield Cell("" if memory is None else size(memory), memory)
        notes = ["untuned defaults"] if trial.is_baseline else []
        notes += [f"goes on from trial {trial.continues}"] if trial.continues is not None else []
        notes += [f"trial {trial.continued_by} goes on from it"] if trial.continued_by is not None else []
        notes += [trial.detail] if trial.detail else []
        yield Cell("; ".join(notes))


def link_folder(path: Path, page: Path) -> str:
    """Return the address of a folder, from where the page will lie; "" where there is none."""
    return f"{_address(path, page)}/" if path.is_dir() else ""


def link_file(path: Path, page: Path) -> str:
    """Return the address of a file, from where the page will lie; "" where there is none."""
    return _address(path, page) if path.is_file() else ""


def _address(path: Path, page: Path) -> str:
    try:
        return quote(Path(os.path.relpath(path, page.parent)).as_posix())
    except ValueError:  # another drive
        return path.absolute().as_uri()


def describe_environment(results: DrawableResults, definition: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what was asked for and what trained the study: names and values, with trials where they differ."""
    asked = {"sampler": "sampler", "pruner": "pruner", "seed": "seed", "score": "score", "n_trials": "trials asked for"}
    lines = [(name, str(definition[key])) for key, name in asked.items() if definition.get(key) is not None]
    trials = results.trials
    begun = [(trial, trial.provenance) for trial in trials if trial.provenance is not None]
    for key, name in {"model_class": "model", "datamodule_class": "data"}.items():
        lines += _list_values(name, ((trial, origin.classes.get(key)) for trial, origin in begun))
    lines += _list_values("commit", ((trial, _describe_commit(o.commit, o.is_dirty)) for trial, o in begun))
    for package in dict.fromkeys(name for _, origin in begun for name in origin.versions):
        lines += _list_values(package, ((trial, origin.versions.get(package)) for trial, origin in begun))
    lines += _list_values("device", ((trial, trial.facts.device) for trial in trials))
    lines += _list_values("threads", ((trial, trial.facts.threads) for trial in trials))
    peaks = {
        "peak memory of a trial": max((trial.facts.memory or 0 for trial in trials), default=0),
        "peak memory of its accelerator": max((trial.facts.device_memory or 0 for trial in trials), default=0),
    }
    lines += [(name, size(peak)) for name, peak in peaks.items() if peak]
    writer = f"lightningtune {__version__}, optuna {optuna.__version__}, python {platform.python_version()}"
    return [*lines, ("report written with", writer)]


def _list_values(name: str, values: Iterable[tuple[TrialResult, Any]]) -> list[tuple[str, str]]:
    """Return one line where all trials have the same, else which trials had which; nothing where none has any."""
    by_value: defaultdict[str, list[int]] = defaultdict(list)
    for trial, value in values:
        if value is not None:
            by_value[str(value)].append(trial.number)
    if len(by_value) == 1:
        return [(name, next(iter(by_value)))]
    text = "; ".join(f"{value} (trials {list_numbers(numbers, 6)})" for value, numbers in by_value.items())
    return [(name, text)] if text else []


def _describe_commit(commit: str | None, is_dirty: bool | None) -> str | None:
    return None if commit is None else f"{commit[:10]}{' with changes that were not committed' if is_dirty else ''}"
