"""The study folder: its layout in one place, and which weights stay in it.

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
"""The folders of a study, and how what it writes into them is named."""


_LEFT = ("error.txt", "metrics.csv", "hparams.yaml", "trackers.json", "result.json")
"""Files, besides checkpoints, that an earlier training may have left in a training's folder."""


def check_study_name(study_name: str) -> str:
    """Return a study's name if it can be a folder's; one that is read from a storage may be anything.

    Raises:
        ConfigurationError: when it cannot.
    """
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
        """Return the folder of a study; nothing is created yet.

        Raises:
            ConfigurationError: when the study's name cannot be a folder's.
        """
        check_study_name(study_name)
        if not isinstance(experiment_dir, (str, os.PathLike, type(None))):
            raise ConfigurationError(f"experiment_dir must be the path of a folder, but got {experiment_dir!r}.")
        base = expand_home("lightningtune_runs" if experiment_dir is None else experiment_dir)
        return cls((base / study_name).absolute())

    def create(self) -> None:
        """Make the folder.

        Raises:
            ConfigurationError: when it cannot be made or written to.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            writable = os.access(self.root, os.W_OK)
        except OSError as error:
            raise ConfigurationError(f"The study's folder '{self.root}' cannot be made: {error.strerror}.") from error
        if not writable:
            raise ConfigurationError(f"The study's folder '{self.root}' cannot be written to.")

    @property
    def journal(self) -> Path:
        """The default storage."""
        return self.root / "journal.log"

    @property
    def definition(self) -> Path:
        """What was asked for."""
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
        """What the study has found, for a browser."""
        return self.root / "report.html"

    def trial(self, number: int) -> Path:
        """The folder of one trial."""
        return self.root / "trials" / f"{number:04d}"

    def refit(self, number: int, seed: int, max_epochs: int | None = None) -> Path:
        """The folder of one more training of a trial's config, for as long as the trial or for so many epochs."""
        longer = "" if max_epochs is None else f"_epochs_{max_epochs}"
        return self.root / "refit" / f"{number:04d}_seed_{seed}{longer}"

    def replay(self, number: int) -> Path:
        """The folder of a trial that is trained again to compare."""
        return self.root / "replay" / f"{number:04d}"

    @property
    def folders(self) -> list[Path]:
        """The folders in it that are the study's, there or not."""
        return [self.root / name for name in _LAYOUT]

    def belongings(self) -> list[Path]:
        """Return what is there of the study, the journal first; whatever else lies in the folder is somebody else's."""
        named = (self.journal, Path(f"{self.journal}.lock"), self.definition, self.report)
        found = [path for path in named if path.is_file() or path.is_symlink()]
        for folder, owned in zip(self.folders, _LAYOUT.values(), strict=True):
            if folder.is_symlink():
                found.append(folder)
            elif folder.is_dir():
                found += sorted(path for path in folder.iterdir() if re.fullmatch(owned, path.name))
        return found + sorted(path for path in self.root.glob(".*.tmp") if path.is_file())

    def config(self, number: int) -> Path:
        """The resolved config of a trial."""
        return self.trial(number) / "config.yaml"

    def last_checkpoint(self, number: int) -> Path | None:
        """The checkpoint from which a trial can go on, where there is one."""
        path = self.trial(number) / "last.ckpt"
        return path if path.exists() else None

    def checkpoint(self, number: int) -> Path | None:
        """The best checkpoint of a trial, where it is kept."""
        path = self.trial(number) / "best.ckpt"
        return path if path.exists() else None

    def write_definition(self, definition: Mapping[str, Any]) -> None:
        """Write ``study.yaml``."""
        write_text(self.definition, dump_yaml(dict(definition)))

    def read_definition(self) -> dict[str, Any]:
        """Read ``study.yaml``; nothing where it is not there, or spoilt: it decides nothing."""
        try:
            return read_mapping(self.definition)
        except InvalidConfigError:
            return {}

    def how_to_remove(self, options: Mapping[str, Any]) -> str:
        """Return the command that removes the study, in quotes.

        Args:
            options: of Optuna's functions; ``storage`` where it is not the journal.

        Example:
            >>> print(StudyDirectory.named(None, "digits").how_to_remove({}))
            'lightningtune rm digits'
        """
        is_default = self.root == StudyDirectory.named(None, self.root.name).root
        elsewhere = () if options.get("storage") is None else ("--storage", "URL")
        study = self.root.name if is_default else str(self.root)
        return command("lightningtune", "rm", *elsewhere, *as_argument(study))

    def begin(self, directory: Path, config: Mapping[str, Any]) -> None:
        """Write the resolved config of a training that begins.

        What another study has left under that number goes first: its weights would pass for this one's. So does a link,
        through which files would be written and removed elsewhere.
        """
        if directory.is_symlink():
            directory.unlink()
        _remove_checkpoints(directory)
        left = [path for pattern in ("output*.log", "events.out.tfevents.*") for path in directory.glob(pattern)]
        left += [directory / name for name in _LEFT]
        for path in left:
            _remove(path)
        write_text(directory / "config.yaml", dump_yaml(dict(config)))

    def read_config(self, number: int, written: str | None = None) -> dict[str, Any]:
        """Read the resolved config of a trial.

        Args:
            number: the trial's.
            written: the sum of the file as it was written, where that is known.

        Raises:
            InvalidConfigError: when it is not there, or not as it was written.
        """
        config = read_mapping(self.config(number))
        if written not in (None, self.sum_of_config(number)):
            raise InvalidConfigError(
                f"'{self.config(number)}' is not the config that trial {number} was trained with: the file has been "
                "changed since, or another is in its place."
            )
        return config

    def sum_of_config(self, number: int) -> str:
        """Return what tells the file of a trial's config from every other."""
        return hashlib.blake2b(self.config(number).read_bytes(), digest_size=16).hexdigest()

    def check_whole(self, number: int, written: str | None) -> None:
        """Check that a trial's config and its best checkpoint, where it is kept, are as they were written.

        Args:
            number: the trial's.
            written: the sum of its config's file, where that is known.

        Raises:
            InvalidConfigError: naming the file that is not.
        """
        self.read_config(number, written)
        checkpoint = self.checkpoint(number)
        if checkpoint is None:
            return
        try:
            check_sums(checkpoint)
        except Exception as error:  # of a torn file anything may be wrong
            raise InvalidConfigError(f"The checkpoint '{checkpoint}' is not as it was written: {error}") from error

    def check_belongs(self, seed: int, trials: int) -> None:
        """Check that the journal is the one with which the rest of the folder has come to be.

        Args:
            seed: the study's, as the journal has it.
            trials: how many the journal has.

        Raises:
            ConfigurationError: when the trials of the folder are not in it, or are another study's.
        """
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
        """Remove what killed hosts have left of the report; one that is just being written fails, and ends nothing."""
        for path in self.root.glob(f".{self.report.name}.*.tmp"):
            path.unlink(missing_ok=True)

    def drop_weights(self, number: int) -> None:
        """Remove the checkpoints of a trial, a user's ModelCheckpoint's too; everything else stays."""
        _remove_checkpoints(self.trial(number))

    def drop_last(self, directory: Path) -> None:
        """Remove what only served a training to go on; to be called once its end is known to the study."""
        (directory / "last.ckpt").unlink(missing_ok=True)

    def with_checkpoints(self) -> set[int]:
        """Return the trials whose folders hold any checkpoint, or what a killed process has left of one."""
        trials = self.root / "trials"
        names = {path.relative_to(trials).parts[0] for path in _checkpoints(trials)}
        return {int(name) for name in names if name.isdigit()}


def output_of(directory: Path, rank: int = 0) -> Path:
    """Where a trial's process prints to."""
    return directory / (f"output_rank{rank}.log" if rank else "output.log")


def _checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoints in a folder, and files that a killed process has not put in their place."""
    return [path for pattern in ("*.ckpt", ".*.tmp") for path in directory.rglob(pattern)]


def _remove_checkpoints(directory: Path) -> None:
    if directory.is_symlink():  # what it leads to is not the study's
        return
    for path in _checkpoints(directory):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():  # a sharded checkpoint, among others
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_same_config(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, or to two small ones that are equal."""
    if not (one.is_file() and other.is_file()):
        return False
    return one.samefile(other) or filecmp.cmp(one, other, shallow=False)
