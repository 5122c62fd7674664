"""Opening a study: created or continued, with its seeds, and its baseline queued."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from lightningtune.errors import ConfigurationError
from lightningtune.study.reporter import BASELINE, SEED, read_data_seed
from lightningtune.study.sampling import EnqueuingStudy, move_on
from lightningtune.study.tally import has_value

log = logging.getLogger(__name__)


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
    the sampler is seeded from the study's seed and the number of trials so far: with its own seed it would repeat its
    points. A sampler that is not given is TPE.
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
    exists = f"The study '{study_name}' exists with"
    stored = [direction.name.lower() for direction in study.directions]
    if stored != list(directions):
        raise ConfigurationError(
            f"{exists} direction {stored}, but {list(directions)} is asked for. Give it another study_name."
        )
    # a misspelt metric may be corrected while no trial has reported a value
    has_other_metrics = study.metric_names not in (None, list(metrics))
    if has_other_metrics and has_value(study):
        raise ConfigurationError(
            f"{exists} metric {study.metric_names}, but {list(metrics)} is asked for. Give it another study_name."
        )
    if study.metric_names is None or has_other_metrics:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(metrics))
    if SEED not in study.user_attrs:
        study.set_user_attr(SEED, secrets.randbits(32) if seed is None else seed)
    elif seed is not None and study.user_attrs[SEED] != seed:
        raise ConfigurationError(
            f"{exists} seed {study.user_attrs[SEED]}, but seed={seed} is asked for. "
            "Leave the seed out, or give it another study_name."
        )
    trials = study.get_trials(deepcopy=False)
    sampler_seed = derive_seed(study, f"sampler:{len(trials)}")
    has_begun = any(trial.state is not TrialState.WAITING for trial in trials)
    if sampler is None:
        study.sampler = optuna.samplers.TPESampler(seed=sampler_seed)
    elif has_begun and not move_on(sampler, sampler_seed):
        log.warning(
            "%s has neither a random state that can be seeded nor a reseed_rng(). If it was made with a seed, it now "
            "proposes the points of the first run again.",
            type(sampler).__name__,
        )
    return study


def derive_seed(study: optuna.Study, purpose: str | int) -> int:
    """Return a seed below 2**32 that depends on the study's seed and the purpose only; a trial's number is one."""
    text = f"{study.user_attrs[SEED]}:{purpose}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")


def data_seed(study: optuna.Study, number: int | None = None) -> int | None:
    """Return the seed of the data, which all trials of a study share, or the one that a trial was recorded with."""
    return derive_seed(study, "data") if number is None else read_data_seed(study.get_trials(deepcopy=False)[number])


def queue_baseline(study: optuna.Study, point: Mapping[str, Any]) -> None:
    """Queue the untuned defaults as the next trial."""
    study.enqueue_trial(dict(point), user_attrs={BASELINE: True})


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Turn down Optuna's log while a study runs: what it says is shown elsewhere, or kept on the trial."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(level, optuna.logging.ERROR))
    try:
        with warnings.catch_warnings():
            # an untuned default may lie outside its range; the baseline is trained with it all the same
            warnings.filterwarnings("ignore", message=".* is out of (the )?range", category=UserWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
