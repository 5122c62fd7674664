"""The trial that a user's function sees: Optuna's own, with fixed values, any YAML choice, and a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import FloatDistribution, IntDistribution

from lightningtune.errors import SearchSpaceError
from lightningtune.search.distributions import Parameter, parse_parameter, too_fine


class DryStudy(optuna.Study):
    """A study in memory, whose trials try a search space. That it was stopped is noted, and stops nothing.

    Args:
        sampler: samples its trials; at random, and always the same ones, when not given.

    Example:
        >>> study = DryStudy()
        >>> study.ask().study.stop()
        >>> study.is_stopped
        True
    """

    def __init__(self, sampler: optuna.samplers.BaseSampler | None = None) -> None:
        sampler = sampler or optuna.samplers.RandomSampler(seed=0)
        storage = optuna.storages.InMemoryStorage()
        super().__init__(optuna.create_study(storage=storage).study_name, storage, sampler)

    is_stopped = False

    def stop(self) -> None:
        """Note that the study was to end."""
        self.is_stopped = True


class RecordingTrial:
    """Stands before an Optuna trial while a search space function runs.

    It answers ``suggest_float``, ``suggest_int`` and ``suggest_categorical``, lets choices be any YAML value,
    records what was suggested, and hands everything else (``number``, ``set_constraint``, ``set_user_attr``) to the
    trial behind it.

    Args:
        trial: the Optuna trial.
        answer: returns the value of a parameter; ``lambda p: p.suggest(trial)`` samples it.
        fixed: values that are given, and so are not sampled, by name.
    """

    def __init__(self, trial: Any, answer: Callable[[Parameter], Any], fixed: Mapping[str, Any]) -> None:
        self._trial = trial
        self._answer = answer
        self._fixed = fixed
        self.suggested: dict[str, Any] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Suggest a float, as ``optuna.Trial.suggest_float`` does."""
        value: float = self._suggest(name, lambda: FloatDistribution(low, high, step=step, log=log))
        return value

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Suggest an integer, as ``optuna.Trial.suggest_int`` does."""
        value: int = self._suggest(name, lambda: IntDistribution(low, high, step=step, log=log))
        return value

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Suggest one of ``choices``, which may be any YAML values."""
        return self._suggest(name, lambda: ("categorical", choices))

    def _suggest(self, name: str, spec: Callable[[], Any]) -> Any:
        try:
            parameter = parse_parameter(name, spec())
        except SearchSpaceError:
            raise
        except ArithmeticError:  # Optuna counts the steps
            raise too_fine(name, "this size") from None
        except ValueError as error:
            raise SearchSpaceError(f"'{name}': {error}") from error
        value = self._fixed[name] if name in self._fixed else self._answer(parameter)
        self.suggested[name] = value
        return value

    def __getattr__(self, name: str) -> Any:
        if name in ("_trial", "_answer", "_fixed", "suggested") or name.startswith("__"):  # a copy has none of them yet
            raise AttributeError(name)
        if name.startswith("suggest_"):
            raise AttributeError(
                f"{name} is not supported in a search space; use suggest_float, suggest_int or suggest_categorical."
            )
        if name == "set_constraint" and not hasattr(self._trial, name):
            raise AttributeError(
                f"set_constraint needs Optuna 5, and this is Optuna {optuna.__version__}. Give a sampler its "
                "constraints_func instead."
            )
        return getattr(self._trial, name)
