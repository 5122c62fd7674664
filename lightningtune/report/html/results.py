"""What a study found, with its figures: what `OptunaDrivenOptimizer.results` returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import optuna

from lightningtune.report.html.record import Record, read_study
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.results import StudyResults

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from lightningtune.report.html.figures import Figures


@dataclass(frozen=True, repr=False)
class DrawableResults(StudyResults):
    """A whole study, which can also be drawn: each method returns a figure of Plotly's, for a notebook.

    Each raises a ``NoResultError`` that says why where there is nothing to draw.

    Attributes:
        record: what the figures are drawn from, as it was at that moment.
    """

    record: Record = field(compare=False, kw_only=True)

    def plot_history(self, objective: int | str = 0) -> go.Figure:
        """Draw each trial's value, the best so far, and the untuned defaults.

        Args:
            objective: which metric, by its name or its index, where the study has several.
        """
        return self._figures.history(objective)

    def plot_curves(self) -> go.Figure:
        """Draw the learning curves of all trials, and where they were pruned."""
        return self._figures.curves()

    def plot_importances(self) -> go.Figure:
        """Draw how much each parameter decides, by Optuna's default measure."""
        return self._figures.importances()

    def plot_parallel_coordinates(self) -> go.Figure:
        """Draw each completed trial as a line through its parameters, the eight most important of more."""
        return self._figures.parallel_coordinates()

    def plot_slices(self, objective: int | str = 0) -> go.Figure:
        """Draw the value over each parameter, the eight most important of more.

        Args:
            objective: which metric, by its name or its index, where the study has several.
        """
        return self._figures.slices(objective)

    def plot_contours(self, objective: int | str = 0) -> go.Figure:
        """Draw the value over the two most important parameters.

        Args:
            objective: which metric, by its name or its index, where the study has several.
        """
        return self._figures.contours(objective)

    def plot_pareto_front(self) -> go.Figure:
        """Draw the values of a study with two or three objectives against each other."""
        return self._figures.pareto_front()

    def plot_timeline(self) -> go.Figure:
        """Draw when which trial ran where, and when it waited."""
        return self._figures.timeline()

    @cached_property
    def _figures(self) -> Figures:
        # imported where it is used: no study is to wait for Plotly before its first trial
        from lightningtune.report.html.figures import Figures

        return Figures(self.record)


def drawable_results(study: optuna.Study, directory: StudyDirectory) -> DrawableResults:
    """Read a study's trials into frozen data that can be drawn.

    Args:
        study: the study.
        directory: its folder.
    """
    record = read_study(study, directory)
    return DrawableResults(**vars(record.results), record=record)
