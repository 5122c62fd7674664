"""The figures of a study, one by one: Optuna's own, in one style, and those that Optuna does not draw."""

from __future__ import annotations

import contextlib
import datetime
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna import visualization
from optuna.trial import FrozenTrial, TrialState

from lightningtune.errors import ConfigurationError, NoResultError, did_you_mean
from lightningtune.report.html import drawing
from lightningtune.report.html.drawing import COLORS
from lightningtune.report.html.record import Record, escaped, parameters_of
from lightningtune.report.html.timeline import lanes_of
from lightningtune.study.opening import quiet_optuna
from lightningtune.study.results import is_feasible
from lightningtune.wording import counted

if TYPE_CHECKING:
    import plotly.graph_objects as go

MANY = 8
"""More parameters than that make slices that nobody can read: the most important are shown."""
ENOUGH = 10
"""Of fewer completed trials nothing can be said about which parameter decides, and the order is the search space's."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let Optuna draw without a word: what cannot be drawn is said by us."""
    with quiet_optuna(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def with_infeasible_choices(figure: go.Figure, trials: Sequence[FrozenTrial], objective: int) -> go.Figure:
    """Draw the trials that violate a constraint over choices, too; Optuna's slices draw them over numbers only.

    Args:
        figure: Optuna's slices.
        trials: those that violate one.
        objective: the index of the values that are drawn.
    """
    for axis in figure.select_xaxes({"type": "category"}):
        place = axis.plotly_name.replace("axis", "")
        drawn = [trace for trace in figure.data if (trace.xaxis or "x") == place]
        over = [trial for trial in trials if axis.title.text in trial.params]
        if over and len(drawn) == 1:
            figure.add_scatter(
                x=[repr(trial.params[axis.title.text]) for trial in over],
                y=[trial.values[objective] for trial in over],
                mode="markers",
                name="Infeasible Trial",
                xaxis=place,
                yaxis=drawn[0].yaxis,
            )
    return figure


class Figures:
    """Draws a study; each method returns a figure of Plotly's.

    Args:
        record: the study.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._metrics = [escaped(metric) for metric in record.results.metrics]
        self._important: list[str] | None = None

    def among(self, most: int) -> str:
        """Say which parameters are drawn where no more than so many are; "" where those are all.

        Args:
            most: how many.
        """
        count = len(parameters_of(self._complete()))
        if count <= most:
            return ""
        if len(self._complete()) < ENOUGH:
            return f"the first {most} of {count} parameters"
        of = f" for {self._record.results.metrics[0]}" if len(self._metrics) > 1 else ""
        return f"the {most} most important of {count} parameters{of}"

    @_quiet()
    def history(self, objective: int | str = 0) -> go.Figure:
        """Draw each trial's value, the best so far, and the untuned defaults.

        Args:
            objective: which metric, by its name or its index, where the study has several.

        Raises:
            NoResultError: when no trial completed.
            ConfigurationError: when there is no such metric.
        """
        objective = self._index(objective)
        self._need(1, "A history")
        figure = visualization.plot_optimization_history(self._record.study, **self._target(objective))
        baseline = self._record.results.baseline
        if baseline is not None and baseline.values is not None and baseline.state == "complete":
            figure.add_hline(
                baseline.values[objective],
                line={"color": COLORS["baseline"], "width": 1.5, "dash": "dash"},
                annotation={"text": "untuned defaults", "font": {"color": COLORS["baseline"]}, "xanchor": "right"},
            )
        return drawing.styled_history(figure)

    def curves(self) -> go.Figure:
        """Draw the learning curves of all trials, and where they were pruned.

        Raises:
            NoResultError: when no trial has reported a value while it trained.
        """
        if not any(trial.intermediate_values for trial in self._record.trials):
            why = "Optuna keeps none of several objectives." if len(self._metrics) > 1 else "No trial reported any."
            raise NoResultError(f"There are no learning curves. {why}")
        return drawing.curves(self._record.trials, set(self._record.results.best_numbers), self._metrics[0])

    @_quiet()
    def importances(self) -> go.Figure:
        """Draw how much each parameter decides, by Optuna's default measure, for each metric.

        Raises:
            NoResultError: when fewer than two trials completed, or no parameter varies.
        """
        self._need(2, "An importance")
        several = [
            visualization.plot_param_importances(self._record.study, target=self._lower_is_better(index))
            for index in range(len(self._metrics))
        ]
        if not any(len(trace.y or ()) for figure in several for trace in figure.data):
            raise NoResultError("No parameter varies: there is nothing to compare.")
        return drawing.styled_importances(several, self._metrics)

    @_quiet()
    def parallel_coordinates(self) -> go.Figure:
        """Draw each completed trial as a line through its parameters; of more than eight through the most important.

        Raises:
            NoResultError: when no trial completed, or there are no parameters.
        """
        self._need(1, "Parallel coordinates")
        if len(self._metrics) > 1 and int(optuna.__version__.partition(".")[0]) < 5:
            raise NoResultError(f"Parallel coordinates of several metrics need Optuna 5; this is {optuna.__version__}.")
        target: dict[str, Any] = {"target_name": self._metrics[0]} if len(self._metrics) == 1 else {}
        params = sorted(escaped(name) for name in self._ranked()[:MANY])
        figure = visualization.plot_parallel_coordinate(self._record.study, params=params, **target)
        return drawing.styled_parallel(figure, [*self._metrics, *params])

    @_quiet()
    def slices(self, objective: int | str = 0) -> go.Figure:
        """Draw the value over each parameter; of more than eight over the most important.

        Args:
            objective: which metric, by its name or its index, where the study has several.

        Raises:
            NoResultError: when no trial completed, or there are no parameters.
            ConfigurationError: when there is no such metric.
        """
        objective = self._index(objective)
        self._need(1, "A slice")
        params = [escaped(name) for name in self._ranked()[:MANY]]
        figure = visualization.plot_slice(self._record.study, params=params, **self._target(objective))
        complete = self._record.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        infeasible = [trial for trial in complete if not is_feasible(trial)]
        return drawing.styled_slices(with_infeasible_choices(figure, infeasible, objective))

    @_quiet()
    def contours(self, objective: int | str = 0) -> go.Figure:
        """Draw the value over the two most important parameters.

        Args:
            objective: which metric, by its name or its index, where the study has several.

        Raises:
            NoResultError: when fewer than two trials completed, or two parameters were tried.
            ConfigurationError: when there is no such metric.
        """
        objective = self._index(objective)
        self._need(2, "A contour")
        params = [escaped(name) for name in self._ranked()[:2]]
        if len(params) < 2:
            raise NoResultError("Contours need two parameters that vary.")
        figure = visualization.plot_contour(self._record.study, params=params, **self._target(objective))
        if not figure.data or figure.data[0].z is None:
            raise NoResultError(f"No trial has both '{params[0]}' and '{params[1]}', or one of them never varies.")
        return drawing.styled_contours(figure, self._record.results.directions[objective])

    @_quiet()
    def pareto_front(self) -> go.Figure:
        """Draw the values of a study with two or three objectives against each other.

        Raises:
            NoResultError: when it has another number, or no trial completed.
        """
        self._need(1, "A Pareto front")
        if len(self._metrics) not in (2, 3):
            raise NoResultError(
                f"A Pareto front of {counted(len(self._metrics), 'objective')} cannot be drawn; of 2 or 3 it can."
            )
        figure = visualization.plot_pareto_front(self._record.study, target_names=self._metrics)
        return drawing.styled_front(figure)

    def timeline(self) -> go.Figure:
        """Draw when which trial ran where, and when it waited.

        Raises:
            NoResultError: when no trial has begun.
        """
        lanes = lanes_of(self._record, datetime.datetime.now())
        if not lanes:
            raise NoResultError("No trial has begun.")
        return drawing.timeline(lanes)

    def _ranked(self) -> list[str]:
        """Return the parameters, the most important first where that can be told."""
        if self._important is None:
            names = parameters_of(self._complete())
            if not names:
                raise NoResultError("The trials have no parameters.")
            if len(names) > 1 and len(self._complete()) >= ENOUGH:
                from optuna.importance import get_param_importances  # slow to import: it may bring scikit-learn

                by_name = get_param_importances(self._record.study, target=self._lower_is_better(0))
                names.sort(key=lambda name: -by_name.get(escaped(name), 0.0))
            self._important = names
        return self._important

    def _complete(self) -> list[FrozenTrial]:
        return [trial for trial in self._record.trials if trial.state is TrialState.COMPLETE]

    def _need(self, count: int, what: str) -> None:
        completed = len(self._complete())
        if completed < count:
            needed = "a completed trial" if count == 1 else f"{count} completed trials"
            raise NoResultError(
                f"{what} needs {needed}; there {'is' if completed == 1 else 'are'} {completed or 'none'}."
            )

    def _lower_is_better(self, objective: int) -> Callable[[FrozenTrial], float]:
        """Return what Optuna takes for a target that is better where it is lower, whatever the study's direction is."""
        sign = 1 if self._record.results.directions[objective] == "minimize" else -1
        return lambda trial: sign * trial.values[objective]

    def _index(self, objective: int | str) -> int:
        metrics = self._record.results.metrics
        if isinstance(objective, str) and objective in metrics:
            return metrics.index(objective)
        if isinstance(objective, int) and not isinstance(objective, bool) and 0 <= objective < len(metrics):
            return objective
        hint = did_you_mean(objective, metrics) if isinstance(objective, str) else ""
        known = ", ".join(f"{index} '{metric}'" for index, metric in enumerate(metrics))
        raise ConfigurationError(
            f"objective must be a metric's name or its index, but got {objective!r}.{hint} Metrics: {known}."
        )

    def _target(self, objective: int) -> dict[str, Any]:
        target = {} if len(self._metrics) == 1 else {"target": lambda trial: trial.values[objective]}
        return {**target, "target_name": self._metrics[objective]}
