"""Opening a study: created or continued, its seeds derived, its baseline queued, its trials counted."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import secrets
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import check_distribution_compatibility
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from lightningtune.contract import StopReason
from lightningtune.errors import ConfigurationError, SharedWeightsError
from lightningtune.search.parameters import Parameter
from lightningtune.study.enqueue import EnqueuingStudy
from lightningtune.study.outage import is_away
from lightningtune.study.reporter import BASELINE, DETAIL, REASON, SEED, data_seed_of
from lightningtune.study.sampling import move_on
from lightningtune.study.succession import CONTINUES, successors

log = logging.getLogger(__name__)

VOID = "lightningtune:void"
"""How many trials at the beginning of a study do not count."""
ONCE_ONE_WORKED = 10
"""How many times ``max_failures`` trials may fail alike in a row once a trial has worked."""
SAY_WHAT_IS_IMPOSSIBLE = (
    "If some points of the space are impossible, say so in the space: a function of the trial can raise "
    "optuna.TrialPruned or call trial.set_constraint, and one parameter can have the allowed combinations as its "
    "choices. max_failures= sets how many failures end a study."
)
"""What to do where trials fail alike."""
STUDY_FILE = "lightningtune:study_file"
"""With which study file ``lightningtune tune`` runs it."""


def open_study(
    study_name: str,
    storage: BaseStorage,
    directions: Sequence[str],
    metrics: Sequence[str],
    load_if_exists: bool,
    sampler: optuna.samplers.BaseSampler | None,
    pruner: optuna.pruners.BasePruner | None,
    seed: int | None,
) -> optuna.Study:
    """Create a study, or continue the one of that name.

    The study's seed is kept on it, so that a trial's seed is the same wherever the trial runs. In a study that goes on,
    the sampler is seeded from the study's seed and the number of trials so far, since a sampler that starts again from
    its own seed would repeat its points. A sampler that is not given is TPE.

    Raises:
        ConfigurationError: when the stored study has other directions or metrics.
    """
    if not load_if_exists and study_name in optuna.get_all_study_names(storage):
        raise ConfigurationError(
            f"The study '{study_name}' exists already, and load_if_exists is False. "
            "Give it another study_name, or let it be continued."
        )
    created = optuna.create_study(
        study_name=study_name,
        storage=storage,
        directions=[*directions],  # type: ignore[list-item]  # checked to be directions
        load_if_exists=True,
        sampler=sampler,
        pruner=pruner,
    )
    study = EnqueuingStudy(study_name, storage, created.sampler, created.pruner)
    stored = [direction.name.lower() for direction in study.directions]
    if stored != list(directions):
        raise ConfigurationError(
            f"The study '{study_name}' exists with direction {stored}, but {list(directions)} is asked for. "
            "Give it another study_name."
        )
    other_metrics = study.metric_names not in (None, list(metrics))
    if other_metrics and has_value(study):
        raise ConfigurationError(
            f"The study '{study_name}' exists with metric {study.metric_names}, but {list(metrics)} is asked for. "
            "Give it another study_name."
        )
    if study.metric_names is None or other_metrics:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(metrics))
    if SEED not in study.user_attrs:
        study.set_user_attr(SEED, secrets.randbits(32) if seed is None else seed)
    elif seed is not None and study.user_attrs[SEED] != seed:
        raise ConfigurationError(
            f"The study '{study_name}' exists with seed {study.user_attrs[SEED]}, but seed={seed} is asked for. "
            "Leave the seed out, or give it another study_name."
        )
    trials = study.get_trials(deepcopy=False)
    seed = derive_seed(study, f"sampler:{len(trials)}")
    if sampler is None:
        study.sampler = optuna.samplers.TPESampler(seed=seed)
    elif any(trial.state is not TrialState.WAITING for trial in trials) and not move_on(sampler, seed):
        log.warning(
            "%s has neither a random state that can be seeded nor a reseed_rng(). If it was made with a seed, it now "
            "proposes the points of the first run again.",
            type(sampler).__name__,
        )
    return study


def check_continuable(study: optuna.Study, parameters: Iterable[Parameter], how_to_remove: str) -> None:
    """Refuse a search space that cannot go on in a study: Optuna keeps a parameter's kind, scale and choices.

    A wider or narrower range goes on.

    Args:
        study: the study that goes on.
        parameters: of the search space.
        how_to_remove: the command that removes the study, in quotes.

    Raises:
        ConfigurationError: naming the parameter and what it was.
    """
    trials = study.get_trials(deepcopy=False)
    for parameter in parameters:
        stored = next((t.distributions[parameter.name] for t in trials if parameter.name in t.distributions), None)
        try:
            if stored is not None:
                check_distribution_compatibility(stored, parameter.distribution)
        except ValueError as error:
            raise ConfigurationError(
                f"The study '{study.study_name}' exists with '{parameter.name}' as {stored}, and cannot go on with "
                f"{parameter.distribution}: {error} Give it another study_name, or remove the stored study with "
                f"{how_to_remove}."
            ) from None


def mistake_in(study: optuna.Study, error: BaseException | None) -> ConfigurationError | None:
    """Return what a trial raised if no other trial can succeed either; None if others may."""
    if not isinstance(error, ConfigurationError) or (has_value(study) and not isinstance(error, SharedWeightsError)):
        return None
    return error


def has_value(study: optuna.Study) -> bool:
    """Whether any trial has reported anything: the metric is logged, and the config can be trained."""
    return any(map(_reported, study.get_trials(deepcopy=False)))


def derive_seed(study: optuna.Study, purpose: str | int) -> int:
    """Return a seed that depends on the study's seed and the purpose only; a trial's number is a purpose.

    Returns:
        An integer that ``seed_everything`` takes, below 2**32.
    """
    text = f"{study.user_attrs[SEED]}:{purpose}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")


def data_seed(study: optuna.Study, number: int | None = None) -> int | None:
    """Return the seed of the data, which all trials of a study share.

    Args:
        study: the study.
        number: of a trial; what was recorded of it is returned, which is None for a trial of an older version.
    """
    return derive_seed(study, "data") if number is None else data_seed_of(study.get_trials(deepcopy=False)[number])


def queue_baseline(study: optuna.Study, point: Mapping[str, Any]) -> None:
    """Queue the untuned defaults as the next trial."""
    study.enqueue_trial(dict(point), user_attrs={BASELINE: True})


def start_over(study: optuna.Study) -> None:
    """Where every trial so far has failed without a value, let none of them count: the user has corrected something."""
    if _has_only_failed(study):
        study.set_user_attr(VOID, len(study.get_trials(deepcopy=False)))


def is_over(study: optuna.Study, n_trials: int) -> bool:
    """Whether a study has its trials, and they do not start over when it is run again."""
    return not _has_only_failed(study) and count_finished(study) >= n_trials


def _has_only_failed(study: optuna.Study) -> bool:
    trials = study.get_trials(deepcopy=False)
    return bool(trials) and not has_value(study) and all(trial.state is TrialState.FAIL for trial in trials)


def is_new(study: optuna.Study) -> bool:
    """Whether nothing has been tried yet, but for trials that do not count, and none waits that we have queued."""
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    return not _counted(study) and not any({BASELINE, CONTINUES} & {*trial.user_attrs} for trial in waiting)


def count_finished(study: optuna.Study) -> int:
    """Count the trials that need not be run again."""
    return sum(trial.state.is_finished() for trial in _counted(study))


def describe_progress(study: optuna.Study, n_trials: int) -> str:
    """Return how many of a study's trials are done, or that its storage is away: then nobody knows."""
    try:
        return f"{count_finished(study)} of {n_trials} trials are done"
    except Exception as error:
        if not is_away(error):
            raise
        return "The study's storage is away"


def _counted(study: optuna.Study) -> list[FrozenTrial]:
    trials = study.get_trials(deepcopy=False)
    replaced = successors(trials)
    return [t for t in trials[study.user_attrs.get(VOID, 0) :] if _counts(t) and t.number not in replaced]


def _counts(trial: FrozenTrial) -> bool:
    """Whether a trial counts: not one that waits, that was interrupted, or that a user's mistake has ended."""
    again = {StopReason.INTERRUPTED.value, StopReason.REFUSED.value}
    is_failed = trial.state is TrialState.FAIL
    return trial.state is not TrialState.WAITING and not (is_failed and trial.user_attrs.get(REASON) in again)


def failing_alike(study: optuna.Study, max_failures: int) -> tuple[int, str] | None:
    """Return how many trials in a row failed the same way, and how, once they are enough to end the study.

    Enough are ``max_failures`` while no trial has worked, and `ONCE_ONE_WORKED` times as many afterwards: then the
    training works, and some points of the space are impossible. A trial has worked when it completed, or was pruned
    after it reported a value. One that was pruned without a value says nothing, and neither does one that another
    trial goes on from.
    """
    trials = study.get_trials(deepcopy=False)
    replaced = successors(trials)
    ended = [
        t for t in trials if t.state.is_finished() and t.number not in replaced and (_has_failed(t) or _reported(t))
    ]
    run: list[FrozenTrial] = []
    for trial in reversed(ended):
        if not _has_failed(trial) or _way_to_fail(trial) != _way_to_fail(ended[-1]):
            break
        run.append(trial)
    has_worked = not all(map(_has_failed, ended))
    if len(run) < max_failures * (ONCE_ONE_WORKED if has_worked else 1):
        return None
    return len(run), str(run[0].user_attrs.get(DETAIL))


def _has_failed(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.FAIL


def _reported(trial: FrozenTrial) -> bool:
    return bool(trial.values or trial.intermediate_values)


def _way_to_fail(trial: FrozenTrial) -> tuple[str, ...]:
    """Return what trials that fail alike have in common: the message without its numbers and addresses."""
    reason, detail = trial.user_attrs.get(REASON, ""), trial.user_attrs.get(DETAIL, "")
    if reason == StopReason.OUT_OF_MEMORY.value:
        return (reason,)
    return reason, re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?", "#", detail)


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Turn down Optuna's log while a study runs: what it would say is shown, or kept on the trial."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(level, optuna.logging.ERROR))
    try:
        with warnings.catch_warnings():
            # an untuned default may lie outside its range; the baseline is trained with it all the same
            warnings.filterwarnings("ignore", message=".* is out of (the )?range", category=UserWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
