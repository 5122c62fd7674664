"""How figures look: one template, the marks that carry a meaning, and the figures that Optuna does not draw."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from lightningtune.report.html.timeline import Bar, Lane

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLORS = {
    "complete": "#3d8fd1",
    "best": "#12a37a",
    "pruned": "#e0993a",
    "fail": "#d9534f",
    "interrupted": "#9b7fd4",
    "running": "#37b3c4",
    "waiting": "#9aa5b1",
    "baseline": "#c2569b",
}
_OUTCOMES = ("complete", "pruned", "fail", "interrupted", "running")
_NAMES = {"fail": "failed"}
_UNITS = ((86400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))


@functools.cache
def _template() -> go.layout.Template:
    import plotly.graph_objects as go

    axis = {
        "gridcolor": "#ffffff",
        "zeroline": False,
        "automargin": True,
        "title": {"standoff": 8},
        "exponentformat": "power",
        "minexponent": 6,
    }
    layout = {
        "margin": {"l": 64, "r": 16, "t": 34, "b": 48},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#9aa5b1", "activecolor": "#3d8fd1"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "#edf0f4",  # both ends of Optuna's colour scales can be seen on it
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": "#4b5563"},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        "hoverlabel": {"font": {"family": "ui-monospace, Menlo, Consolas, monospace", "size": 11}},
        "colorway": [COLORS[name] for name in ("complete", "best", "pruned", "interrupted", "running", "baseline")],
        "xaxis": axis,
        "yaxis": axis,
    }
    return go.layout.Template(layout=layout)


def style(figure: go.Figure, height: int = 360) -> go.Figure:
    """Give a figure our template, no title of its own, and a legend that names trials that violate a constraint."""
    infeasible = [trace for trace in figure.data if "Infeasible" in (trace.name or trace.hovertemplate or "")]
    infeasible = [trace for trace in infeasible if len(trace.x or ())]
    for index, trace in enumerate(infeasible):
        trace.update(name="Infeasible Trial", legendgroup="infeasible", showlegend=index == 0)
    if infeasible:
        figure.update_layout(showlegend=True)
    for axis in (*figure.select_xaxes({"type": "log"}), *figure.select_yaxes({"type": "log"})):
        _label_log_axis(figure, axis)
    return figure.update_layout(template=_template(), title=None, plot_bgcolor=None, height=height)


def _label_log_axis(figure: go.Figure, axis: Any) -> None:
    """Write powers of ten, or 1, 2 and 5 times them where the axis is short. Plotly writes only digits in between."""
    letter, name = axis.plotly_name[0], axis.plotly_name.replace("axis", "")
    values = [value for trace in figure.data if (trace[f"{letter}axis"] or letter) == name for value in trace[letter]]
    is_short = bool(values) and max(values) < 30 * min(values)
    axis.update(tickformat="~g", dtick="D2" if is_short else 1)


def mark_baseline(figure: go.Figure, value: float) -> None:
    """Draw the value of the untuned defaults across a figure."""
    figure.add_hline(
        value,
        line={"color": COLORS["baseline"], "width": 1.5, "dash": "dash"},
        annotation={"text": "untuned defaults", "font": {"color": COLORS["baseline"]}, "xanchor": "right"},
    )


def style_contour(figure: go.Figure, direction: str) -> go.Figure:
    """Style a contour."""
    # Optuna does not look at the direction where there are several metrics
    figure.data[0].update(reversescale=direction == "minimize", line={"width": 0.4})
    for trace in figure.data[1:]:
        trace.update(marker={"size": 4, "line": {"width": 0.8}})
    return style(figure, 440)


def draw_importances(importances: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """Draw the importance of each parameter, for each metric; the number of bars decides the height."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for metric, by_parameter in importances.items():
        pairs = sorted(by_parameter.items(), key=lambda pair: pair[1])
        figure.add_bar(
            orientation="h",
            x=[importance for _, importance in pairs],
            y=[name for name, _ in pairs],
            name=metric,
            texttemplate="%{x:.2f}",
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        )
    figure.update_layout(xaxis_title="importance", yaxis_showgrid=False, bargap=0.35, showlegend=len(importances) > 1)
    return style(figure, max(190, 110 + 26 * sum(map(len, importances.values()))))


def draw_curves(trials: Sequence[FrozenTrial], best: Collection[int], metric: str) -> go.Figure:
    """Draw learning curves: one trace for each kind of ending, so that hundreds of trials stay quick."""
    import plotly.graph_objects as go

    figure = go.Figure()
    by_ending: dict[str, list[FrozenTrial]] = {"fail": [], "running": [], "pruned": [], "complete": [], "best": []}
    for trial in trials:
        if any(map(math.isfinite, trial.intermediate_values.values())):
            by_ending["best" if trial.number in best else trial.state.name.lower()].append(trial)
    pruned_at = []
    for ending, alike in by_ending.items():
        points: list[tuple[Any, Any, Any]] = []
        for trial in alike:
            points += [(s, v, trial.number) for s, v in sorted(trial.intermediate_values.items()) if math.isfinite(v)]
            if ending == "pruned":
                pruned_at.append(points[-1])
            points.append((None, None, None))  # a gap before the next trial
        if points:
            x, y, text = zip(*points, strict=True)
            figure.add_scatter(
                x=x,
                y=y,
                text=text,
                name=_NAMES.get(ending, ending),
                mode="lines+markers" if len(x) < 3 * len(trials) else "lines",  # a trial of one point has no line
                marker={"size": 4},
                opacity=1.0 if ending == "best" else 0.45,
                line={"color": COLORS[ending], "width": 2.5 if ending == "best" else 1.2},
                hovertemplate="trial %{text}<br>%{x}: %{y:.4g}<extra></extra>",
            )
    if pruned_at:
        x, y, text = zip(*pruned_at, strict=True)
        marker = {"symbol": "x-thin", "size": 7, "line": {"color": COLORS["pruned"], "width": 1.5}}
        hover = "trial %{text} pruned at %{x}: %{y:.4g}<extra></extra>"
        figure.add_scatter(x=x, y=y, text=text, mode="markers", marker=marker, name="where pruned", hovertemplate=hover)
    figure.update_layout(xaxis_title="validation", yaxis_title=metric)
    return style(figure).update_layout(margin={"t": 48})  # a phone needs two lines of legend


def draw_timeline(lanes: Sequence[Lane], drawn: Collection[int]) -> go.Figure:
    """Draw bars in their lanes, of these trials; each begins with the time that it waited."""
    import plotly.graph_objects as go

    every_bar = [bar for lane in lanes for bar in lane.bars]
    origin = min(bar.start for bar in every_bar)
    whole = (max(bar.end for bar in every_bar) - origin).total_seconds()
    size, unit = next(pair for pair in _UNITS if whole >= 2 * pair[0] or pair[0] == 1)
    # by color: the lane, the trial, the start, the length
    pieces: dict[str, list[tuple[int, Bar, float, float]]] = {kind: [] for kind in ("waiting", *_OUTCOMES)}
    for place, lane in enumerate(lanes):
        for bar in lane.bars:
            if bar.number in drawn:
                start = (bar.start - origin).total_seconds()
                if bar.waiting > 0:
                    pieces["waiting"].append((place, bar, start, bar.waiting))
                pieces[bar.outcome].append((place, bar, start + bar.waiting, bar.training))
    figure = go.Figure()
    for kind, alike in pieces.items():
        if alike:
            figure.add_bar(
                orientation="h",
                y=[place for place, _, _, _ in alike],
                base=[start / size for _, _, start, _ in alike],
                x=[length / size for _, _, _, length in alike],
                name=_NAMES.get(kind, kind),
                customdata=[[bar.number, bar.outcome, length] for _, bar, _, length in alike],
                marker={"color": COLORS[kind], "line": {"width": 0}},
                width=0.7,
                hovertemplate="trial %{customdata[0]}, %{customdata[1]}<br>"
                f"{'waiting' if kind == 'waiting' else 'trained'} %{{customdata[2]:.3g}} s<extra></extra>",
            )
    figure.update_layout(
        barmode="overlay",
        xaxis_title=f"{unit} since the first trial began",
        yaxis={
            "tickvals": [*range(len(lanes))],
            "ticktext": [lane.name for lane in lanes],  # one more than once, where trials shared a place
            "range": [len(lanes) - 0.5, -0.5],
            "showgrid": False,
        },
    )
    return style(figure, max(180, 110 + 26 * len(lanes)))
