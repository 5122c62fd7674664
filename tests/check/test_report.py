import json
import math
from dataclasses import replace

import pytest

from lightningtune.check.report import CheckReport, DryRunNotes, Finding, Forecast, TriedPoint
from lightningtune.contract import StopReason, TrialOutcome

LONG = "The first of several findings that take more than a line, since it says what is wrong, and what would be right."


def report(*findings, runs=(), facts=(("Tried", "a run"), ("Metric", "val_loss 0.5"))):
    return CheckReport("Study 'digits': minimize val_loss, 20 trials.", tuple(findings), tuple(runs), tuple(facts))


def test_a_report_reads_in_eighty_columns():
    found = report(Finding("error", "run", LONG), Finding("note", "space", "Good to know."))
    assert str(found).splitlines() == [
        "Study 'digits': minimize val_loss, 20 trials.",
        "  Tried   a run",
        "  Metric  val_loss 0.5",
        "",
        "  error    The first of several findings that take more than a line, since it",
        "           says what is wrong, and what would be right.",
        "  note     Good to know.",
        "",
        "1 error, 1 note.",
    ]
    assert [severity for severity, line in found.lines() if severity] == ["error", "error", "note"]
    assert len([line for _, line in found.lines(200)]) == 8


def test_an_empty_report_says_so():
    assert str(report(facts=())).splitlines()[1:] == ["", "Nothing was found."]
    assert report().ok


def test_only_errors_make_it_wrong():
    assert report(Finding("warning", "run", "x"), Finding("warning", "run", "y")).verdict == "2 warnings."
    assert report(Finding("warning", "run", "x")).ok
    assert not report(Finding("error", "run", "x")).ok


def test_json_holds_what_was_tried_even_where_it_was_no_number():
    outcome = TrialOutcome(StopReason.NON_FINITE, "val_loss is nan", duration=0.5)
    runs = [
        TriedPoint(
            "all high", {"lr": 10.0, "net": {"class_path": "x"}}, outcome, DryRunNotes(metrics={"val_loss": math.nan})
        ),
        TriedPoint("lr=1", {"lr": 1}, TrialOutcome(StopReason.FAILED)),
    ]
    plain = report(Finding("warning", "metric", "x"), runs=runs).to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["runs"][0] == {
        "name": "all high",
        "params": {"lr": 10.0, "net": {"class_path": "x"}},
        "outcome": "non_finite",
        "detail": "val_loss is nan",
        "seconds": 0.5,
        "metrics": {"val_loss": None},
    }
    assert plain["findings"] == [{"severity": "warning", "about": "metric", "text": "x"}]
    assert plain["forecast"] == dict.fromkeys(vars(Forecast()))


def test_a_run_of_many_parameters_is_named_by_their_number():
    values = {f"model.parameter_{i}": i for i in range(20)}
    assert str(TriedPoint("all low", values, TrialOutcome(StopReason.FAILED))) == "all low (20 parameters)"
    alone = TriedPoint("lr=1", {"lr": 1.0}, TrialOutcome(StopReason.FAILED), parameter="lr")
    assert str(alone) == "lr=1"
    high = TriedPoint("all high", {"lr": 1.0}, TrialOutcome(StopReason.FAILED), parameter="lr")
    assert str(high) == "all high (lr=1)"


# --- the notes of a dry run --------------------------------------------------------------------------------------

NOTES = DryRunNotes(
    metrics={"val_loss": float("nan")},
    losses=[1.0, 0.9],
    train_batches=100,
    settings={"max_epochs": 10, "val_check_batch": math.inf},
    fingerprint={"model": "Line()"},
)


def test_what_was_noted_is_read_back_and_nothing_is_made_of_a_torn_file(tmp_path):
    path = tmp_path / "notes.json"
    assert DryRunNotes.read(path) is None
    NOTES.write(path)
    assert DryRunNotes.read(path).identity == NOTES.identity
    path.write_text(path.read_text()[:-9])
    assert DryRunNotes.read(path) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"metrics": {"val_loss": 0.5000001}}, {"losses": [1.0]}, {"train_batches": 99},
        {"fingerprint": {"model": "Other()"}}, {"settings": {"max_epochs": 9}},
    ],
)  # fmt: skip
def test_any_difference_makes_two_trainings_two(changed):
    assert replace(NOTES, train_seconds=[9.0], checkpoint=3).identity == NOTES.identity
    assert replace(NOTES, **changed).identity != NOTES.identity
