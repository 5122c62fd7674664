"""The figures of a report, each with its title and a sentence on how to read it; or why it is not there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from lightningtune.errors import NoResultError
from lightningtune.report.html.results import ENOUGH, MOST_PARAMETERS, DrawableResults

if TYPE_CHECKING:
    import plotly.graph_objects as go

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportSection:
    """One figure of the page.

    Attributes:
        name: the fragment of its address.
        title: over it.
        label: what the page's contents call it; "" for the second metric's figure and on.
        reading: how to read it.
        width: pixels that it needs; a narrower screen scrolls.
        figure: as JSON that can stand in a page; "" where there is none.
        height: pixels that the figure takes.
        missing: why there is no figure.
    """

    name: str
    title: str
    label: str
    reading: str
    figure: str = ""
    missing: str = ""
    width: int = 0
    height: int = 0


def draw_sections(results: DrawableResults) -> list[ReportSection]:
    """Draw all figures of a study, those about the best trial first."""
    metrics = results.metrics
    wide = min(max(len(results.parameters), 1), MOST_PARAMETERS)
    drawn: list[ReportSection] = []

    def add(name: str, title: str, reading: str, draw: Callable[[], go.Figure], width: int = 0) -> None:
        drawn.append(_draw_section(name, title, title, reading, draw, width))

    def add_for_each_metric(
        name: str, title: str, reading: str, draw: Callable[[int], go.Figure], width: int = 0
    ) -> None:
        for index, metric in enumerate(metrics):
            whole_title = f"{title} of {metric}" if len(metrics) > 1 else title
            label = "" if index else title
            address = f"{name}-{index}" if index else name
            drawn.append(_draw_section(address, whole_title, label, reading, partial(draw, index), width))

    if len(metrics) > 1:
        text = "No trial is better than one of the front, in red, in every metric."
        add("front", "Pareto front", text, partial(_draw_front, results))
    text = "Each completed trial, and the best so far." if len(metrics) == 1 else "Each completed trial."
    if not all(trial.is_feasible for trial in results.trials):
        text += " Infeasible trials violate a constraint, and none of them is the best."
    add_for_each_metric("history", "History", text, results.plot_optimization_history)
    if len(metrics) == 1:
        text = "What each trial reported while it trained; a cross is where it was pruned."
        add("curves", "Learning curves", text, results.plot_intermediate_values)
    text = "How much of what separates the better trials from the others each parameter decides."
    add("importances", "Importances", text, partial(_draw_importances, results))
    which = _name_subset(results, MOST_PARAMETERS)
    through = f", through {which}" if which else ""
    text = f"Each line is a completed trial{through}: the scale at the side tells its value."
    add("parallel", "Parallel coordinates", text, results.plot_parallel_coordinate, 110 * (wide + 1))
    over = f"each of {which}" if which else "each parameter"
    text = f"The value over {over}; the scale at the side tells which trials came later."
    add_for_each_metric("slices", "Slices", text, results.plot_slice, 190 * wide)
    over = _name_subset(results, 2) or "the two parameters"
    text = f"The value over {over}, guessed between the points: the scale at the side tells it."
    add_for_each_metric("contours", "Contours", text, results.plot_contour)
    text = "When which trial ran, with as many lanes as ran at a time."
    if results.is_ours:
        text = "When which trial ran where. Grey is the time that it waited for its process and its data."
    add("timeline", "Timeline", text, results.plot_timeline)
    return drawn


def _draw_section(
    name: str, title: str, label: str, reading: str, draw: Callable[[], go.Figure], width: int
) -> ReportSection:
    section = partial(ReportSection, name, title, label, reading)
    try:
        figure = draw()
    except NoResultError as reason:
        return section(missing=str(reason))
    except Exception as error:  # of Optuna or Plotly, at values nobody has thought of: the page has all the rest
        log.debug("The figure '%s' could not be drawn", name, exc_info=True)
        return section(missing=f"It could not be drawn: {type(error).__name__}: {error}")
    return section(figure=encode_figure(figure), width=width, height=int(figure.layout.height))


def encode_figure(figure: go.Figure) -> str:
    """Return a figure as JSON that ends no script element, whatever its names are. As everywhere, NaN is null in it."""
    text: str = figure.to_json()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _draw_front(results: DrawableResults) -> go.Figure:
    if len(results.metrics) > 2:  # a figure in three dimensions needs what the page forbids: to make code
        raise NoResultError(
            "Only two metrics can be drawn here. Parallel coordinates show which trials are better than which, and "
            "results().plot_pareto_front() draws three in a notebook."
        )
    return results.plot_pareto_front()


def _draw_importances(results: DrawableResults) -> go.Figure:
    if not results.has_ranking:
        complete = results.counts.get("complete", 0)
        raise NoResultError(
            f"Which parameter decides can be said from {ENOUGH} completed trials on; there are {complete}."
        )
    return results.plot_param_importances()


def _name_subset(results: DrawableResults, most: int) -> str:
    """Say which parameters are drawn where at most so many are; "" where those are all."""
    count = len({name for trial in results.trials if trial.state == "complete" for name in trial.params})
    if count <= most:
        return ""
    if not results.has_ranking:
        return f"the first {most} of {count} parameters"
    for_metric = f" for {results.metrics[0]}" if len(results.metrics) > 1 else ""
    return f"the {most} most important of {count} parameters{for_metric}"
