"""What the two sides say to each other: a frozen spec goes in, reports come back, an outcome ends it.

Only the standard library is imported here: the Optuna side and the Lightning side both import this file, and
neither imports the other.
"""

from __future__ import annotations

import enum
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Mode = Literal["min", "max"]
NonFinitePolicy = Literal["prune", "fail", "ignore"]
ScorePolicy = Literal["best", "last"] | Callable[[Sequence[Any]], Any]
"""The best value, the last, or a function of all: floats, or tuples where several metrics are monitored."""
Values = tuple[float, ...]
_LINE = 400
"""Characters of an error's message that are kept on a trial; the whole stands in the trial's folder."""


class StopReason(str, enum.Enum):
    """Why a fit ended."""

    COMPLETED = "completed"
    PRUNED = "pruned"
    NON_FINITE = "non_finite"
    FAILED = "failed"
    REFUSED = "refused"
    OUT_OF_MEMORY = "out_of_memory"
    INTERRUPTED = "interrupted"
    TIMED_OUT = "timed_out"
    KILLED = "killed"


@dataclass(frozen=True)
class Stop:
    """A decision to end a fit early, with the reason in one line, for a person."""

    reason: StopReason
    detail: str


class Reporter(Protocol):
    """Where a trial's values go, and where the decision to stop it comes from."""

    def report(self, values: Values, step: int) -> Stop | None:
        """Take one value for each metric, of the validation ``step``, counted from 0; return None to go on."""

    def notice(self, text: str) -> None:
        """Tell a person of something that all trials of a study have in common."""


class SilentReporter:
    """A reporter for trainings that belong to no trial: it keeps nothing, and never stops them."""

    def report(self, values: Values, step: int) -> None:
        """Go on."""

    def notice(self, text: str) -> None:
        """Tell nobody."""


@dataclass(frozen=True)
class Objective:
    """What is tuned: which metrics, which way is better, and which of a trial's values is its score."""

    monitor: tuple[str, ...]
    mode: tuple[Mode, ...]
    score: ScorePolicy = "best"
    non_finite: NonFinitePolicy = "prune"


@dataclass(frozen=True)
class TrialSpec:
    """Everything that is needed to train one trial, as plain values."""

    number: int
    config: Mapping[str, Any]
    """The resolved config, with ``seed_everything``; what is written beside the checkpoint."""
    directory: Path
    objective: Objective
    callbacks: tuple[Any, ...] = ()
    """Fresh Lightning callbacks of the user's, for this trial only."""
    save_checkpoints: bool = True
    data_seed: int | None = None
    """The study's, for what makes the data; None for a trial from before there was one: its random state serves."""
    data_is_prepared: bool = False
    """Whether ``prepare_data`` has been called for this config's data."""
    checkpoint: Path | None = None
    """From where the trial goes on, a ``last.ckpt`` with its ``best.ckpt`` beside it; None from the beginning."""
    study: str = ""
    """The study's name; empty where the training is none of its trials."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """What is tuned, as the study has it."""
    pruned_by: tuple[type[BaseException], ...] = ()
    """Exceptions that end the trial as pruned, wherever in it they are raised."""


@dataclass(frozen=True)
class TrialFacts:
    """What a training was done with, and what it took; None where that cannot be told.

    Attributes:
        device: what it ran on, with the model's name, such as "cpu (AMD EPYC)" or "cuda (NVIDIA H100 80GB HBM3)".
        threads: with which torch computed in the process.
        ranks: processes that trained together.
        parameters: the model's, at the end; of a sharded model those of the first rank.
        trainable: those of them that were trained then.
        memory: bytes, the most that the process held at once, the script and all libraries included.
        device_memory: bytes, the most that tensors took of the accelerator at once.
    """

    device: str | None = None
    threads: int | None = None
    ranks: int | None = None
    parameters: int | None = None
    trainable: int | None = None
    memory: int | None = None
    device_memory: int | None = None


@dataclass(frozen=True)
class Notice:
    """What a person should know of a trial beyond its outcome; a study shows one notice for each subject."""

    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.detail}"


@dataclass(frozen=True)
class TrialOutcome:
    """How one trial ended."""

    reason: StopReason
    detail: str = ""
    """The reason in one line, for a person."""
    score: Values | None = None
    """One value for each monitored metric; None unless the trial completed."""
    epochs: int = 0
    """Training epochs that were begun."""
    duration: float = 0.0
    """Seconds from building the model to the end of the fit."""
    checkpoint: Path | None = None
    """The checkpoint of the best validation, where one was kept."""
    traceback: str = ""
    """Of what was raised, as text; a trial that an exception has pruned has one, and no ``error``."""
    error: BaseException | None = field(default=None, compare=False)
    """What was raised, where the trial failed or was interrupted."""
    facts: TrialFacts = field(default_factory=TrialFacts)
    """What it was trained with; of a trial whose process was killed, nothing is known."""
    notices: tuple[Notice, ...] = ()

    @classmethod
    def failed(cls, error: BaseException, reason: StopReason = StopReason.FAILED) -> TrialOutcome:
        """Return the outcome of a trial that raised."""
        message = _message_of(error)
        detail = f"{type(error).__name__}: {message}" if message else type(error).__name__
        return cls(reason, detail, traceback=_text_of(error), error=error)

    @classmethod
    def pruned(cls, signal: BaseException) -> TrialOutcome:
        """Return the outcome of a trial whose own code has raised the exception that prunes it."""
        return cls(StopReason.PRUNED, _message_of(signal) or "pruned by its own code", traceback=_text_of(signal))


def _message_of(error: BaseException) -> str:
    message = " ".join(str(error).split())
    return message if len(message) <= _LINE else message[:_LINE] + "…"


def _text_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))
