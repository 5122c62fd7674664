"""What a study found, as frozen data: each trial, the best ones, and further trainings of their configs."""

from __future__ import annotations

import contextlib
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial

from lightningtune.contract import StopReason, TrialFacts, Values
from lightningtune.errors import InvalidConfigError, NoResultError
from lightningtune.files import dump_json, read_mapping, write_text
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.provenance import Provenance
from lightningtune.study.reporter import BASELINE, DETAIL, REASON, read_facts, read_provenance
from lightningtune.study.succession import CONTINUES
from lightningtune.study.tally import TrialTally, is_feasible
from lightningtune.wording import Readable, list_numbers

if TYPE_CHECKING:
    import pandas as pd

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


@dataclass(frozen=True)
class TrialResult:
    """One trial.

    Attributes:
        number: its number in the study, from 0.
        state: "complete", "pruned", "fail", "running" or "waiting".
        values: one value for each metric; of a pruned trial, what Optuna holds for it; None where there is none.
        params: parameter -> value, as Optuna stores them.
        reason: why it ended, a `StopReason`'s value, such as "completed", "pruned" or "killed"; "" while it runs.
        detail: the same in one line.
        epochs: training epochs.
        duration: seconds.
        is_baseline: whether it trained the untuned defaults.
        directory: its folder.
        checkpoint: its best checkpoint; None where none is kept.
        continues: the number of the trial that it goes on from, where that was cut short.
        continued_by: the number of the trial that goes on in its place; then only that one counts.
        is_feasible: whether it violates no constraint.
        facts: device, number of parameters and peak memory (bytes) of its training.
        provenance: the versions and the commit with which it was trained; None where it never began.

    Example:
        >>> trial = TrialResult(
        ...     number=3, state="complete", values=(0.25,), params={"lr": 0.1}, reason="completed", detail="", epochs=5,
        ...     duration=1.5, is_baseline=False, directory=Path("trials/0003"), checkpoint=None,
        ... )
        >>> trial.value, trial.outcome
        (0.25, 'complete')
    """

    number: int
    state: str
    values: tuple[float, ...] | None
    params: Mapping[str, Any]
    reason: str
    detail: str
    epochs: int
    duration: float
    is_baseline: bool
    directory: Path
    checkpoint: Path | None
    continues: int | None = None
    continued_by: int | None = None
    is_feasible: bool = True
    facts: TrialFacts = field(default_factory=TrialFacts)
    provenance: Provenance | None = None

    @property
    def value(self) -> float | None:
        """The value of the first metric; None where there is none."""
        return self.values[0] if self.values else None

    @property
    def outcome(self) -> str:
        """Its state, but "interrupted" where the user ended it: Optuna knows such a trial as failed only."""
        is_interrupted = self.state == "fail" and self.reason == StopReason.INTERRUPTED.value
        return StopReason.INTERRUPTED.value if is_interrupted else self.state


@dataclass(frozen=True, repr=False)
class StudyResults(Readable):
    """A whole study.

    Attributes:
        study_name: its name.
        metrics: the tuned metrics.
        directions: "minimize" or "maximize" for each metric.
        trials: all trials, by number.
        best_numbers: the number of the best trial; with several objectives, of each trial on the Pareto front.
        refits: further trainings of the trials' configs.

    Example:
        >>> first, second = (
        ...     TrialResult(number, "complete", (loss,), {"lr": lr}, "completed", "", 5, 1.5, number == 0, Path(), None)
        ...     for number, (loss, lr) in enumerate([(0.5, 0.01), (0.25, 0.1)])
        ... )
        >>> results = StudyResults("digits", ("val_loss",), ("minimize",), (first, second), best_numbers=(1,))
        >>> results.best.params, results.improvement
        ({'lr': 0.1}, 0.25)
        >>> print(results)
        Study 'digits' (val_loss): 2 complete; best: trial 1 with (0.25,)
    """

    study_name: str
    metrics: tuple[str, ...]
    directions: tuple[str, ...]
    trials: tuple[TrialResult, ...]
    best_numbers: tuple[int, ...]
    refits: tuple[Refit, ...] = ()

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {state}" for state, count in self.counts.items()) or "no trials"
        best = "; ".join(f"trial {trial.number} with {trial.values}" for trial in self.best_trials) or "none"
        return f"Study '{self.study_name}' ({', '.join(self.metrics)}): {counts}; best: {best}"

    @property
    def best_trials(self) -> tuple[TrialResult, ...]:
        """The best trial, or the Pareto front; empty when no trial completed."""
        return tuple(self.trials[number] for number in self.best_numbers)

    @property
    def best(self) -> TrialResult:
        """The best trial.

        Raises:
            NoResultError: when no trial completed, or when several are on the Pareto front.
        """
        return self.trials[self.choose()]

    @property
    def baseline(self) -> TrialResult | None:
        """The last trial of the untuned defaults; None where there was none."""
        return next((trial for trial in reversed(self.trials) if trial.is_baseline), None)

    @property
    def improvement(self) -> float | None:
        """By how much the best value of the first metric is better than the baseline's, as a positive number.

        None where either is missing, or the baseline violates a constraint.
        """
        baseline = self.baseline
        if baseline is None or baseline.state != "complete" or not baseline.is_feasible:
            return None
        if baseline.value is None or not self.best_trials:
            return None
        sign = 1 if self.directions[0] == "maximize" else -1
        values = [trial.value for trial in self.best_trials if trial.value is not None]
        return max(sign * (value - baseline.value) for value in values) + 0.0  # never -0.0

    @property
    def counts(self) -> Mapping[str, int]:
        """Outcome -> number of trials; one that another goes on from is counted there only."""
        return dict(Counter(trial.outcome for trial in self.trials if trial.continued_by is None))

    def repetitions(self, number: int, metric: int = 0) -> tuple[float, ...]:
        """Return the scores of the refits that differ from a trial in their seed only.

        Args:
            number: the trial's.
            metric: the index of the metric.

        Returns:
            One score for each such refit.
        """
        return tuple(refit.score[metric] for refit in self.refits if refit.number == number and refit.is_repetition)

    def choose(self, number: int | None = None) -> int:
        """Check a trial's number, or find the best trial's.

        Args:
            number: of a trial; the best one when None.

        Returns:
            The number of a completed trial.

        Raises:
            NoResultError: when there is no such trial, or no single best one.
        """
        if number is not None:
            complete = [trial.number for trial in self.trials if trial.state == "complete"]
            if number in complete:
                return number
            what = "is not complete" if 0 <= number < len(self.trials) else "does not exist"
            raise NoResultError(
                f"Trial {number} of study '{self.study_name}' {what}. Complete: {list_numbers(complete) or 'none'}."
            )
        if not self.best_numbers:
            raise NoResultError(f"Study '{self.study_name}': {self.why_none()}")
        if len(self.best_numbers) > 1:
            raise NoResultError(
                f"Study '{self.study_name}' has {len(self.directions)} objectives, and these trials are each best "
                f"in their way: {', '.join(map(str, self.best_numbers))}. Pass number=... to choose one."
            )
        return self.best_numbers[0]

    def why_none(self) -> str:
        """Say why there is no best trial."""
        if not self.trials:
            return "No trial has been run."
        ended = ", ".join(f"{count} {state}" for state, count in self.counts.items())
        if self.counts.get("complete"):
            return f"There is no best trial: each that is complete violates a constraint. Trials: {ended}."
        if self.counts.keys() <= {"interrupted", "running", "waiting"}:
            return "No trial completed. Run the study again to go on with those that were interrupted."
        details = Counter(trial.detail for trial in self.trials if trial.detail and trial.continued_by is None)
        most_frequent = f" Most frequent reason: {details.most_common(1)[0][0]}" if details else ""
        return f"No trial completed. Trials: {ended}.{most_frequent}"

    def rows(self) -> list[dict[str, Any]]:
        """Return one row of plain values for each trial.

        Returns:
            Column -> value, with a column for each metric and, with the prefix ``params.``, for each parameter.
            ``duration`` is in seconds, ``memory`` in bytes. A metric that is named as another column is, such as
            ``memory``, has the column ``metric.memory``.
        """
        names = [*dict.fromkeys(name for trial in self.trials for name in trial.params)]
        columns = [*map(metric_column, self.metrics)]
        rows = []
        for trial in self.trials:
            scores, facts = self.repetitions(trial.number), trial.facts
            rows.append(
                {"number": trial.number, "state": trial.outcome}
                | dict(zip(columns, trial.values or (None,) * len(columns), strict=True))
                | {f"params.{name}": trial.params.get(name) for name in names}
                | {"epochs": trial.epochs, "duration": trial.duration}
                | {"refits": len(scores), "refit_mean": statistics.fmean(scores) if scores else None}
                | {"baseline": trial.is_baseline, "feasible": trial.is_feasible}
                | {"device": facts.device, "parameters": facts.parameters, "memory": facts.memory}
                | {"reason": trial.reason, "detail": trial.detail, "continued_by": trial.continued_by}
            )
        return rows

    def to_pandas(self) -> pd.DataFrame:
        """Return the `rows` as a table.

        Raises:
            ImportError: where pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_pandas() needs pandas: pip install pandas") from error

        frame: pd.DataFrame = pd.DataFrame(self.rows())
        return frame


_COLUMNS = frozenset(
    ("number", "state", "epochs", "duration", "baseline", "feasible", "device", "parameters", "memory", "reason")
) | {"detail", "continued_by", "refits", "refit_mean", "validations", "config"}
"""What a row, or an export, has beside metrics and sampled parameters."""


def metric_column(metric: str) -> str:
    """Return the column that a metric has in `StudyResults.rows`.

    Example:
        >>> metric_column("val_acc"), metric_column("memory")
        ('val_acc', 'metric.memory')
    """
    return f"metric.{metric}" if metric in _COLUMNS or metric.startswith("params.") else metric


def collect_results(study: optuna.Study, metrics: tuple[str, ...], directory: StudyDirectory) -> StudyResults:
    """Read a study's trials into frozen data."""
    tally = TrialTally(study)
    return StudyResults(
        study_name=study.study_name,
        metrics=metrics,
        directions=tuple(direction.name.lower() for direction in study.directions),
        trials=tuple(read_trial(trial, directory, tally.successors.get(trial.number)) for trial in tally.trials),
        best_numbers=tuple(tally.best),
        refits=read_refits(directory),
    )


def read_trial(trial: FrozenTrial, directory: StudyDirectory, continued_by: int | None = None) -> TrialResult:
    """Read one trial into frozen data."""
    attrs = trial.user_attrs
    epochs, seconds, facts = read_facts(trial)
    if trial.state.is_finished() and not seconds:  # it was killed with its host, and could not say
        seconds = _measure_from_files(directory, trial)
    if trial.state.is_finished() and not epochs and trial.intermediate_values:
        epochs = count_epochs(max(trial.intermediate_values) + 1, read_trainer_section(directory, trial.number)) or 0
    return TrialResult(
        number=trial.number,
        state=trial.state.name.lower(),
        values=tuple(trial.values) if trial.values is not None else None,
        params=dict(trial.params),
        reason=attrs.get(REASON, ""),
        detail=attrs.get(DETAIL, ""),
        epochs=epochs,
        duration=seconds,
        is_baseline=bool(attrs.get(BASELINE)),
        directory=directory.trial(trial.number),
        checkpoint=directory.checkpoint(trial.number),
        continues=attrs.get(CONTINUES),
        continued_by=continued_by,
        is_feasible=is_feasible(trial),
        facts=facts,
        provenance=read_provenance(trial),
    )


def _measure_from_files(directory: StudyDirectory, trial: FrozenTrial) -> float:
    """Return for how long a trial trained, by when it last wrote a file; 0 where nobody knows."""
    times = []
    for name in ("config.yaml", "metrics.csv", "last.ckpt", "best.ckpt"):
        with contextlib.suppress(OSError):
            times.append((directory.trial(trial.number) / name).stat().st_mtime)
    if not times or trial.datetime_start is None or trial.duration is None:
        return 0.0
    return max(min(max(times) - trial.datetime_start.timestamp(), trial.duration.total_seconds()), 0.0)


def read_trainer_section(directory: StudyDirectory, number: int) -> Mapping[str, Any]:
    """Return the trainer section of a trial's config; empty where it cannot be read."""
    try:
        section = read_mapping(directory.config(number)).get("trainer")
    except InvalidConfigError:  # not written yet, or the folder is on another machine
        return {}
    return section if isinstance(section, Mapping) else {}


def count_epochs(validations: int, trainer: Mapping[str, Any]) -> int | None:
    """Return how many epochs have that many validations; None unless each epoch ends with one.

    Example:
        >>> count_epochs(3, {"max_epochs": 20}), count_epochs(3, {"check_val_every_n_epoch": 2})
        (3, None)
    """
    # 1 means each batch and 1.0 each epoch; with several epochs between validations, training may report too
    interval, limit = trainer.get("val_check_interval"), read_max_epochs(trainer)
    is_whole = interval is None or (isinstance(interval, float) and interval == 1.0)
    if not trainer or not is_whole or trainer.get("check_val_every_n_epoch", 1) != 1:
        return None
    return validations if limit is None or validations <= limit else None


def read_max_epochs(trainer: Mapping[str, Any]) -> int | None:
    """Return the limit of epochs; None where the config has none."""
    limit = trainer.get("max_epochs")
    return limit if isinstance(limit, int) and limit > 0 else None


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
