"""Refits: more trainings of a trial's config. Each keeps its result in its own folder."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightningtune.contract import Values
from lightningtune.errors import InvalidConfigError
from lightningtune.files import dump_json, read_mapping, write_text
from lightningtune.study.directory import StudyDirectory

RESULT = "result.json"
"""The file in a refit's folder that holds its seed and its score."""


@dataclass(frozen=True)
class Refit:
    """One more training of a trial's config.

    Attributes:
        number: the trial's.
        seed: what the training was seeded with.
        score: one value for each metric.
        checkpoint: the checkpoint of its best validation; None where none was kept.
        directory: its folder.
        is_repetition: whether it was trained as the trial was, but for the seed; one that was trained for longer was
            not.
    """

    number: int
    seed: int
    score: Values
    checkpoint: Path | None
    directory: Path
    is_repetition: bool = True


def keep_result(
    study: StudyDirectory, number: int, seed: int, score: Values, checkpoint: Path | None, own: Path
) -> Refit:
    """Write the result of a refit to its folder, and return it."""
    write_text(own / RESULT, dump_json({"number": number, "seed": seed, "score": list(score)}))
    return Refit(number, seed, score, checkpoint, own, _is_repetition(study, number, own))


def read_refits(study: StudyDirectory) -> tuple[Refit, ...]:
    """Read the refits of a study, sorted by trial and seed; unreadable ones are left out."""
    found = []
    for path in sorted((study.root / "refit").glob(f"*/{RESULT}")):
        with contextlib.suppress(InvalidConfigError, ValueError, TypeError, KeyError):
            kept = read_mapping(path)
            number, checkpoint = int(kept["number"]), path.with_name("best.ckpt")
            found.append(
                Refit(
                    number,
                    int(kept["seed"]),
                    tuple(float(value) for value in kept["score"]),
                    checkpoint if checkpoint.is_file() else None,
                    path.parent,
                    _is_repetition(study, number, path.parent),
                )
            )
    return tuple(found)


def _is_repetition(study: StudyDirectory, number: int, own: Path) -> bool:
    trained = _but_seed(own / "config.yaml")
    return trained is not None and trained == _but_seed(study.config(number))


def _but_seed(path: Path) -> Any:
    """Return a config without its seed; None where it cannot be read."""
    try:
        return {name: value for name, value in read_mapping(path).items() if name != "seed_everything"}
    except InvalidConfigError:
        return None
