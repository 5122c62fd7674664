"""Studies to be reported on, made without a training: as the host and another user of Optuna leave them."""

import datetime
import math
import random

import optuna
import pytest

from lightningtune.contract import StopReason, TrialFacts, TrialOutcome
from lightningtune.study.identity import WORKER
from lightningtune.study.opening import quiet_optuna
from lightningtune.study.reporter import BASELINE, FACTS, PLACEMENT, PROVENANCE, SEED, record_outcome
from lightningtune.study.storage import get_id

needs_optuna_5 = pytest.mark.skipif(int(optuna.__version__.partition(".")[0]) < 5, reason="Optuna 4 lacks it")
START = datetime.datetime(2026, 3, 9, 8, 0)
DISTRIBUTIONS = {
    "lr": optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True),
    "width": optuna.distributions.IntDistribution(16, 256),
    "dropout": optuna.distributions.FloatDistribution(0.0, 0.5),
    "act": optuna.distributions.CategoricalDistribution(["relu", "gelu", "tanh"]),
    "batch_size": optuna.distributions.CategoricalDistribution([16, 32, 64]),
}
VERSIONS = {"lightningtune": "0.1.0", "python": "3.11.7", "lightning": "2.6.6", "torch": "2.15.0", "optuna": "5.0.0"}


def ours(trials, epochs=12, lanes=2, seed=0, distributions=DISTRIBUTIONS):
    """Return a study as the host leaves it: the baseline first, every fifth trial pruned, every ninth failed."""
    chance = random.Random(seed)
    study = optuna.create_study(study_name="digits", direction="maximize")
    study.set_user_attr(SEED, seed)
    with quiet_optuna():
        study.add_trials([_trial(number, epochs, lanes, chance, distributions) for number in range(trials)])
    return study


def _trial(number, epochs, lanes, chance, distributions):
    params = {name: _sampled(distribution, chance) for name, distribution in distributions.items()}
    height = 0.95 - 0.02 * sum((_place(kind, params[name]) - 0.6) ** 2 for name, kind in distributions.items())
    curve = [height * (1 - math.exp(-(step + 1) / 4)) + chance.gauss(0, 0.003) for step in range(epochs)]
    ending = "fail" if number % 9 == 8 else "pruned" if number % 5 == 4 else "complete"
    if ending == "pruned":
        curve = curve[: epochs // 3]
    facts = TrialFacts("cpu (a processor)", threads=1, parameters=1000, memory=2**29)
    state, value = optuna.trial.TrialState.COMPLETE, None
    if ending == "complete":
        outcome = TrialOutcome(StopReason.COMPLETED, score=(max(curve),), epochs=epochs, duration=50.0, facts=facts)
        value = max(curve)
    elif ending == "pruned":
        text = f"pruned by MedianPruner with {curve[-1]:.6g} at validation {len(curve)}"
        outcome = TrialOutcome(StopReason.PRUNED, text, epochs=len(curve), duration=20.0, facts=facts)
        state = optuna.trial.TrialState.PRUNED
    else:
        outcome, curve = TrialOutcome.failed(RuntimeError(f"out of luck at {number}")), []
        state = optuna.trial.TrialState.FAIL
    attrs = {BASELINE: True} if number == 0 else {}
    attrs |= {
        PLACEMENT: {"devices": [], "cores": [number % lanes], "threads": 1},
        WORKER: {"host": "here", "machine": "m", "process": 1, "started": 1},
        PROVENANCE: {"config": "0", "versions": VERSIONS, "commit": "0123456789abcdef", "is_dirty": False},
    }
    trial = optuna.trial.create_trial(
        state=state,
        value=value,
        params=params,
        distributions=distributions,
        user_attrs=attrs,
        intermediate_values=dict(enumerate(curve)),
    )
    record_outcome(_Attributes(attrs), outcome)
    trial.user_attrs = attrs
    seconds = attrs[FACTS]["seconds"] + 10
    trial.datetime_start = START + datetime.timedelta(seconds=60 * (number // lanes))
    trial.datetime_complete = trial.datetime_start + datetime.timedelta(seconds=seconds)
    return trial


class _Attributes:
    def __init__(self, attrs):
        self._attrs = attrs

    def set_user_attr(self, name, value):
        self._attrs[name] = value


def _sampled(kind, chance):
    if isinstance(kind, optuna.distributions.CategoricalDistribution):
        return chance.choice(kind.choices)
    if kind.log:
        return math.exp(chance.uniform(math.log(kind.low), math.log(kind.high)))
    value = chance.uniform(kind.low, kind.high)
    return round(value) if isinstance(kind, optuna.distributions.IntDistribution) else value


def _place(kind, value):
    """Where in its range a value lies, from 0 to 1."""
    if isinstance(kind, optuna.distributions.CategoricalDistribution):
        return kind.choices.index(value) / len(kind.choices)
    if kind.log:
        return math.log(value / kind.low) / math.log(kind.high / kind.low)
    return (value - kind.low) / (kind.high - kind.low)


def theirs(directions=("minimize",), trials=12):
    """Return a study of somebody else's: no attribute of ours, no metric named."""
    study = optuna.create_study(study_name="theirs", directions=[*directions])

    def objective(trial):
        x, y = trial.suggest_float("x", -1, 1), trial.suggest_int("y", 0, 5)
        if len(directions) > 1:
            return [x**2 + index * y for index in range(len(directions))]
        for step in range(4):
            trial.report(x**2 + y / (step + 1), step)
        if trial.number == 3:
            raise optuna.TrialPruned
        return x**2 + y

    with quiet_optuna():
        study.optimize(objective, n_trials=trials)
    return study


def constrain(trial, value):
    """Set a constraint of a trial: by Optuna 5's method, or as a sampler of Optuna 4 keeps it."""
    if hasattr(trial, "set_constraint"):
        trial.set_constraint("memory", value)
    else:
        trial.storage.set_trial_system_attr(get_id(trial), "constraints", [value])


def constrained(trials=12):
    """Return a study in which every other trial violates a constraint, the best of all among them."""
    study = optuna.create_study(study_name="constrained")
    for number in range(trials):
        params = {"x": float(number), "y": float(number % 3)}
        ranges = dict.fromkeys(params, optuna.distributions.FloatDistribution(0, 100))
        violated = {"constraints": [1.0 if number % 2 == 0 else -1.0]}
        study.add_trial(
            optuna.trial.create_trial(value=float(number), params=params, distributions=ranges, system_attrs=violated)
        )
    return study


def overlapping(trials=12):
    """Return a study of ours with six trials at a time on two cores."""
    study = ours(trials)
    six = optuna.create_study(study_name="six at a time", direction="maximize")
    six.set_user_attr(SEED, 0)
    for trial in study.trials:
        trial.datetime_start = START + datetime.timedelta(seconds=20 * trial.number)
        trial.datetime_complete = trial.datetime_start + datetime.timedelta(seconds=120)
        with quiet_optuna():
            six.add_trial(trial)
    return six
