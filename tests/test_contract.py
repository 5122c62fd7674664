import pickle
from pathlib import Path

import pytest

from lightningtune.contract import Objective, StopReason, TrialOutcome, TrialSpec


def test_a_spec_is_plain_frozen_data():
    spec = TrialSpec(3, {"model": {"lr": 0.1}}, Path("t"), Objective(("val_loss",), ("min",)))
    assert pickle.loads(pickle.dumps(spec)) == spec
    with pytest.raises(AttributeError):
        spec.number = 4


def test_a_failure_keeps_its_traceback_as_text():
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        outcome = TrialOutcome.failed(error)
    assert (outcome.reason, outcome.detail, outcome.score) == (StopReason.FAILED, "ValueError: two lines", None)
    assert "test_a_failure_keeps_its_traceback" in outcome.traceback
    assert TrialOutcome.failed(KeyError()).detail == "KeyError"


def test_outcomes_compare_by_what_happened():
    assert TrialOutcome(StopReason.FAILED, error=ValueError()) == TrialOutcome(StopReason.FAILED, error=ValueError())
