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
    """One figure of the page."""

    name: str  # the fragment of its address
    title: str
    label: str  # in the page's contents; "" for the second metric's figure and on
    reading: str  # how to read the figure
    width: int  # pixels that it needs; a narrower screen scrolls
    figure: str = ""  # JSON that can stand in a page
    height: int = 0  # pixels
    missing: str = ""  # why there is no figure


def draw_sections(results: DrawableResults) -> list[ReportSection]:
    """Draw all figures of a study, those about the best trial first."""
    sections: list[ReportSection] = []
    metrics = results.metrics
    columns = min(max(len(results.parameters), 1), MOST_PARAMETERS)

    def add(name: str, title: str, reading: str, draw: Callable[[], go.Figure], width: int = 0) -> None:
        sections.append(_draw_section(name, title, title, reading, width, draw))

    def add_each(name: str, title: str, reading: str, draw: Callable[[int], go.Figure], width: int = 0) -> None:
        for index, metric in enumerate(metrics):
            own_name, label = (f"{name}-{index}", "") if index else (name, title)
            own_title = f"{title} of {metric}" if len(metrics) > 1 else title
            sections.append(_draw_section(own_name, own_title, label, reading, width, partial(draw, index)))

    if len(metrics) > 1:
        text = "No trial is better than one of the front, in red, in every metric."
        add("front", "Pareto front", text, partial(_draw_front, results))
    text = "Each completed trial, and the best so far." if len(metrics) == 1 else "Each completed trial."
    if not all(trial.is_feasible for trial in results.trials):
        text += " Infeasible trials violate a constraint, and none of them is the best."
    add_each("history", "History", text, results.plot_optimization_history)
    if len(metrics) == 1:
        text = "What each trial reported while it trained; a cross is where it was pruned."
        add("curves", "Learning curves", text, results.plot_intermediate_values)
    text = "How much of what separates the better trials from the others each parameter decides."
    add("importances", "Importances", text, partial(_draw_importances, results))
    which = _name_subset(results, MOST_PARAMETERS)
    text = f"Each line is a completed trial{which and f', through {which}'}: the scale at the side tells its value."
    add("parallel", "Parallel coordinates", text, results.plot_parallel_coordinate, 110 * (columns + 1))
    over = f"each of {which}" if which else "each parameter"
    text = f"The value over {over}; the scale at the side tells which trials came later."
    add_each("slices", "Slices", text, results.plot_slice, 190 * columns)
    over = _name_subset(results, 2) or "the two parameters"
    text = f"The value over {over}, guessed between the points: the scale at the side tells it."
    add_each("contours", "Contours", text, results.plot_contour)
    text = "When which trial ran, with as many lanes as ran at a time."
    if results.is_ours:
        text = "When which trial ran where. Grey is the time that it waited for its process and its data."
    add("timeline", "Timeline", text, results.plot_timeline)
    return sections


def _draw_section(
    name: str, title: str, label: str, reading: str, width: int, draw: Callable[[], go.Figure]
) -> ReportSection:
    section = partial(ReportSection, name, title, label, reading, width)
    try:
        figure = draw()
    except NoResultError as reason:
        return section(missing=str(reason))
    except Exception as error:  # of Optuna or Plotly, at values nobody has thought of: the page has all the rest
        log.debug("The figure '%s' could not be drawn", name, exc_info=True)
        return section(missing=f"It could not be drawn: {type(error).__name__}: {error}")
    return section(encode_figure(figure), int(figure.layout.height))


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
    complete = results.counts.get("complete", 0)
    if complete < ENOUGH:
        raise NoResultError(
            f"Which parameter decides can be said from {ENOUGH} completed trials on; there are {complete}."
        )
    return results.plot_param_importances()


def _name_subset(results: DrawableResults, most: int) -> str:
    """Say which parameters are drawn where at most so many are; "" where those are all."""
    complete = [trial for trial in results.trials if trial.state == "complete"]
    count = len({name for trial in complete for name in trial.params})
    if count <= most:
        return ""
    if len(complete) < ENOUGH:
        return f"the first {most} of {count} parameters"
    for_metric = f" for {results.metrics[0]}" if len(results.metrics) > 1 else ""
    return f"the {most} most important of {count} parameters{for_metric}"
