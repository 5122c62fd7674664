"""The files of a study as Optuna's artifacts: they are read where they lie, and never copied."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from optuna.artifacts import ArtifactMeta, FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import FrozenTrial

from lightningtune.report.dashboard.curves import draw_curves, read_metrics
from lightningtune.study.directory import StudyDirectory

_CURVES = "curves.svg"
"""A picture that is drawn when somebody asks for it."""
_OF_TRIAL = (_CURVES, "metrics.csv", "best.ckpt", "config.yaml", "output.log", "error.txt")
_KINDS = {
    ".svg": "image/svg+xml",
    ".csv": "text/csv",
    ".ckpt": "application/octet-stream",
    ".yaml": "text/plain",
    ".log": "text/plain",
    ".txt": "text/plain",
}
_PREFIX = "artifacts:"
"""With which Optuna's ``upload_artifact`` begins the name of an attribute that tells of an artifact."""


class StudyFiles:
    """An artifact store of Optuna's over a study's folder.

    What it lists are the files of the trials, and those of the winner. They are known by numbers that nobody can guess,
    and that are others in each process: optuna-dashboard lets any page of the user's browser read an artifact. What
    somebody uploads goes to ``artifacts`` in the study's folder, and what lies there is found.

    Args:
        directory: the study's folder.
        metrics: the tuned metrics.
    """

    def __init__(self, directory: StudyDirectory, metrics: Sequence[str]) -> None:
        self._directory = directory
        self._metrics = metrics
        self._secret = uuid.uuid4()
        self._readers: dict[str, Callable[[], BinaryIO]] = {}
        self._of_others = FileSystemArtifactStore(directory.artifacts)

    def of_trial(self, trial: FrozenTrial) -> dict[str, str]:
        """Return the attributes that tell of a trial's files, as ``upload_artifact`` writes them."""
        folder = self._directory.trial(trial.number)
        try:
            there = {entry.name for entry in os.scandir(folder) if entry.is_file()}
        except OSError:  # it has none: it waits, or ended before it began
            there = set()
        if "metrics.csv" in there or trial.intermediate_values:
            there.add(_CURVES)
        attrs: dict[str, str] = {}
        for name in _OF_TRIAL:
            if name in there:
                attrs |= self._attribute(folder / name, trial)
        return attrs

    def of_study(self) -> dict[str, str]:
        """Return the attributes that tell of the winner's files."""
        attrs: dict[str, str] = {}
        for path in (self._directory.best_checkpoint, self._directory.best_config):
            if path.is_file():
                attrs |= self._attribute(path)
        return attrs

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open a file for reading.

        Raises:
            ArtifactNotFound: when there is none of that number, or it has gone.
        """
        reader = self._readers.get(artifact_id)
        if reader is None:
            return self._of_others.open_reader(artifact_id)
        try:
            return reader()
        except OSError as error:
            raise ArtifactNotFound(f"The file has gone: {error}") from error

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Keep what somebody uploads."""
        self._directory.artifacts.mkdir(parents=True, exist_ok=True)
        self._of_others.write(artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        """Remove what somebody has uploaded.

        Raises:
            HTTPError: for a file of a trial; its text is what the page shows.
        """
        if artifact_id in self._readers:
            # imported where it is used: it comes with optuna-dashboard, an extra
            from bottle import HTTPError

            where = self._directory.root
            raise HTTPError(403, f"The study's own files stay in '{where}': 'lightningtune rm' removes them with it.")
        self._of_others.remove(artifact_id)

    def _attribute(self, path: Path, trial: FrozenTrial | None = None) -> dict[str, str]:
        number = str(uuid.uuid5(self._secret, str(path)))
        if trial is not None and path.name == _CURVES:
            self._readers[number] = lambda: self._draw(path.with_name("metrics.csv"), trial)
        else:
            self._readers[number] = lambda: path.open("rb")
        about = ArtifactMeta(artifact_id=number, filename=path.name, mimetype=_KINDS[path.suffix], encoding=None)
        return {_PREFIX + number: json.dumps(dataclasses.asdict(about))}

    def _draw(self, logged: Path, trial: FrozenTrial) -> BinaryIO:
        """Draw what was logged, or, where that lies elsewhere, what was reported."""
        curves = read_metrics(logged) if logged.is_file() else {}
        if not curves and trial.intermediate_values:
            curves = {self._metrics[0]: [*trial.intermediate_values.items()]}
        return io.BytesIO(draw_curves(curves, self._metrics).encode())
