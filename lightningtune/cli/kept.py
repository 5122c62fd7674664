"""What ``lightningtune tune`` keeps on a study of the study file it was started with, so that it can be run again."""

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
from lightningtune.study.succession import is_over

if TYPE_CHECKING:
    import optuna

    from lightningtune.optimizer import OptunaDrivenOptimizer
    from lightningtune.study.finding import FoundStudy
    from lightningtune.study.results import StudyResults


@dataclass(frozen=True)
class Kept:
    """How a study was started.

    Attributes:
        study: the study file, resolved.
        folder: the one that it lies in, where modules and scripts are found.
        started_in: the working directory, at which relative paths begin.
    """

    study: StudyFile
    folder: Path
    started_in: Path


def keep(study: optuna.Study, asked_for: StudyFile, folder: Path, started_in: Path) -> None:
    """Keep on a study how it is started; nothing is written where that is there already.

    Args:
        study: the study.
        asked_for: the study file, resolved.
        folder: the one that it lies in.
        started_in: the working directory.
    """
    # its password stays out of the study: where it is stored, everyone who opens it knows
    shared = dataclasses.asdict(dataclasses.replace(asked_for, storage=None))
    kept = {"study": shared, "folder": str(folder.absolute()), "started_in": str(started_in)}
    if study.user_attrs.get(STUDY_FILE) != kept:
        study.set_user_attr(STUDY_FILE, kept)


def run_kept(
    optimizer: OptunaDrivenOptimizer, asked_for: StudyFile, folder: Path, started_in: Path | None = None
) -> optuna.Study:
    """Run a study, which goes on as it is asked for now; where that is refused, as it was asked for before.

    Args:
        optimizer: of the study.
        asked_for: the study file, resolved.
        folder: the one that it lies in.
        started_in: the working directory; this process's when not given.

    Raises:
        ConfigurationError: when the study cannot go on as it is asked for.
    """
    study = optimizer.study
    if is_over(study, asked_for.n_trials):  # nothing runs as it is asked for now
        return optimizer.optimize()
    before = study.user_attrs.get(STUDY_FILE)
    keep(study, asked_for, folder, started_in or Path.cwd())
    try:
        return optimizer.optimize()
    except ConfigurationError:
        if before is not None and before != study.user_attrs.get(STUDY_FILE):
            study.set_user_attr(STUDY_FILE, before)
        raise


def code_of(results: StudyResults) -> int:
    """Return the exit code of a study that has run: 1 where trials have ended, and none of them has completed."""
    return 1 if not results.best_trials and results.counts.keys() & {"fail", "pruned"} else 0


def read_kept(study: optuna.Study) -> Kept | None:
    """Read how a study was started; None where that was not by ``lightningtune tune``.

    Raises:
        ConfigurationError: when it was by that of another version, which has kept something else.
    """
    stored = study.user_attrs.get(STUDY_FILE)
    if stored is None:
        return None
    try:
        return Kept(StudyFile(**stored["study"]), Path(stored["folder"]), Path(stored["started_in"]))
    except (KeyError, TypeError) as error:
        raise ConfigurationError(
            f"Study '{study.study_name}' was started by 'lightningtune tune' of another version, whose study file this "
            f"one cannot read: {error}. 'lightningtune tune' with its study file goes on with it."
        ) from None


def recall(found: FoundStudy, storage: str | None, changes: Mapping[str, Any]) -> Kept:
    """Return how a study is run again that exists, or a trial of it.

    Args:
        found: the study.
        storage: where it is stored, where the user says so.
        changes: name to value, in place of the study file's.

    Raises:
        ConfigurationError: when it was not started by ``lightningtune tune``.
    """
    kept = read_kept(found.study)
    name, root = found.study.study_name, found.directory.root
    if kept is None:
        raise ConfigurationError(f"Study '{name}' was not started by 'lightningtune tune'. {how_to_run(found)}")
    if root.name != name:
        raise ConfigurationError(
            f"The folder of study '{name}' was renamed to '{root.name}'. Rename it back, to run it."
        )
    place = {"experiment_dir": str(root.parent)}
    if storage is not None:
        place["storage"] = _from_anywhere(storage)
    return dataclasses.replace(kept, study=dataclasses.replace(kept.study, **{**place, **changes}))


def rebuild(kept: Kept) -> OptunaDrivenOptimizer:
    """Build the optimizer of a study that exists.

    The working directory becomes the one in which it was started, where that is there: paths begin at it.

    Raises:
        ConfigurationError: when its classes are not to be found.
    """
    from lightningtune.cli.building import build_optimizer

    if kept.started_in.is_dir():
        os.chdir(kept.started_in)
    return build_optimizer(kept.study, kept.folder)


def _from_anywhere(storage: str) -> str:
    """Return a storage so that it is found from every working directory.

    Example:
        >>> _from_anywhere("sqlite:////tmp/study.db"), _from_anywhere("redis://host")
        ('sqlite:////tmp/study.db', 'redis://host')
    """
    storage = expand_storage(storage)
    if "://" not in storage:
        return str(Path(storage).absolute())
    kind, _, path = storage.partition(":///")
    return f"{kind}:///{Path(path).absolute()}" if kind.startswith("sqlite") and path else storage


def how_to_run(found: FoundStudy) -> str:
    """Say how a study is run that a script has begun."""
    script = found.directory.read_definition().get("script")
    if script is None:
        return "Run the script or the notebook again that has begun it, and it goes on."
    return f"Run '{script}' again, and it goes on."
