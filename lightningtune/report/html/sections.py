"""The figures of a report, each with its title and a sentence on how to read it; or why it is not there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from lightningtune.errors import NoResultError
from lightningtune.report.html.figures import ENOUGH, MANY, Figures
from lightningtune.report.html.record import Record, parameters_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Section:
    """One figure of the page.

    Attributes:
        name: what its address ends with.
        title: over it.
        reading: how to read it.
        figure: as JSON that can stand in a page; "" where there is none.
        missing: why there is none.
        width: pixels that it needs; a narrower screen scrolls.
        height: pixels that it takes.
    """

    name: str
    title: str
    reading: str
    figure: str = ""
    missing: str = ""
    width: int = 0
    height: int = 0

    @property
    def label(self) -> str:
        """What it is called in the page's contents; "" where the first of its kind stands there."""
        return "" if self.name[-1].isdigit() else self.title.partition(" of ")[0]


def sections_of(record: Record) -> list[Section]:
    """Draw all figures of a study.

    Args:
        record: the study.
    """
    return [_drawn(*planned) for planned in _planned(record)]


def safe_json(figure: go.Figure) -> str:
    """Return a figure as JSON that ends no script element, whatever its names are.

    Args:
        figure: of Plotly's.
    """
    text: str = figure.to_json()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _drawn(name: str, title: str, reading: str, draw: Callable[[], go.Figure], width: int) -> Section:
    try:
        figure = draw()
    except NoResultError as reason:
        return Section(name, title, reading, missing=str(reason))
    except Exception as error:  # of Optuna or Plotly, at values nobody has thought of: the page has all the rest
        log.debug("The figure '%s' could not be drawn", name, exc_info=True)
        return Section(name, title, reading, missing=f"It could not be drawn: {type(error).__name__}: {error}")
    return Section(name, title, reading, safe_json(figure), width=width, height=int(figure.layout.height))


def _front(record: Record, figures: Figures) -> go.Figure:
    if len(record.results.metrics) > 2:  # a figure in three dimensions needs what the page forbids: to make code
        raise NoResultError(
            "Only two metrics can be drawn here. Parallel coordinates show which trials are better than which, and "
            "results().plot_pareto_front() draws three in a notebook."
        )
    return figures.pareto_front()


def _importances(record: Record, figures: Figures) -> go.Figure:
    complete = record.results.counts.get("complete", 0)
    if complete < ENOUGH:
        raise NoResultError(
            f"Which parameter decides can be said from {ENOUGH} completed trials on; there are {complete}."
        )
    return figures.importances()


def _planned(record: Record) -> Iterator[tuple[str, str, str, Callable[[], go.Figure], int]]:
    """Yield what is drawn, in its order: the answer's neighbours first."""
    figures, metrics = Figures(record), record.results.metrics
    wide = min(max(len(parameters_of(record.trials)), 1), MANY)

    def each(
        name: str, title: str, reading: str, draw: Callable[[int], go.Figure], width: int
    ) -> Iterator[tuple[str, str, str, Callable[[], go.Figure], int]]:
        for index, metric in enumerate(metrics):
            of = f" of {metric}" if len(metrics) > 1 else ""
            yield f"{name}-{index}" if index else name, f"{title}{of}", reading, partial(draw, index), width

    if len(metrics) > 1:
        text = "No trial is better than one of the front in every metric."
        yield "front", "Pareto front", text, partial(_front, record, figures), 0
    text = "Each completed trial, and the best so far." if len(metrics) == 1 else "Each completed trial."
    if not all(trial.is_feasible for trial in record.results.trials):
        text += " Infeasible trials violate a constraint, and none of them is the best."
    yield from each("history", "History", text, figures.history, 0)
    if len(metrics) == 1:
        text = "What each trial reported while it trained; a cross is where it was pruned."
        yield "curves", "Learning curves", text, figures.curves, 0
    text = "How much of what separates the better trials from the others each parameter decides."
    yield "importances", "Importances", text, partial(_importances, record, figures), 0
    among = figures.among(MANY)
    text = f"Each line is a completed trial{f', through {among}' if among else ''}: purple is best, yellow worst."
    yield "parallel", "Parallel coordinates", text, figures.parallel_coordinates, 110 * (wide + 1)
    over = f"each of {among}" if among else "each parameter"
    text = f"The value over {over}; purple points are the latest trials."
    yield from each("slices", "Slices", text, figures.slices, 190 * wide)
    over = figures.among(2) or "the two parameters"
    text = f"The value over {over}: purple is best, and between the points it is a guess."
    yield from each("contours", "Contours", text, figures.contours, 0)
    text = "When which trial ran, with as many lanes as ran at a time."
    if record.is_ours:
        text = "When which trial ran where. Grey is the time that it waited for its process and its data."
    yield "timeline", "Timeline", text, figures.timeline, 0
