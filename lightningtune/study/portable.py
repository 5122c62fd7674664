"""A study as one file: a zip of its folder, or only its trials as CSV or JSON."""

from __future__ import annotations

import contextlib
import csv
import filecmp
import io
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import optuna

from lightningtune.errors import ConfigurationError, InvalidConfigError
from lightningtune.files import dump_json, replacing, write_text
from lightningtune.study.directory import StudyDirectory, check_study_name
from lightningtune.study.finding import FoundStudy
from lightningtune.study.opening import quiet_optuna
from lightningtune.study.progress import metric_names
from lightningtune.study.results import StudyResults, collect_results
from lightningtune.study.selection import list_columns
from lightningtune.study.storage import get_storage, open_storage

FORMS = (".zip", ".csv", ".json")


def export_study(found: FoundStudy, target: Path, with_weights: bool = False) -> None:
    """Write a study to one file, in the form that its name ends with.

    A ``.zip`` holds the study's folder with a journal, whatever the study is stored in, and the best checkpoint where
    that is asked for. A ``.csv`` holds its trials. A ``.json`` holds its definition, and its trials with their configs.
    """
    if target.suffix not in FORMS:
        raise ConfigurationError(f"'{target}' must end in one of {', '.join(FORMS)}, which says what is written.")
    if with_weights and target.suffix != ".zip":
        raise ConfigurationError(f"Weights are exported into a .zip, and '{target}' is none.")
    if with_weights and not _is_own(found.directory, found.directory.best_checkpoint):
        raise ConfigurationError(f"There are no weights to export: '{found.directory.best_checkpoint}' is not there.")
    if target.suffix == ".zip":
        with replacing(target) as new, zipfile.ZipFile(new, "x", zipfile.ZIP_DEFLATED) as archive:
            _write_archive(found, archive, with_weights)
    else:
        write_text(target, _make_csv(found) if target.suffix == ".csv" else f"{_make_json(found)}\n")


def _write_archive(found: FoundStudy, archive: zipfile.ZipFile, with_weights: bool) -> None:
    name, root = check_study_name(found.study.study_name), found.directory.root
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder, "journal.log")
        if found.storage == str(found.directory.journal):
            whole = found.directory.journal.read_bytes()
            journal.write_bytes(whole[: whole.rfind(b"\n") + 1])  # a host may be in the middle of a line
        else:
            to = open_storage(None, journal)
            with quiet_optuna():
                optuna.copy_study(from_study_name=name, from_storage=get_storage(found.study), to_storage=to)
        archive.write(journal, f"{name}/journal.log")
    for path in _select_files(found.directory, with_weights):
        with contextlib.suppress(FileNotFoundError):  # a study that runs has removed it since
            archive.write(path, f"{name}/{path.relative_to(root).as_posix()}")


def _select_files(directory: StudyDirectory, with_weights: bool) -> Iterator[Path]:
    """Yield the files of a study's folder that are exported: of the weights the best only, and nothing half written."""
    best = {directory.best_checkpoint, *_find_copies(directory)} if with_weights else set()
    for path in sorted(directory.root.rglob("*")):
        is_left_out = path.name.startswith(".") or path == directory.journal or path.name.endswith(".lock")
        # a checkpoint may be a folder
        is_of_weights = any(part.endswith(".ckpt") for part in path.relative_to(directory.root).parts)
        if not is_left_out and (path in best or not is_of_weights) and _is_own(directory, path):
            yield path


def _is_own(directory: StudyDirectory, path: Path) -> bool:
    """Whether a file lies in a study's folder, and is no link out of it."""
    return path.is_file() and path.resolve().is_relative_to(directory.root.resolve())


def _find_copies(directory: StudyDirectory) -> Iterator[Path]:
    """Yield the winner's checkpoint in its trial's folder, from where its weights are loaded."""
    for path in directory.root.glob("trials/*/best.ckpt"):
        if _is_own(directory, path) and filecmp.cmp(path, directory.best_checkpoint):
            yield path


def _collect(found: FoundStudy) -> StudyResults:
    metrics = metric_names(found.study, found.directory.read_definition())
    return collect_results(found.study, metrics, found.directory)


def _make_csv(found: FoundStudy) -> str:
    text = io.StringIO()
    rows = _collect(found).rows()
    write_table(rows, list_columns(rows), text)
    return text.getvalue()


def _make_json(found: FoundStudy) -> str:
    results = _collect(found)
    is_defined = _is_own(found.directory, found.directory.definition)
    curves = [trial.intermediate_values for trial in found.study.get_trials(deepcopy=False)]
    return dump_json(
        {
            "study_name": results.study_name,
            "metrics": results.metrics,
            "directions": results.directions,
            "best": results.best_numbers,
            "definition": found.directory.read_definition() if is_defined else {},
            "trials": [
                {**row, "validations": curve, "config": _read_config(found.directory, trial.number)}
                for row, curve, trial in zip(results.rows(), curves, results.trials, strict=False)
            ],
        }
    )


def _read_config(directory: StudyDirectory, number: int) -> dict[str, Any] | None:
    if not _is_own(directory, directory.config(number)):
        return None
    try:
        return directory.read_config(number)
    except InvalidConfigError:  # it never began, or its folder is elsewhere
        return None


def write_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], file: IO[str]) -> None:
    """Write these columns of rows as CSV."""
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
