"""A folder of its own for each trial, where a user's callback or profiler names one folder for all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import PassThroughProfiler

from lightningtune.training.loops import get_callbacks

_FOLDER = re.compile(
    r"_*(dirpath|(save|output|out|log|checkpoints?|ckpts?|results?|predictions?|plots?|figures?|artifacts?|exports?)"
    r"_?(dir|dirpath|directory|folder))"
)
"""Attributes that name a folder to write to, by the words that Lightning and its users have for it."""
_FILE = re.compile(r"_*((save|output|out|log|results?)_?(path|file|filename|filepath)|filename)")
"""Attributes that name a file to write to."""
_SLASHES = "/\\"
_PLACE = "lightningtune_place"
"""The key of a checkpoint under which the place of a trial's files stands."""


def place_in_study(directory: Path) -> Path:
    """Return where in a shared folder the files of a training go, by the training's own folder.

    Example:
        >>> print(place_in_study(Path("runs/mine/trials/0007")), place_in_study(Path("runs/mine/refit/0007_seed_1")))
        mine/0007 mine/refit/0007_seed_1
    """
    kind, study = directory.parent, directory.parent.parent
    return Path(study.name, *([] if kind.name == "trials" else [kind.name]), directory.name)


def own_folder(given: str | os.PathLike[str], directory: Path) -> str:
    """Return a folder in the given one for a single training; one within the training's own folder stays.

    Example:
        >>> own_folder("checkpoints", Path("runs/mine/trials/0007"))
        'checkpoints/mine/0007'
    """
    return _own(os.fspath(given), place_in_study(directory), directory)


class OwnFolders(Callback):
    """Moves what the callbacks and the profiler of a fit write, from a folder that all trials share to one within it.

    Such a folder is recognized by the attribute that holds it, such as ``dirpath``, before any callback is set up;
    ``notice`` is told of each. A trial that goes on from a checkpoint keeps the folders of the trial that wrote it, so
    that callbacks find their files and their state.
    """

    def __init__(self, directory: Path, notice: Callable[[str], None]) -> None:
        self._directory = directory
        self._notice = notice
        self._place = place_in_study(directory)
        self._shared: list[tuple[Any, str, Any]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the shared folders, and move each."""
        profiler = trainer.profiler  # type: ignore[attr-defined]
        # one that writes nothing has a folder too: Lightning gives a profiler without one that of the first logger
        owners = [*get_callbacks(trainer), *([] if isinstance(profiler, PassThroughProfiler) else [profiler])]
        paths = [(owner, name, value) for owner in owners for name, value in _iterate_paths(owner)]
        self._shared = [path for path in paths if self._own(*path[1:]) != path[2]]
        self._move()
        given = [(type(owner).__name__, name.lstrip("_"), value) for owner, name, value in self._shared]
        for kind, name, value in given if trainer.is_global_zero else ():
            self._notice(
                f"{kind} has {name}='{value}' in all trials: each writes to a folder of its own there, named by study "
                "and trial."
            )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write down where the files are."""
        if self._shared:
            checkpoint[_PLACE] = str(self._place)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on where the files are, before callbacks load their state."""
        self._place = Path(checkpoint.get(_PLACE, self._place))
        self._move()

    def _move(self) -> None:
        for owner, name, value in self._shared:
            own = self._own(name, value)
            setattr(owner, name, own)
            if Path(_split(name, value)[0]).is_dir():  # its owner expects it, or has made it and will not make another
                Path(_split(name, own)[0]).mkdir(parents=True, exist_ok=True)

    def _own(self, name: str, value: Any) -> Any:
        folder, file = _split(name, value)
        own = _own(folder, self._place, self._directory)
        return type(value)(f"{own}/{file}" if file else own)


def _iterate_paths(owner: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of an object that name a folder or a file to write to."""
    for name, value in vars(owner).items():
        if isinstance(value, (str, Path)) and str(value):
            # a `filename` is one within a `dirpath`, unless it is absolute
            is_place = name.lstrip("_") != "filename" or Path(value).is_absolute()
            if _FOLDER.fullmatch(name) or (_FILE.fullmatch(name) and is_place):
                yield name, value


def _split(name: str, path: str | Path) -> tuple[str, str]:
    """Return the folder that an attribute names, and the name of the file within it; empty where it names no file."""
    value, file = os.fspath(path), Path(path).name
    if _FOLDER.fullmatch(name) or not Path(value).suffix:
        return value, ""
    return value.removesuffix(file).rstrip(_SLASHES) or os.curdir, file


def _own(folder: str, place: Path, directory: Path) -> str:
    is_own = Path(folder).absolute().is_relative_to(directory.absolute())
    is_own = is_own or f"/{place.as_posix()}/" in f"/{Path(folder).as_posix()}/"  # as a trial's default_root_dir
    return folder if is_own else f"{folder.rstrip(_SLASHES)}/{place.as_posix()}"  # it may be the address of a bucket
