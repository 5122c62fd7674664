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
from lightningtune.report.html.results import drawable_results
from lightningtune.study.directory import StudyDirectory

log = logging.getLogger(__name__)

_NAME = "report.html"
_FIRST_SECONDS = 2.0
"""What the first report is expected to take, for it imports what draws."""


def study_report(study: optuna.Study, path: str | os.PathLike[str] | None = None) -> Path:
    """Write the report of any study of Optuna's, whoever ran it, as one HTML file that needs nothing else.

    `OptunaDrivenOptimizer` writes its own. In the folder of its study, the report links to the folders of the trials.
    Of more than 1,000 trials, the page shows the best ones and a sample.

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
    """Write the report of a study, which has its folder in ``directory`` where it has one."""
    # deferred import: no study waits for Plotly before its first trial
    from lightningtune.report.html.page import render

    write_text(target, render(drawable_results(study, directory), directory, target, datetime.datetime.now()))


class ReportWriter:
    """Writes the report of a study while it runs, as an Optuna callback, and once more at its end.

    While it writes, no new trial is asked for. So it waits until its writing, but for the last, takes at most a share
    of the time. A report that cannot be written does not stop the study: the log says why, once.

    Args:
        directory: the study's folder.
        share: of the time.
        clock: returns seconds.
    """

    def __init__(
        self, directory: StudyDirectory, share: float = 0.01, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._directory, self._share, self._clock = directory, share, clock
        self._began = clock()
        self._total_seconds, self._next_seconds = 0.0, _FIRST_SECONDS
        self._has_failed = False

    def __call__(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        """Write the report if it is due."""
        if self._total_seconds + self._next_seconds <= self._share * (self._clock() - self._began):
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
        self._next_seconds = self._clock() - start  # the next one takes as long as this one
        self._total_seconds += self._next_seconds
