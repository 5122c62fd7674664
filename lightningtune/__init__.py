"""Hyperparameter optimization for PyTorch Lightning, on Optuna."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lightningtune._version import __version__

if TYPE_CHECKING:
    from lightningtune.callback import TuneCallback
    from lightningtune.check.report import CheckReport
    from lightningtune.errors import (
        ConfigurationError,
        InvalidConfigError,
        LightningTuneError,
        MetricError,
        NonFiniteError,
        NoResultError,
        SearchSpaceError,
        SharedWeightsError,
        TrialError,
    )
    from lightningtune.optimizer import OptunaDrivenOptimizer
    from lightningtune.report.html.writer import study_report
    from lightningtune.search.spaces import AdvancedSearchSpace, SimpleSearchSpace
    from lightningtune.search.tunable import tunable
    from lightningtune.study.comparison import Replay
    from lightningtune.study.results import Refit, StudyResults, TrialResult

__all__ = [
    "AdvancedSearchSpace",
    "CheckReport",
    "ConfigurationError",
    "InvalidConfigError",
    "LightningTuneError",
    "MetricError",
    "NoResultError",
    "NonFiniteError",
    "OptunaDrivenOptimizer",
    "Refit",
    "Replay",
    "SearchSpaceError",
    "SharedWeightsError",
    "SimpleSearchSpace",
    "StudyResults",
    "TrialError",
    "TrialResult",
    "TuneCallback",
    "__version__",
    "study_report",
    "tunable",
]

_HOMES = {
    "AdvancedSearchSpace": "lightningtune.search.spaces",
    "CheckReport": "lightningtune.check.report",
    "ConfigurationError": "lightningtune.errors",
    "InvalidConfigError": "lightningtune.errors",
    "LightningTuneError": "lightningtune.errors",
    "MetricError": "lightningtune.errors",
    "NoResultError": "lightningtune.errors",
    "NonFiniteError": "lightningtune.errors",
    "OptunaDrivenOptimizer": "lightningtune.optimizer",
    "Refit": "lightningtune.study.results",
    "Replay": "lightningtune.study.comparison",
    "SearchSpaceError": "lightningtune.errors",
    "SharedWeightsError": "lightningtune.errors",
    "SimpleSearchSpace": "lightningtune.search.spaces",
    "StudyResults": "lightningtune.study.results",
    "TrialError": "lightningtune.errors",
    "TrialResult": "lightningtune.study.results",
    "TuneCallback": "lightningtune.callback",
    "study_report": "lightningtune.report.html.writer",
    "tunable": "lightningtune.search.tunable",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: ``import lightningtune`` itself costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lightningtune' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
