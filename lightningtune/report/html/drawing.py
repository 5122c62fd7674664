"""How figures look: one style for Optuna's and for our own, on light and on dark paper."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from lightningtune.report.html.grid import binned
from lightningtune.report.html.labels import by_axis, end_of, middle_out, plain, thinned, tick_choices
from lightningtune.report.html.timeline import Bar, Lane

if TYPE_CHECKING:
    import plotly.graph_objects as go

# each is readable on white and on near black
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
SCALE = ["#f2b134", "#7fbf7b", "#2fa3a0", "#3673b5", "#6f52b8"]
"""From worse to better; no end of it is lost on white or on near black."""
_AXIS = {
    "gridcolor": "rgba(128,136,148,0.18)",
    "zeroline": False,
    "linecolor": "rgba(128,136,148,0.5)",
    "automargin": True,
    "title": {"standoff": 8},
    "exponentformat": "power",
}
_INFEASIBLE = "infeasible"
_UNITS = ((86400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))


def curves(trials: Sequence[FrozenTrial], best: Collection[int], metric: str) -> go.Figure:
    """Draw learning curves: one trace for each kind of ending, so that hundreds of trials stay quick.

    Args:
        trials: of a study.
        best: the numbers of the best.
        metric: what was reported.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    kinds = {"fail": "failed", "running": "running", "pruned": "pruned", "complete": "complete", "best": "best"}
    ended: dict[str, list[Any]] = {"x": [], "y": [], "text": []}
    for kind, name in kinds.items():
        x: list[float | None] = []
        y: list[float | None] = []
        text: list[str | None] = []
        for trial in trials:
            state = "best" if trial.number in best else trial.state.name.lower()
            points = [(s, v) for s, v in sorted(trial.intermediate_values.items()) if math.isfinite(v)]
            if state != kind or not points:
                continue
            x += [step for step, _ in points] + [None]
            y += [value for _, value in points] + [None]
            text += [f"trial {trial.number}"] * len(points) + [None]
            if kind == "pruned":
                ended["x"].append(points[-1][0])
                ended["y"].append(points[-1][1])
                ended["text"].append(f"trial {trial.number} pruned")
        if x:
            width, opacity = (2.5, 1.0) if kind == "best" else (1.2, 0.45)
            figure.add_scatter(
                x=x,
                y=y,
                text=text,
                name=name,
                mode="lines+markers" if len(x) < 3 * len(trials) else "lines",
                marker={"size": 4},
                opacity=opacity,
                line={"color": COLORS[kind], "width": width},
                hovertemplate="%{text}<br>%{x}: %{y:.4g}<extra></extra>",
            )
    if ended["x"]:
        marker = {"symbol": "x-thin", "size": 7, "line": {"color": COLORS["pruned"], "width": 1.5}}
        hover = "%{text} at %{x}: %{y:.4g}<extra></extra>"
        figure.add_scatter(**ended, mode="markers", marker=marker, name="where pruned", hovertemplate=hover)
    figure.update_layout(xaxis_title="validation", yaxis_title=metric)
    styled(figure)
    return figure.update_layout(margin={"t": 48})  # a phone needs two lines of legend


def timeline(lanes: Sequence[Lane]) -> go.Figure:
    """Draw bars in their lanes; each begins with the time that it waited."""
    import plotly.graph_objects as go

    figure = go.Figure()
    bars = [(place, bar) for place, lane in enumerate(lanes) for bar in lane.bars]
    names = {"complete": "complete", "pruned": "pruned", "fail": "failed", "interrupted": "interrupted"}
    names |= {"running": "running"}

    def add(kind: str, name: str, chosen: list[tuple[int, Bar]], waiting: bool) -> None:
        figure.add_bar(
            orientation="h",
            y=[place for place, _ in chosen],
            base=[(bar.start.timestamp() - origin + (0 if waiting else bar.waiting)) / size for _, bar in chosen],
            x=[(bar.waiting if waiting else bar.training) / size for _, bar in chosen],
            name=name,
            customdata=[[bar.number, bar.outcome, bar.waiting if waiting else bar.training] for _, bar in chosen],
            marker={"color": COLORS[kind], "line": {"width": 0}},
            width=0.7,
            hovertemplate="trial %{customdata[0]}, %{customdata[1]}<br>"
            f"{name if waiting else 'trained'} %{{customdata[2]:.3g}} s<extra></extra>",
        )

    origin = min(bar.start.timestamp() for _, bar in bars)
    whole = max(bar.end.timestamp() for _, bar in bars) - origin
    size, unit = next(pair for pair in _UNITS if whole >= 2 * pair[0] or pair[0] == 1)
    add("waiting", "waiting", [pair for pair in bars if pair[1].waiting > 0], waiting=True)
    for kind, name in names.items():
        chosen = [pair for pair in bars if pair[1].outcome == kind]
        if chosen:
            add(kind, name, chosen, waiting=False)
    figure.update_layout(
        barmode="overlay",
        xaxis_title=f"{unit} since the first trial began",
        yaxis={
            "tickvals": [*range(len(lanes))],
            "ticktext": [lane.name for lane in lanes],  # one more than once, where trials shared a place
            "range": [len(lanes) - 0.5, -0.5],
            "showgrid": False,
        },
        height=max(180, 110 + 26 * len(lanes)),
    )
    return styled(figure)


@functools.cache
def _paper() -> go.layout.Template:
    """Return the style, as a template: setting the same on each axis of each figure takes five times as long."""
    import plotly.graph_objects as go

    layout = {
        "margin": {"l": 64, "r": 16, "t": 34, "b": 48},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#9aa5b1", "activecolor": "#3d8fd1"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": "#4b5563"},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        "hoverlabel": {"font": {"family": "ui-monospace, Menlo, Consolas, monospace", "size": 11}},
        "colorway": [COLORS[name] for name in ("complete", "best", "pruned", "interrupted", "running", "baseline")],
        "xaxis": _AXIS,
        "yaxis": _AXIS,
    }
    return go.layout.Template(layout=layout)


def styled(figure: go.Figure) -> go.Figure:
    """Put a figure on our paper: no title of its own, thin lines, the legend above."""
    height = figure.layout.height or 360
    return figure.update_layout(template=_paper(), title=None, plot_bgcolor=None, height=height)


def styled_history(figure: go.Figure) -> go.Figure:
    """Tell the trials from the best so far."""
    _name_infeasible(figure)
    for trace in figure.data:
        if trace.mode == "markers":
            color = COLORS["waiting" if trace.name == _INFEASIBLE else "complete"]
            trace.marker = {"color": color, "size": 6, "opacity": 0.75}
        else:
            trace.name = "best so far"
            trace.line = {"color": COLORS["best"], "width": 2.5, "shape": "hv"}
    return styled(_without_empty(figure))


def styled_importances(several: Sequence[go.Figure], metrics: Sequence[str]) -> go.Figure:
    """Draw the bars of each metric side by side; their number decides the height.

    Args:
        several: Optuna's figure of each metric.
        metrics: their names.
    """
    colors = [COLORS[name] for name in ("complete", "pruned", "best")]
    figure, others = several[0], several[1:]
    figure.add_traces([trace for other in others for trace in other.data])
    for index, (trace, metric) in enumerate(zip(figure.data, metrics, strict=False)):
        trace.update(name=metric, marker={"color": colors[index % len(colors)]})
    count = sum(len(trace.y) for trace in figure.data)
    figure.update_layout(height=max(190, 110 + 26 * count), bargap=0.35, xaxis_title="importance")
    figure.update_layout(showlegend=len(figure.data) > 1)
    styled(figure)
    return figure.update_yaxes(title=None, showgrid=False)


def styled_parallel(figure: go.Figure, names: Sequence[str]) -> go.Figure:
    """Exchange the lines' colours too, which tell their values, or their ranks where there are several metrics.

    Args:
        figure: Optuna's.
        names: of its axes, of which it shows the beginnings only.
    """
    if figure.data[0].type == "parcoords":  # Optuna 4 draws one trace, with its own axes and lines
        return styled(figure)
    figure = styled(_recolored(figure))
    figure.update_annotations(name="value")  # the page lays paper under them, so that they can be read
    for trace in figure.data:
        if trace.mode == "lines" and trace.name:  # of the legend
            trace.update(name=trace.name.lower(), line={"color": COLORS["waiting"]})
        elif trace.mode == "lines":
            trace.line.color = _ours(trace.line.color)
    ends = [end_of(name, 18) for name in names]
    figure.update_layout(margin={"l": 40, "r": 24, "t": 24, "b": 56}, height=340, xaxis={"ticktext": ends})
    figure.layout.annotations = [value for axis in by_axis(figure) for value in thinned(axis, 15)]
    return figure.for_each_annotation(lambda value: value.update(text=middle_out(value.text)))


def styled_slices(figure: go.Figure) -> go.Figure:
    """Colour the points by the trial's number."""
    figure = _recolored(_name_infeasible(figure))
    for trace in figure.data:
        trace.marker.line = {"width": 0}
        trace.marker.size = 6
        if trace.name == _INFEASIBLE:
            trace.marker.color = COLORS["waiting"]
    figure.update_layout(width=None, height=300)
    figure = styled(figure)
    figure.update_xaxes(tickangle=0, nticks=4)
    figure.for_each_xaxis(lambda axis: axis.title.update(text=end_of(axis.title.text or "")))
    named = {axis.plotly_name.replace("axis", ""): axis for axis in figure.select_xaxes({"type": "category"})}
    for axis in named.values():
        tick_choices(axis, [(choice, plain(choice)) for choice in axis.categoryarray], room=130, most=10)
    for trace in figure.data:
        if (trace.xaxis or "x") in named:
            trace.update(text=[plain(choice) for choice in trace.x], hovertemplate="(%{text}, %{y})<extra></extra>")
    return figure.update_layout(height=360) if any(axis.tickangle for axis in named.values()) else figure


def styled_contours(figure: go.Figure, direction: str) -> go.Figure:
    """Make the cells fewer, and the trials' points small.

    Args:
        figure: Optuna's.
        direction: which values are better; Optuna does not look at it where there are several metrics.
    """
    import plotly.graph_objects as go

    contour = figure.data[0]
    x, y, z = binned(contour.x, contour.y, contour.z, (figure.layout.xaxis.type, figure.layout.yaxis.type))
    contour.update(x=x, y=y, z=z, reversescale=direction == "minimize")
    _name_infeasible(figure)
    for trace in figure.data:
        if isinstance(trace, go.Scatter):
            color = COLORS["waiting"] if trace.name == _INFEASIBLE else "rgba(20,24,32,0.75)"
            trace.marker = {"color": color, "size": 4, "line": {"width": 0.8, "color": "rgba(255,255,255,0.7)"}}
    for axis, places, room in ((figure.layout.xaxis, x, 260), (figure.layout.yaxis, y, 10_000)):
        if axis.type == "category":
            tick_choices(axis, [(choice, choice) for choice in places], room, most=20)
    figure.update_layout(height=440)
    return styled(_recolored(figure))


def styled_front(figure: go.Figure) -> go.Figure:
    """Tell the front, which Optuna draws last, from the others."""
    for trace in figure.data:
        kind, name, size = "complete", "other trials", 6
        if trace is figure.data[-1]:
            kind, name, size = "best", "Pareto front", 9
        elif "Infeasible" in trace.hovertemplate:
            kind, name = "waiting", _INFEASIBLE
        trace.update(name=name, showlegend=True)
        trace.marker = {"color": COLORS[kind], "size": size, "opacity": 0.85}
    return styled(_without_empty(figure))


def _without_empty(figure: go.Figure) -> go.Figure:
    """Leave out what would only stand in the legend."""
    figure.data = tuple(trace for trace in figure.data if len(trace.x or ()))
    return figure


def _recolored(figure: go.Figure) -> go.Figure:
    """Exchange Optuna's colour scale, one end of which is lost on any paper, for ours."""
    scale = [[index / (len(SCALE) - 1), color] for index, color in enumerate(SCALE)]
    bar = {"thickness": 10, "outlinewidth": 0, "len": 0.9, "xpad": 10, "title": {"side": "right"}}
    for trace in figure.data:
        if trace.type == "contour":
            trace.update(colorscale=scale, colorbar=bar, line={"width": 0.4})
        elif trace.marker.colorscale is not None:
            trace.marker.update(colorscale=scale, colorbar=bar)
    return figure


@functools.cache
def _ours(color: str) -> str:
    """Return what stands in our scale where a colour stands in Optuna's; both lead to what is better."""
    from plotly.colors import sample_colorscale, unlabel_rgb

    own = unlabel_rgb(color)
    nearest = min(_optunas(), key=lambda place: math.dist(_optunas()[place], own))
    found: str = sample_colorscale(SCALE, [nearest])[0]
    return found


@functools.cache
def _optunas() -> Mapping[float, tuple[float, ...]]:
    """Return the colours of Optuna's scale, by their places from 0 to 1."""
    from plotly.colors import sample_colorscale, sequential, unlabel_rgb

    places = [step / 100 for step in range(101)]
    return dict(zip(places, map(unlabel_rgb, sample_colorscale(sequential.Blues, places)), strict=True))


def _name_infeasible(figure: go.Figure) -> go.Figure:
    """Let the legend tell which points violate a constraint; Optuna leaves it to their colour."""
    found = [trace for trace in figure.data if "Infeasible" in (trace.name or "") and len(trace.x or ())]
    for index, trace in enumerate(found):
        trace.update(name=_INFEASIBLE, legendgroup=_INFEASIBLE, showlegend=index == 0)
    return figure.update_layout(showlegend=True) if found else figure
