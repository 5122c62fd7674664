"""Writing the report of a study: now and then while it runs, at its end, and of any study of Optuna's."""

from __future__ import annotations

import datetime
import logging
import os
import reprlib
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import optuna

from lightningtune.errors import ConfigurationError, redact
from lightningtune.files import write_text
from lightningtune.report.html.record import read_study
from lightningtune.study.directory import StudyDirectory

log = logging.getLogger(__name__)

_NAME = "report.html"
_FIRST = 2.0
"""Seconds that the first report is expected to take, for it imports what draws; later ones take as long as the last."""


def study_report(study: optuna.Study, path: str | os.PathLike[str] | None = None) -> Path:
    """Write the report of any study of Optuna's, whoever ran it, as one HTML file that needs nothing else.

    Of a study of `OptunaDrivenOptimizer`, which writes its own, a report that lies in the study's folder links to the
    folders of its trials.

    Args:
        study: the study.
        path: the file; ``report.html`` in the working directory when not given.

    Returns:
        The file.

    Raises:
        ConfigurationError: when it is no study, or the file cannot be written.

    Example:
        >>> import os, optuna, tempfile
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> study = optuna.create_study(study_name="parabola")
        >>> study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     study_report(study, os.path.join(folder, "parabola.html")).name
        'parabola.html'
    """
    if not isinstance(study, optuna.Study):
        raise ConfigurationError(f"study must be an optuna.Study, but got {reprlib.repr(study)}.")
    target = Path(_NAME if path is None else path).absolute()
    if target.is_dir():
        raise ConfigurationError(f"'{target}' is a folder; name the file of the report, such as '{target / _NAME}'.")
    try:
        write_report(study, StudyDirectory(target.parent), target)
    except OSError as error:
        raise ConfigurationError(f"'{target}' cannot be written: {error.strerror}.") from error
    return target


def write_report(study: optuna.Study, directory: StudyDirectory, target: Path) -> None:
    """Write the report of a study.

    Args:
        study: the study.
        directory: its folder, where it has one.
        target: the file, which is replaced in one step.
    """
    # imported where it is used: no study is to wait for Plotly before its first trial
    from lightningtune.report.html.page import render

    write_text(target, render(read_study(study, directory), directory, target, datetime.datetime.now()))


class ReportWriter:
    """Writes the report of a study while it runs, as an Optuna callback, and once more at its end.

    What it takes is time in which nothing new is asked for, so it waits until that is at most a share of the time since
    this was made; the last writing is not counted. A report that cannot be written ends no study: a line in the log
    says why, once.

    Args:
        directory: the study's folder.
        share: of the time.
        clock: what seconds are read from.
    """

    def __init__(
        self, directory: StudyDirectory, share: float = 0.01, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._directory, self._share, self._clock = directory, share, clock
        self._began = clock()
        self._spent, self._next = 0.0, _FIRST
        self._has_failed = False

    def __call__(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        """Write the report if it is due.

        Args:
            study: the study.
            trial: the one that has ended; all are read from the study.
        """
        if self._spent + self._next <= self._share * (self._clock() - self._began):
            self.write(study)

    def write(self, study: optuna.Study) -> None:
        """Write the report now."""
        start = self._clock()
        try:
            write_report(study, self._directory, self._directory.report)
        except Exception as error:
            if not self._has_failed:
                log.warning("The study's report could not be written: %s: %s", type(error).__name__, redact(str(error)))
                log.debug("The report's error: %s", redact(traceback.format_exc()))
            self._has_failed = True
        self._next = self._clock() - start
        self._spent += self._next
