"""A record beside a new training: what is said of them."""

import math

import pytest

from lightningtune.contract import TrialFacts
from lightningtune.study.comparison import Agreement, Difference, Replay, Training, find_differences
from lightningtune.study.provenance import Provenance

CURVE = {0: 1.0, 1: 0.5}
NAN = {0: 1.0, 1: math.nan}


def replay(recorded, replayed, **given):
    return Replay(7, recorded, replayed, **{"tolerance": 1e-3, **given})


def done(curve, *values):
    return Training(curve, values or (min(curve.values()),), "completed")


@pytest.mark.parametrize(
    ("recorded", "replayed", "said"),
    [
        (done(CURVE), done(CURVE), "2 validations and the score"),
        (done({0: 1.0}), done({0: 1.0}), "1 validation and the score"),
        (done(NAN, 1.0), done(NAN, 1.0), "2 validations and the score"),
        (done({0: 0.0}), done({0: -0.0}), "1 validation and the score"),
        (Training(CURVE), Training(CURVE), "2 validations"),
        (Training(CURVE), Training(CURVE, (0.5,), "completed"), "2 validations"),
        (Training({}, (1.0, 2.0), "completed"), Training({}, (1.0, 2.0), "completed"), "the score"),
        (Training({}, None, "E: at 0x7f"), Training({}, None, "E: at 0x8a"), "the end (E: at 0x7f)"),
    ],
)
def test_what_is_the_same_to_the_last_bit_is_identical(recorded, replayed, said):
    found = replay(recorded, replayed, tolerance=0.0)
    assert (found.agreement, found.parts_at, found.largest) == (Agreement.IDENTICAL, None, 0.0)
    assert str(found) == f"Trial 7, trained again, is identical: {said}."


def test_what_is_nearly_the_same_is_within_the_tolerance():
    found = replay(done(CURVE), done({0: 1.0001, 1: 0.5}))
    assert (found.agreement, found.parts_at) == (Agreement.WITHIN_TOLERANCE, None)
    assert found.largest == pytest.approx(1e-4, rel=1e-3)
    assert str(found) == (
        "Trial 7, trained again, agrees within 0.001: 2 validations and the score, 1.0e-04 off at most."
    )
    assert replay(done(CURVE), done({0: 1.0001, 1: 0.5}), tolerance=1e-5).agreement is Agreement.DIFFERENT


@pytest.mark.parametrize(
    ("replayed", "step", "said"),
    [
        (done({0: 1.0, 1: 0.6}), 1, "parts from its record at validation 2: 0.5 then, 0.6 now"),
        (done({0: 1.0, 1: math.nan}, 1.0), 1, "parts from its record at validation 2: 0.5 then, nan now"),
        (done({0: -1.0, 1: 0.5}), 0, "parts from its record at validation 1: 1 then, -1 now"),
        (
            Training({0: 1.0}, None, "failed"),
            1,
            "parts from its record at validation 2, which it did not reach: failed",
        ),
        (Training({**CURVE, 2: 0.1}), 2, "parts from its record at validation 3: where the record ends, 0.1 now"),
        (done(CURVE, 0.7), None, "has another score: 0.5 then, 0.7 now"),
        (Training(CURVE, None, "ValueError: x"), None, "ended in another way: completed then, ValueError: x now"),
        (Training(CURVE), None, "ended in another way: completed then, it went on now"),
    ],
)
def test_what_parts_is_told_with_both_values(replayed, step, said):
    found = replay(done(CURVE), replayed)
    assert (found.agreement, found.parts_at) == (Agreement.DIFFERENT, step)
    assert str(found) == f"Trial 7, trained again, {said}. Nothing else that was recorded differs."


def test_values_that_look_the_same_are_shown_to_the_last_digit():
    assert "0.5 then, 0.5000000001 now" in str(replay(done(CURVE), done({0: 1.0, 1: 0.5000000001}), tolerance=0.0))


def test_what_differs_around_a_training_is_told_whatever_came_of_it():
    found = replay(done(CURVE), done(CURVE), differences=(Difference("torch", "2.5", "2.6"),), is_seeded=False)
    assert str(found) == (
        "Trial 7, trained again, is identical: 2 validations and the score. It has no seed. "
        "What differs: torch 2.5 then, 2.6 now."
    )


@pytest.mark.parametrize(
    ("then", "now", "named"),
    [
        (Provenance({"torch": "2.5"}, "a" * 40, False), Provenance({"torch": "2.5"}, "a" * 40, False), []),
        (Provenance({"torch": "2.5"}), Provenance({"torch": "2.6"}), ["torch 2.5 then, 2.6 now"]),
        (Provenance({}, "a" * 40, False), Provenance({}), ["commit aaaaaaaaaa then, none now"]),
        (Provenance({}, "a" * 40, True), Provenance({}, "a" * 40, False),
         ["commit aaaaaaaaaa with changes then, aaaaaaaaaa now"]),
        (Provenance({}, classes={"model_class": "m.A", "datamodule_class": None}),
         Provenance({}, classes={"model_class": "m.B", "datamodule_class": "m.D"}),
         ["model_class m.A then, m.B now", "datamodule_class none then, m.D now"]),
        (None, Provenance({"torch": "2.6"}, "a" * 40), []),
    ],
)  # fmt: skip
def test_versions_and_commit_that_differ_are_named(then, now, named):
    assert [*map(str, find_differences(then, now, TrialFacts(), TrialFacts()))] == named


def test_of_the_machine_what_was_recorded_counts():
    here = Provenance({})
    then, now = TrialFacts(device="cpu (A)", threads=2), TrialFacts("cpu (B)", 2, ranks=1, parameters=5, memory=9)
    assert [*find_differences(here, here, then, now)] == [Difference("device", "cpu (A)", "cpu (B)")]
