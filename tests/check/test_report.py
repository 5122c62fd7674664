import json
import math

from lightningtune.check.report import CheckReport, Finding, Forecast, in_order, named
from lightningtune.check.runs import DryRunNotes, TriedPoint
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


def test_errors_come_first_and_each_once():
    note, error = Finding("note", "run", "x"), Finding("error", "run", "y")
    assert in_order([note, error, note]) == (error, note)


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
        "metrics": {"val_loss": "nan"},
    }
    assert plain["findings"] == [{"severity": "warning", "about": "metric", "text": "x"}]
    assert plain["forecast"] == dict.fromkeys(vars(Forecast()))


def test_a_run_of_many_parameters_is_named_by_their_number():
    values = {f"model.parameter_{i}": i for i in range(20)}
    assert named(TriedPoint("all low", values, TrialOutcome(StopReason.FAILED))) == "all low (20 parameters)"
    alone = TriedPoint("lr=1", {"lr": 1.0}, TrialOutcome(StopReason.FAILED), parameter="lr")
    assert named(alone) == "lr=1"
    high = TriedPoint("all high", {"lr": 1.0}, TrialOutcome(StopReason.FAILED), parameter="lr")
    assert named(high) == "all high (lr=1)"
