"""Hyperparameter optimization for PyTorch Lightning, on Optuna."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lightningtune._version import __version__

if TYPE_CHECKING:
    from lightningtune.callback import TuneCallback
    from lightningtune.errors import ConfigurationError, LightningTuneError, NoResultError, TrialError
    from lightningtune.optimizer import OptunaDrivenOptimizer
    from lightningtune.report.html.writer import study_report
    from lightningtune.search.spaces import AdvancedSearchSpace, SimpleSearchSpace
    from lightningtune.search.tunable import tunable

__all__ = [
    "AdvancedSearchSpace",
    "ConfigurationError",
    "LightningTuneError",
    "NoResultError",
    "OptunaDrivenOptimizer",
    "SimpleSearchSpace",
    "TrialError",
    "TuneCallback",
    "__version__",
    "study_report",
    "tunable",
]

_HOMES = {
    "AdvancedSearchSpace": "lightningtune.search.spaces",
    "ConfigurationError": "lightningtune.errors",
    "LightningTuneError": "lightningtune.errors",
    "NoResultError": "lightningtune.errors",
    "OptunaDrivenOptimizer": "lightningtune.optimizer",
    "SimpleSearchSpace": "lightningtune.search.spaces",
    "TrialError": "lightningtune.errors",
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
