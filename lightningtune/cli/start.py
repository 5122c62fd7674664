"""How ``lightningtune tune`` has started a study: it is stored on the study, so that the study can be run again."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightningtune.cli.study_file import StudyFile
from lightningtune.errors import ConfigurationError
from lightningtune.study.reporter import STUDY_FILE
from lightningtune.study.storage import expand_storage
from lightningtune.study.tally import is_over

if TYPE_CHECKING:
    import optuna

    from lightningtune.optimizer import OptunaDrivenOptimizer
    from lightningtune.study.finding import FoundStudy
    from lightningtune.study.results import StudyResults


@dataclass(frozen=True)
class StudyStart:
    """How a study was started: its file, resolved; the folder of that; and the working directory then."""

    study: StudyFile
    folder: Path
    started_in: Path

    def save(self, study: optuna.Study) -> None:
        """Store it on a study; nothing is written where that is there already."""
        # its password stays out of the study: where it is stored, everyone who opens it knows
        shared = dataclasses.asdict(dataclasses.replace(self.study, storage=None))
        stored = {"study": shared, "folder": str(self.folder.absolute()), "started_in": str(self.started_in)}
        if study.user_attrs.get(STUDY_FILE) != stored:
            study.set_user_attr(STUDY_FILE, stored)

    def build(self) -> OptunaDrivenOptimizer:
        """Build the optimizer, in the working directory in which the study was started, where that is still there."""
        from lightningtune.cli.building import build_optimizer  # deferred import: it imports torch

        if self.started_in.is_dir():
            os.chdir(self.started_in)
        return build_optimizer(self.study, self.folder)


def run_started(optimizer: OptunaDrivenOptimizer, start: StudyStart) -> optuna.Study:
    """Run a study, and store how it was started; where that is refused, what was stored before stays."""
    study = optimizer.study
    if is_over(study, start.study.n_trials):  # nothing runs as it is asked for now
        return optimizer.optimize()
    before = study.user_attrs.get(STUDY_FILE)
    start.save(study)
    try:
        return optimizer.optimize()
    except ConfigurationError:
        if before is not None and before != study.user_attrs.get(STUDY_FILE):
            study.set_user_attr(STUDY_FILE, before)
        raise


def get_exit_code(results: StudyResults) -> int:
    """Return the exit code of a study that has run: 1 where trials have ended, and none of them has completed."""
    return 1 if not results.best_trials and results.counts.keys() & {"fail", "pruned"} else 0


def read_start(study: optuna.Study) -> StudyStart | None:
    """Read how a study was started; None where that was not by ``lightningtune tune``."""
    stored = study.user_attrs.get(STUDY_FILE)
    if stored is None:
        return None
    try:
        return StudyStart(StudyFile(**stored["study"]), Path(stored["folder"]), Path(stored["started_in"]))
    except (KeyError, TypeError) as error:
        raise ConfigurationError(
            f"Study '{study.study_name}' was started by 'lightningtune tune' of another version, whose study file this "
            f"one cannot read: {error}. 'lightningtune tune' with its study file goes on with it."
        ) from None


def plan_restart(found: FoundStudy, storage: str | None, changes: Mapping[str, Any]) -> StudyStart:
    """Return how to run a study again, with changes of the study file; raise if `tune` has not started it."""
    start = read_start(found.study)
    name, root = found.study.study_name, found.directory.root
    if start is None:
        script = found.directory.read_definition().get("script")
        again = "the script or the notebook again that has begun it" if script is None else f"'{script}' again"
        raise ConfigurationError(
            f"Study '{name}' was not started by 'lightningtune tune'. Run {again}, and it goes on."
        )
    if root.name != name:
        raise ConfigurationError(
            f"The folder of study '{name}' was renamed to '{root.name}'. Rename it back, to run it."
        )
    place = {"experiment_dir": str(root.parent)}
    if storage is not None:
        place["storage"] = _make_absolute(storage)
    return dataclasses.replace(start, study=dataclasses.replace(start.study, **{**place, **changes}))


def _make_absolute(storage: str) -> str:
    """Return a storage as it is found from every working directory.

    Example:
        >>> _make_absolute("sqlite:////tmp/study.db"), _make_absolute("redis://host")
        ('sqlite:////tmp/study.db', 'redis://host')
    """
    storage = expand_storage(storage)
    if "://" not in storage:
        return str(Path(storage).absolute())
    kind, _, path = storage.partition(":///")
    return f"{kind}:///{Path(path).absolute()}" if kind.startswith("sqlite") and path else storage
