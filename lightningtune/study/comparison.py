"""A trial's record beside a new training of it: whether they are the same, and what else is not."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightningtune.contract import TrialFacts, Values
from lightningtune.errors import ConfigurationError
from lightningtune.study.provenance import Provenance
from lightningtune.wording import Readable, counted


class Agreement(str, enum.Enum):
    """How a new training agrees with the record."""

    IDENTICAL = "identical"
    WITHIN_TOLERANCE = "within tolerance"
    DIFFERENT = "different"


def check_tolerance(value: Any) -> None:
    """Raise a ConfigurationError where a tolerance is no share."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ConfigurationError(f"tolerance must be a number from 0 and below 1, but got {value!r}.")


@dataclass(frozen=True)
class Training:
    """What a training came to.

    Attributes:
        curve: validation (from 0) -> value of the metric; empty where there are several objectives.
        values: its score, one value for each metric; None where it did not complete.
        ending: how it ended by itself, in one line; None where it was stopped, or cut short.
    """

    curve: Mapping[int, float]
    values: Values | None = None
    ending: str | None = None


@dataclass(frozen=True)
class Difference:
    """Something around a training, such as "torch" or "threads", that is not as it was.

    Example:
        >>> print(Difference("threads", "4", "1"))
        threads 4 then, 1 now
    """

    name: str
    recorded: str
    now: str

    def __str__(self) -> str:
        return f"{self.name} {self.recorded} then, {self.now} now"


@dataclass(frozen=True, repr=False)
class Replay(Readable):
    """A trial's record beside a new training of it. Printed, it says how the two agree.

    Attributes:
        number: the trial's.
        recorded: what the trial came to.
        replayed: what the new training came to, as far as the record goes.
        tolerance: the largest difference of two values that agree, as a share of the larger one.
        differences: what around the trainings is not the same, and may be why they part.
        is_seeded: whether the trial has a seed. Without one, nothing makes the two the same.
        directory: the folder of the new training.

    Example:
        >>> curves = Training({0: 0.5, 1: 0.25}), Training({0: 0.5, 1: 0.3})
        >>> replay = Replay(3, *curves, tolerance=1e-5, differences=(Difference("torch", "2.5.0", "2.6.0"),))
        >>> replay.agreement.value, replay.parts_at
        ('different', 1)
        >>> print(replay)
        Trial 3, trained again, parts from its record at validation 2: 0.25 then, 0.3 now. \
What differs: torch 2.5.0 then, 2.6.0 now.
    """

    number: int
    recorded: Training
    replayed: Training
    tolerance: float
    differences: tuple[Difference, ...] = ()
    is_seeded: bool = True
    directory: Path = Path()

    @property
    def agreement(self) -> Agreement:
        """Identical to the last bit, within the tolerance, or different."""
        if self._describe_parting() is not None:
            return Agreement.DIFFERENT
        return Agreement.WITHIN_TOLERANCE if self.largest else Agreement.IDENTICAL

    @property
    def parts_at(self) -> int | None:
        """The first validation (from 0) at which the curves differ by more than the tolerance, or only one goes on."""
        old, new = self.recorded.curve, self.replayed.curve
        for step in sorted({*old, *new}):
            if step not in old or step not in new or _apart(old[step], new[step]) > self.tolerance:
                return step
        return None

    @property
    def largest(self) -> float:
        """The largest difference of two values, as a share of the larger one."""
        old, new = self.recorded.curve, self.replayed.curve
        pairs = [(old[step], new[step]) for step in old if step in new]
        pairs += zip(self.recorded.values or (), self.replayed.values or (), strict=False)
        return max((_apart(one, other) for one, other in pairs), default=0.0)

    def __str__(self) -> str:
        parting = self._describe_parting()
        if parting is not None:
            result = parting
        elif self.largest:
            result = f"agrees within {self.tolerance:g}: {self._list_compared()}, {self.largest:.1e} off at most"
        else:
            result = f"is identical: {self._list_compared()}"
        notes = [] if self.is_seeded else ["It has no seed."]
        if self.differences:
            notes.append(f"What differs: {'; '.join(map(str, self.differences))}.")
        elif parting is not None:
            notes.append("Nothing else that was recorded differs.")
        return " ".join([f"Trial {self.number}, trained again, {result}.", *notes])

    def _describe_parting(self) -> str | None:
        """Say where the two part; None where they do not."""
        step = self.parts_at
        if step is not None:
            old, new = self.recorded.curve.get(step), self.replayed.curve.get(step)
            if new is None:
                return f"parts from its record at validation {step + 1}, which it did not reach: {self.replayed.ending}"
            then = "where the record ends" if old is None else f"{old:.6g} then"
            return f"parts from its record at validation {step + 1}: {then}, {_tell_apart(new, old)} now"
        old_values, new_values = self.recorded.values, self.replayed.values
        if old_values is not None and new_values is not None:
            pairs = zip(old_values, new_values, strict=True)
            if any(_apart(one, other) > self.tolerance for one, other in pairs):
                return f"has another score: {_list_values(old_values)} then, {_list_values(new_values)} now"
        old_ending, new_ending = self.recorded.ending, self.replayed.ending
        if old_ending is not None and _mask_addresses(old_ending) != _mask_addresses(new_ending or ""):
            return f"ended in another way: {old_ending} then, {new_ending or 'it went on'} now"
        return None

    def _list_compared(self) -> str:
        count = len(self.recorded.curve)
        parts = [counted(count, "validation")] if count else []
        if self.recorded.values is not None:
            parts.append("the score")
        elif self.recorded.ending is not None:
            parts.append(f"the end ({self.recorded.ending})")
        return " and ".join(parts)


def find_differences(
    then: Provenance | None, now: Provenance, old: TrialFacts, new: TrialFacts
) -> Iterator[Difference]:
    """Yield what is not as it was around a training. What was not recorded is left out.

    Uncommitted changes, then or now, count as a difference: nobody knows which they are.

    Example:
        >>> here = Provenance({"torch": "2.6.0"}, "0123456789ab", is_dirty=True)
        >>> for difference in find_differences(here, here, TrialFacts(threads=4), TrialFacts(threads=1)):
        ...     print(difference)
        commit 0123456789 with changes then, 0123456789 with changes now
        threads 4 then, 1 now
    """
    if then is not None:
        names, names_now = {**then.versions, **then.classes}, {**now.versions, **now.classes}
        for name, before in names.items():
            if before != names_now.get(name):
                yield Difference(name, before or "none", names_now.get(name) or "none")
        if then.commit != now.commit or then.is_dirty or now.is_dirty:
            yield Difference("commit", _describe_commit(then), _describe_commit(now))
    for name in ("device", "threads", "ranks", "parameters"):
        one, other = getattr(old, name), getattr(new, name)
        if None not in (one, other) and one != other:
            yield Difference(name, str(one), str(other))


def _describe_commit(provenance: Provenance) -> str:
    return f"{(provenance.commit or 'none')[:10]}{' with changes' if provenance.is_dirty else ''}"


def _apart(one: float, other: float) -> float:
    """Return the difference of two values as a share of the larger one; NaN agrees with NaN only."""
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    share = abs(one - other) / max(abs(one), abs(other))
    return share if math.isfinite(share) else math.inf


def _tell_apart(value: float, beside: float | None) -> str:
    """Write a value with as many digits as tell it from another one."""
    short = f"{value:.6g}"
    return short if beside is None or short != f"{beside:.6g}" else repr(value)


def _list_values(values: Values) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _mask_addresses(ending: str) -> str:
    return re.sub(r"0x[0-9a-f]+", "#", ending)
