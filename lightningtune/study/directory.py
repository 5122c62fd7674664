"""The study folder: its layout, and what is written, checked and removed in it.

::

    <experiment_dir>/<study_name>/
      study.yaml            what was asked for
      journal.log           the Optuna storage, unless another is given
      trials/0007/          config.yaml · metrics.csv · best.ckpt · last.ckpt · output.log · error.txt
      best/                 config.yaml and model.ckpt of the winner
      report.html           what it has found, for a browser
      refit/0007_seed_1/    the best config, trained again
      replay/0007/          a trial, trained again to compare
"""

from __future__ import annotations

import filecmp
import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightningtune.errors import ConfigurationError, InvalidConfigError, redact
from lightningtune.files import check_sums, dump_yaml, expand_home, put, read_mapping, write_text
from lightningtune.wording import as_argument, command

_LAYOUT = {
    "trials": r"\d{4,}",
    "best": r"config\.yaml|model\.ckpt|\..*\.tmp",
    "refit": r"\d{4,}_seed_\d+(_epochs_\d+)?",
    "replay": r"\d{4,}",
}
"""The folders of a study, and the names of what it writes into them."""
_LEFT = ("error.txt", "metrics.csv", "hparams.yaml", "trackers.json", "result.json")
"""Files, besides checkpoints and logs, that an earlier training may have left in a training's folder."""


def check_study_name(study_name: str) -> str:
    """Return a study's name if a folder can have it; else raise a ConfigurationError. A stored one may be anything."""
    is_usable = isinstance(study_name, str) and re.fullmatch(r"[^/\\:*?\"<>|\x00-\x1f\ud800-\udfff]+", study_name)
    if not is_usable or study_name in {".", ".."}:
        raise ConfigurationError(f"study_name={study_name!r} must be usable as a folder's name.")
    return study_name


@dataclass(frozen=True)
class StudyDirectory:
    """The folder of one study."""

    root: Path

    @classmethod
    def named(cls, experiment_dir: str | os.PathLike[str] | None, study_name: str) -> StudyDirectory:
        """Return the folder of a study, which need not be there."""
        check_study_name(study_name)
        if not isinstance(experiment_dir, (str, os.PathLike, type(None))):
            raise ConfigurationError(f"experiment_dir must be the path of a folder, but got {experiment_dir!r}.")
        base = expand_home("lightningtune_runs" if experiment_dir is None else experiment_dir)
        return cls((base / study_name).absolute())

    def create(self) -> None:
        """Make the folder, or raise a ConfigurationError where it cannot be made or written to."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            writable = os.access(self.root, os.W_OK)
        except OSError as error:
            raise ConfigurationError(f"The study's folder '{self.root}' cannot be made: {error.strerror}.") from error
        if not writable:
            raise ConfigurationError(f"The study's folder '{self.root}' cannot be written to.")

    @property
    def journal(self) -> Path:
        """The journal, which is the default storage."""
        return self.root / "journal.log"

    @property
    def definition(self) -> Path:
        """``study.yaml``: what was asked for."""
        return self.root / "study.yaml"

    @property
    def best_config(self) -> Path:
        """The winner's config."""
        return self.root / "best" / "config.yaml"

    @property
    def best_checkpoint(self) -> Path:
        """The winner's checkpoint."""
        return self.root / "best" / "model.ckpt"

    @property
    def report(self) -> Path:
        """The report, for a browser."""
        return self.root / "report.html"

    def trial(self, number: int) -> Path:
        """The folder of one trial."""
        return self.root / "trials" / f"{number:04d}"

    def refit(self, number: int, seed: int, max_epochs: int | None = None) -> Path:
        """The folder of a refit, which trains for as long as the trial or for so many epochs."""
        epochs = "" if max_epochs is None else f"_epochs_{max_epochs}"
        return self.root / "refit" / f"{number:04d}_seed_{seed}{epochs}"

    def replay(self, number: int) -> Path:
        """The folder of a trial's replay."""
        return self.root / "replay" / f"{number:04d}"

    @property
    def folders(self) -> list[Path]:
        """The study's own folders in it, which need not be there."""
        return [self.root / name for name in _LAYOUT]

    def belongings(self) -> list[Path]:
        """Return what is there of the study, the journal first. Anything else in the folder is somebody else's."""
        named = (self.journal, Path(f"{self.journal}.lock"), self.definition, self.report)
        found = [path for path in named if path.is_file() or path.is_symlink()]
        for folder, owned in zip(self.folders, _LAYOUT.values(), strict=True):
            if folder.is_symlink():
                found.append(folder)
            elif folder.is_dir():
                found += sorted(path for path in folder.iterdir() if re.fullmatch(owned, path.name))
        return found + sorted(path for path in self.root.glob(".*.tmp") if path.is_file())

    def config(self, number: int) -> Path:
        """The file of a trial's resolved config."""
        return self.trial(number) / "config.yaml"

    def last_checkpoint(self, number: int) -> Path | None:
        """The checkpoint from which a trial can go on; None where there is none."""
        path = self.trial(number) / "last.ckpt"
        return path if path.exists() else None

    def checkpoint(self, number: int) -> Path | None:
        """The best checkpoint of a trial; None where there is none."""
        path = self.trial(number) / "best.ckpt"
        return path if path.exists() else None

    def write_definition(self, definition: Mapping[str, Any]) -> None:
        """Write ``study.yaml``."""
        write_text(self.definition, dump_yaml(dict(definition)))

    def read_definition(self) -> dict[str, Any]:
        """Read ``study.yaml``. It decides nothing, so a missing or damaged one is empty."""
        try:
            return read_mapping(self.definition)
        except InvalidConfigError:
            return {}

    def how_to_remove(self, options: Mapping[str, Any]) -> str:
        """Return the command that removes the study, in quotes; ``options`` may name a ``storage``.

        Example:
            >>> print(StudyDirectory.named(None, "digits").how_to_remove({}))
            'lightningtune rm digits'
        """
        is_default = self.root == StudyDirectory.named(None, self.root.name).root
        elsewhere = () if options.get("storage") is None else ("--storage", "URL")
        study = self.root.name if is_default else str(self.root)
        return command("lightningtune", "rm", *elsewhere, *as_argument(study))

    def begin(self, directory: Path, config: Mapping[str, Any]) -> None:
        """Write the resolved config of a training that begins, into its folder.

        What another study has left there goes first: its weights would pass for this one's. So does a link, through
        which files would be written and removed elsewhere.
        """
        if directory.is_symlink():
            directory.unlink()
        logs = [path for pattern in ("output*.log", "events.out.tfevents.*") for path in directory.glob(pattern)]
        for path in (*_find_checkpoints(directory), *logs, *(directory / name for name in _LEFT)):
            remove_path(path)
        write_text(directory / "config.yaml", dump_yaml(dict(config)))

    def read_config(self, number: int, written: str | None = None) -> dict[str, Any]:
        """Read the resolved config of a trial."""
        config = read_mapping(self.config(number))
        if written not in (None, self.sum_of_config(number)):
            raise InvalidConfigError(
                f"'{self.config(number)}' is not the config that trial {number} was trained with: the file has been "
                "changed since, or another is in its place."
            )
        return config

    def sum_of_config(self, number: int) -> str:
        """Return the checksum of the file of a trial's config."""
        return hashlib.blake2b(self.config(number).read_bytes(), digest_size=16).hexdigest()

    def check_whole(self, number: int, written: str | None) -> None:
        """Check a trial's config and its best checkpoint, as far as they are there, against their checksums."""
        self.read_config(number, written)
        checkpoint = self.checkpoint(number)
        if checkpoint is None:
            return
        try:
            check_sums(checkpoint)
        except Exception as error:  # of a torn file anything may be wrong
            raise InvalidConfigError(f"The checkpoint '{checkpoint}' is not as it was written: {error}") from error

    def check_belongs(self, seed: int, trials: int) -> None:
        """Check that the folder belongs to the journal, which has this seed and so many trials."""
        if not trials and any(self.root.glob("trials/*/config.yaml")):
            raise ConfigurationError(
                f"The journal '{self.journal}' holds no trial, but '{self.root / 'trials'}' does: it has been lost. "
                "Put a copy of it in its place, or give another study_name or experiment_dir."
            )
        defined = self.read_definition().get("seed", seed)
        if trials and defined != seed:
            raise ConfigurationError(
                f"'{self.definition}' is of a study with seed {defined}, but the journal '{self.journal}' of "
                f"one with seed {seed}. Put the right one in its place; study.yaml may also be removed."
            )

    def write_error(self, number: int, text: str) -> None:
        """Write the traceback of a failed trial."""
        write_text(self.trial(number) / "error.txt", redact(text))

    def promote(self, number: int) -> None:
        """Make a trial the winner: ``best/`` holds its config and its checkpoint."""
        checkpoint = self.checkpoint(number)
        if checkpoint is not None:
            put(checkpoint, self.best_checkpoint)
        elif not _is_same_config(self.config(number), self.best_config):
            self.best_checkpoint.unlink(missing_ok=True)  # another winner's
        put(self.config(number), self.best_config)

    def drop_unfinished_report(self) -> None:
        """Remove what killed hosts have left of the report. Another host that writes one now fails, and goes on."""
        for path in self.root.glob(f".{self.report.name}.*.tmp"):
            path.unlink(missing_ok=True)

    def drop_weights(self, number: int) -> None:
        """Remove the checkpoints of a trial, a user's ModelCheckpoint's too."""
        folder = self.trial(number)
        if not folder.is_symlink():  # what a link leads to is not the study's
            for path in _find_checkpoints(folder):
                remove_path(path)

    def drop_last(self, directory: Path) -> None:
        """Remove what only served a training to go on, once its end is known to the study."""
        (directory / "last.ckpt").unlink(missing_ok=True)

    def with_checkpoints(self) -> set[int]:
        """Return the trials whose folders hold any checkpoint, or what a killed process has left of one."""
        trials = self.root / "trials"
        names = {path.relative_to(trials).parts[0] for path in _find_checkpoints(trials)}
        return {int(name) for name in names if name.isdigit()}


def output_path(directory: Path, rank: int = 0) -> Path:
    """Return the file that a trial's process prints to."""
    return directory / (f"output_rank{rank}.log" if rank else "output.log")


def _find_checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoints in a folder, and files that a killed process has not put in their place."""
    return [path for pattern in ("*.ckpt", ".*.tmp") for path in directory.rglob(pattern)]


def remove_path(path: Path) -> None:
    """Remove a file, a link, or a folder such as a sharded checkpoint."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_same_config(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, or to two small ones that are equal."""
    if not (one.is_file() and other.is_file()):
        return False
    return one.samefile(other) or filecmp.cmp(one, other, shallow=False)
