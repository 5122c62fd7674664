"""What a study found, as data that can be drawn: what `OptunaDrivenOptimizer.results` returns.

Optuna draws from a study, so the trials are copied into one in memory. Its names are short and escaped, for Plotly
reads HTML in them. Of a large study, only the best trials and a sample are copied.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import html
import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from lightningtune.errors import ConfigurationError, NoResultError, did_you_mean
from lightningtune.report.html import drawing
from lightningtune.report.html.timeline import find_lanes
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.opening import quiet_optuna
from lightningtune.study.progress import metric_names
from lightningtune.study.reporter import REASON, SEED, STUDY_FILE
from lightningtune.study.results import StudyResults, collect_results
from lightningtune.study.tally import get_constraint_attributes
from lightningtune.wording import counted, short_names

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOST_DRAWN = 1_000
"""Trials of a page and its figures. With more, a page takes more than some megabytes and seconds."""
MOST_IN_CONTOUR = 100
"""Trials of a contour. Optuna's grid has a row and a column for each, which is megabytes for 500 of them."""
MOST_PARAMETERS = 8
"""More parameters make slices and parallel coordinates that nobody can read: the most important are drawn."""
ENOUGH = 10
"""With fewer completed trials no parameter is called important, and the search space gives their order."""
_LONGEST_CHOICE = 24


@dataclass(frozen=True, repr=False)
class DrawableResults(StudyResults):
    """A whole study, which can also be drawn: each ``plot_`` method returns a Plotly figure, for a notebook.

    The methods have the names of ``optuna.visualization``. Of a study of more than 1,000 trials they draw the best ones
    and a sample.

    Attributes:
        optuna_trials: the trials as Optuna has them, by number.
        is_ours: whether this library ran the study. Of another, only the reports are counted, as its epochs.
        is_of_command: whether ``lightningtune tune`` ran the study.
        most_drawn: how many trials are drawn at most.

    Example:
        >>> import optuna
        >>> from lightningtune.study.directory import StudyDirectory
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> study = optuna.create_study(study_name="parabola")
        >>> study.optimize(lambda t: t.suggest_float("x", -1, 1) ** 2 + t.suggest_float("y", 0, 1), n_trials=12)
        >>> results = drawable_results(study, StudyDirectory.named(None, "parabola"))
        >>> history, importances = results.plot_optimization_history(), results.plot_param_importances()
        >>> contour, timeline = results.plot_contour("value"), results.plot_timeline()
        >>> parallel, slices = results.plot_parallel_coordinate(), results.plot_slice()
        >>> slices.layout.xaxis.title.text
        'x'
        >>> results.plot_intermediate_values()
        Traceback (most recent call last):
        lightningtune.errors.NoResultError: There are no learning curves. No trial reported any.
        >>> results.plot_pareto_front()
        Traceback (most recent call last):
        lightningtune.errors.NoResultError: A Pareto front of 1 objective cannot be drawn; of 2 or 3 it can.
    """

    optuna_trials: tuple[FrozenTrial, ...] = field(compare=False, kw_only=True)
    is_ours: bool = field(compare=False, kw_only=True)
    is_of_command: bool = field(compare=False, kw_only=True)
    most_drawn: int = field(compare=False, kw_only=True, default=MOST_DRAWN)

    def plot_optimization_history(self, objective: int | str = 0) -> go.Figure:
        """Draw each trial's value, the best so far, and the untuned defaults.

        Args:
            objective: the metric, by its name or its index, where the study has several.

        Returns:
            A Plotly figure.

        Raises:
            NoResultError: when no trial completed.
            ConfigurationError: when there is no such metric.
        """
        index = self._find_objective(objective)
        self._require_complete(1, "A history")
        with _quiet():
            figure = optuna.visualization.plot_optimization_history(self.drawn_study, **self._target(index))
        figure.update_traces({"line": {"shape": "hv"}}, {"mode": "lines"})
        baseline = self.baseline
        if baseline is not None and baseline.state == "complete" and baseline.values is not None:
            drawing.mark_baseline(figure, baseline.values[index])
        return drawing.style(figure)

    def plot_intermediate_values(self) -> go.Figure:
        """Draw the learning curves of the trials, and where they were pruned.

        Returns:
            A Plotly figure.

        Raises:
            NoResultError: when no trial has reported a value while it trained.
        """
        if not any(trial.intermediate_values for trial in self.optuna_trials):
            why = "Optuna keeps none of several objectives." if len(self.metrics) > 1 else "No trial reported any."
            raise NoResultError(f"There are no learning curves. {why}")
        trials = [self.optuna_trials[number] for number in sorted(self.drawn)]
        return drawing.draw_curves(trials, set(self.best_numbers), _escape(self.metrics[0]))

    def plot_param_importances(self) -> go.Figure:
        """Draw how much each parameter decides, by Optuna's default measure, for each metric.

        Returns:
            A Plotly figure.

        Raises:
            NoResultError: when fewer than two trials completed, or no parameter varies.
        """
        self._require_complete(2, "An importance")
        several = [self._find_importances(index) for index in range(len(self.metrics))]
        if not any(several):
            raise NoResultError("No parameter varies: there is nothing to compare.")
        return drawing.draw_importances(dict(zip(map(_escape, self.metrics), several, strict=True)))

    def plot_parallel_coordinate(self) -> go.Figure:
        """Draw each completed trial as a line through its parameters, the eight most important of more.

        Returns:
            A Plotly figure.

        Raises:
            NoResultError: when no trial completed, there are no parameters, or there are several metrics and Optuna is
                older than 5.
        """
        self._require_complete(1, "Parallel coordinates")
        if len(self.metrics) > 1 and int(optuna.__version__.partition(".")[0]) < 5:
            raise NoResultError(f"Parallel coordinates of several metrics need Optuna 5; this is {optuna.__version__}.")
        target: dict[str, Any] = {"target_name": _escape(self.metrics[0])} if len(self.metrics) == 1 else {}
        params = sorted(self._ranked_params[:MOST_PARAMETERS])
        with _quiet():
            figure = optuna.visualization.plot_parallel_coordinate(self.drawn_study, params=params, **target)
        figure.update_annotations(bgcolor="rgba(255,255,255,0.7)")  # the lines leave the numbers unreadable
        return drawing.style(figure)

    def plot_slice(self, objective: int | str = 0) -> go.Figure:
        """Draw the value over each parameter, the eight most important of more.

        Args:
            objective: the metric, by its name or its index, where the study has several.

        Returns:
            A Plotly figure.

        Raises:
            NoResultError: when no trial completed, or there are no parameters.
            ConfigurationError: when there is no such metric.
        """
        index = self._find_objective(objective)
        self._require_complete(1, "A slice")
        params = self._ranked_params[:MOST_PARAMETERS]
        with _quiet():
            figure = optuna.visualization.plot_slice(self.drawn_study, params=params, **self._target(index))
        return drawing.style(figure).update_layout(width=None)

    def plot_contour(self, objective: int | str = 0) -> go.Figure:
        """Draw the value over the two most important parameters, for 100 trials at most, from the best to the worst.

        Args:
            objective: the metric, by its name or its index, where the study has several.

        Returns:
            A Plotly figure.

        Raises:
            NoResultError: when fewer than two trials completed, or two parameters were tried.
            ConfigurationError: when there is no such metric.
        """
        index = self._find_objective(objective)
        self._require_complete(2, "A contour")
        params = self._ranked_params[:2]
        if len(params) < 2:
            raise NoResultError("Contours need two parameters that vary.")
        ranked = sorted(self._complete, key=lambda trial: self._sign(index) * trial.values[index])
        study = self._build_study([self._copy(trial) for trial in _sample(ranked, MOST_IN_CONTOUR)])
        with _quiet():
            figure = optuna.visualization.plot_contour(study, params=params, **self._target(index))
        if not figure.data or figure.data[0].z is None:
            raise NoResultError(f"No trial has both '{params[0]}' and '{params[1]}', or one of them never varies.")
        return drawing.style_contour(figure, self.directions[index])

    def plot_timeline(self) -> go.Figure:
        """Draw when which trial ran where, and when it waited.

        Returns:
            A Plotly figure.

        Raises:
            NoResultError: when no trial has begun.
        """
        lanes = find_lanes(self.trials, self.optuna_trials, self.is_ours, datetime.datetime.now())
        if not lanes:
            raise NoResultError("No trial has begun.")
        return drawing.draw_timeline(lanes, self.drawn)

    def plot_pareto_front(self) -> go.Figure:
        """Draw the values of a study with two or three objectives against each other.

        Returns:
            A Plotly figure.

        Raises:
            NoResultError: when it has another number, or no trial completed.
        """
        self._require_complete(1, "A Pareto front")
        if len(self.metrics) not in (2, 3):
            raise NoResultError(
                f"A Pareto front of {counted(len(self.metrics), 'objective')} cannot be drawn; of 2 or 3 it can."
            )
        with _quiet():
            names = [*map(_escape, self.metrics)]
            return drawing.style(optuna.visualization.plot_pareto_front(self.drawn_study, target_names=names))

    @cached_property
    def parameters(self) -> list[str]:
        """The names of all parameters, in the order in which they first appeared."""
        return list(dict.fromkeys(name for trial in self.optuna_trials for name in trial.params))

    @cached_property
    def drawn(self) -> frozenset[int]:
        """The numbers of the trials that are drawn and listed.

        These are all trials. Of a large study they are the best, each that was the best so far, those that run, the
        baseline, and a sample of the others that is even over time.
        """
        if len(self.trials) <= self.most_drawn:
            return frozenset(range(len(self.trials)))
        kept = {*self.best_numbers}
        kept |= {trial.number for trial in self.trials if trial.state == "running" or trial.is_baseline}
        if len(self.metrics) == 1:
            sign = self._sign(0)
            values = [
                (sign * trial.value, trial.number)
                for trial in self.trials
                if trial.state == "complete" and trial.is_feasible and trial.value is not None
            ]
            bests_so_far = itertools.accumulate(values, min)
            kept |= {number for _, number in [*bests_so_far, *sorted(values)[: self.most_drawn // 5]]}
        others = [trial.number for trial in self.trials if trial.number not in kept and trial.state != "waiting"]
        return frozenset({*kept, *_sample(others, self.most_drawn - len(kept))})

    @cached_property
    def drawn_study(self) -> optuna.Study:
        """The study in memory, as it is drawn. Trials that are not drawn are failed ones there, to keep the numbers."""
        placeholder = create_trial(state=TrialState.FAIL)
        return self._build_study(
            [self._copy(trial) if trial.number in self.drawn else placeholder for trial in self.optuna_trials]
        )

    def _build_study(self, trials: Sequence[FrozenTrial]) -> optuna.Study:
        with _quiet():
            study = optuna.create_study(directions=[*self.directions])  # type: ignore[list-item]
            study.set_metric_names([_escape(metric) for metric in self.metrics])
            study.add_trials(trials)
        return study

    def _copy(self, trial: FrozenTrial) -> FrozenTrial:
        """Return a trial to draw. Attributes are left out, for Optuna would show them all beside the mouse."""
        names = self._drawn_names
        drawn = {name: _make_drawable(kind, trial.params[name]) for name, kind in trial.distributions.items()}
        copy = create_trial(
            state=trial.state,
            values=trial.values,
            params={names[name]: value for name, (_, value) in drawn.items()},
            distributions={names[name]: kind for name, (kind, _) in drawn.items()},
            intermediate_values=trial.intermediate_values,
            system_attrs=get_constraint_attributes(trial),
        )
        copy.datetime_start, copy.datetime_complete = trial.datetime_start, trial.datetime_complete
        return copy

    @cached_property
    def _drawn_names(self) -> dict[str, str]:
        """Each parameter's name in a figure."""
        return {name: _escape(short_name) for name, short_name in short_names(self.parameters).items()}

    @cached_property
    def _complete(self) -> list[FrozenTrial]:
        return [trial for trial in self.optuna_trials if trial.state is TrialState.COMPLETE]

    @cached_property
    def _ranked_params(self) -> list[str]:
        """The parameters of completed trials as they are drawn, the most important first where that can be told."""
        names = [*dict.fromkeys(self._drawn_names[name] for trial in self._complete for name in trial.params)]
        if not names:
            raise NoResultError("The trials have no parameters.")
        if len(names) > 1 and len(self._complete) >= ENOUGH:
            importances = self._find_importances(0)
            names.sort(key=lambda name: -importances.get(name, 0.0))
        return names

    @cached_property
    def _importances(self) -> dict[int, dict[str, float]]:
        return {}

    def _find_importances(self, objective: int) -> dict[str, float]:
        """Return how much each parameter decides, of all completed trials or an even sample: the best would distort."""
        if objective not in self._importances:
            study = self.drawn_study
            if len(self.trials) > self.most_drawn:
                study = self._build_study([self._copy(trial) for trial in _sample(self._complete, self.most_drawn)])
            # Optuna takes a target for better where it is lower, whatever the study's direction
            sign = self._sign(objective)
            with _quiet():
                self._importances[objective] = optuna.importance.get_param_importances(
                    study, target=lambda trial: sign * trial.values[objective]
                )
        return self._importances[objective]

    def _sign(self, objective: int) -> int:
        return 1 if self.directions[objective] == "minimize" else -1

    def _require_complete(self, count: int, what: str) -> None:
        completed = len(self._complete)
        if completed < count:
            needed = "a completed trial" if count == 1 else f"{count} completed trials"
            raise NoResultError(
                f"{what} needs {needed}; there {'is' if completed == 1 else 'are'} {completed or 'none'}."
            )

    def _find_objective(self, objective: int | str) -> int:
        if isinstance(objective, str) and objective in self.metrics:
            return self.metrics.index(objective)
        if isinstance(objective, int) and not isinstance(objective, bool) and 0 <= objective < len(self.metrics):
            return objective
        hint = did_you_mean(objective, self.metrics) if isinstance(objective, str) else ""
        known = ", ".join(f"{index} '{metric}'" for index, metric in enumerate(self.metrics))
        raise ConfigurationError(
            f"objective must be a metric's name or its index, but got {objective!r}.{hint} Metrics: {known}."
        )

    def _target(self, objective: int) -> dict[str, Any]:
        name = {"target_name": _escape(self.metrics[objective])}
        return name if len(self.metrics) == 1 else {**name, "target": lambda trial: trial.values[objective]}


def drawable_results(study: optuna.Study, directory: StudyDirectory) -> DrawableResults:
    """Read any of Optuna's studies, and its folder where it has one."""
    results = collect_results(study, metric_names(study, {}), directory)
    trials = tuple(study.get_trials(deepcopy=False)[: len(results.trials)])  # another may have begun meanwhile
    is_ours = SEED in study.user_attrs or any(REASON in trial.user_attrs for trial in trials)
    if not is_ours:
        durations = [trial.duration.total_seconds() if trial.duration else 0.0 for trial in trials]
        counted_reports = [
            dataclasses.replace(result, epochs=len(trial.intermediate_values), duration=seconds)
            for result, trial, seconds in zip(results.trials, trials, durations, strict=True)
        ]
        results = dataclasses.replace(results, trials=tuple(counted_reports))
    is_of_command = STUDY_FILE in study.user_attrs
    return DrawableResults(**vars(results), optuna_trials=trials, is_ours=is_ours, is_of_command=is_of_command)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna, whose warnings are about a study that nobody has asked for."""
    with quiet_optuna(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _sample(things: Sequence[Any], most: int) -> list[Any]:
    """Return ``most`` of some things, evenly.

    Example:
        >>> _sample("abcdefg", 3)
        ['a', 'c', 'e']
    """
    count = max(min(most, len(things)), 0)
    return [things[index * len(things) // count] for index in range(count)]


def _escape(text: str) -> str:
    return html.escape(text, quote=False)


def _make_drawable(kind: BaseDistribution, value: Any) -> tuple[BaseDistribution, Any]:
    """Return a distribution with readable choices, wide enough for its value: an untuned default may lie outside."""
    if isinstance(kind, CategoricalDistribution):
        choices = [_shorten(choice) for choice in kind.choices]
        choices = choices if len(set(choices)) == len(choices) else [*kind.choices]  # no two may look alike
        choices = [_escape(choice) if isinstance(choice, str) else choice for choice in choices]
        return CategoricalDistribution(choices), choices[int(kind.to_internal_repr(value))]
    if isinstance(kind, (IntDistribution, FloatDistribution)):
        return type(kind)(min(kind.low, value), max(kind.high, value), kind.log), value
    return kind, value


def _shorten(choice: Any) -> Any:
    """Return both ends of a long text: what tells choices apart may stand at either."""
    if not isinstance(choice, str) or len(choice) <= _LONGEST_CHOICE:
        return choice
    return f"{choice[: _LONGEST_CHOICE // 2 - 1]}…{choice[-_LONGEST_CHOICE // 2 :]}"
