import dataclasses

import pytest

from lightningtune.check.findings import (
    of_constants,
    of_ends,
    of_lengths,
    of_metrics,
    of_parameters,
    of_pruner,
    pruner_fact,
)
from lightningtune.check.pruning import Reach
from lightningtune.check.runs import DryRunNotes, Length, TriedPoint, length_of
from lightningtune.contract import Objective, StopReason, TrialOutcome
from lightningtune.errors import MetricError

LOSS = Objective(("val_loss",), ("min",))
DONE = TrialOutcome(StopReason.COMPLETED)
NOTED = DryRunNotes(metrics={"val_loss": 0.5}, losses=[1.0])


def run(name, outcome=DONE, noted=NOTED, **more):
    return TriedPoint(name, more.pop("values", {}), outcome, noted, **more)


def failed(text):
    return TrialOutcome.failed(RuntimeError(text))


def diverged(text="val_loss is nan"):
    return TrialOutcome(StopReason.NON_FINITE, text)


def ends(*runs, objective=LOSS):
    return [(one.severity, one.about, one.text) for one in of_ends(runs, objective)]


def test_runs_that_end_well_are_no_finding():
    assert ends(run("all low"), run("all high")) == []


def test_errors_that_differ_in_numbers_are_one_finding_whose_parameter_comes_first():
    runs = [
        run("all low"),
        run("all high", failed("8 is too wide"), values={"width": 8}),
        run("width=9", failed("9 is too wide"), values={"width": 9}, parameter="width"),
        run("lr=1", failed("other")),
    ]
    assert ends(*runs) == [
        ("error", "run", "width=9, all high: RuntimeError: 8 is too wide"),
        ("error", "run", "lr=1: RuntimeError: other"),
    ]


def test_of_many_runs_three_are_named():
    runs = [run("all low"), *(run(f"x={i}", failed("no")) for i in range(5))]
    assert ends(*runs)[0][2] == "x=0, x=1, x=2 and 2 more: RuntimeError: no"


def test_a_metric_that_never_changes_is_good_to_know_of():
    def noted(loss, metric=0.5):
        return run(f"loss={loss}", noted=DryRunNotes(metrics={"val_loss": metric}, losses=[loss]))

    (found,) = of_constants([noted(1.0), noted(2.0), noted(3.0)], LOSS)
    assert (found.severity, found.about) == ("note", "metric")
    assert found.text.startswith("'val_loss' was 0.5 in all 3 runs, though they have trained differently.")
    assert [*of_constants([noted(1.0), noted(1.0), noted(1.0)], LOSS)] == [], "they are one training"
    assert [*of_constants([noted(1.0), noted(2.0), noted(3.0, 0.6)], LOSS)] == []
    assert [*of_constants([noted(1.0), noted(2.0)], LOSS)] == []


def test_some_points_may_diverge_and_not_all():
    assert ends(run("all low"), run("all high", diverged()))[0] == ("warning", "metric", "all high: val_loss is nan")
    assert ends(run("all low", diverged()), run("all high", diverged()))[0][0] == "error"
    strict = dataclasses.replace(LOSS, non_finite="fail")
    assert ends(run("all low"), run("all high", diverged()), objective=strict)[0][0] == "error"


@pytest.mark.parametrize(
    ("error", "severity", "end"),
    [
        (RuntimeError("too few samples."), "note", "too few samples. That may be due to the run being cut short: "
         "what follows could not be tried."),
        (MetricError("It was not logged."), "warning", "It was not logged. That was the first epoch: a trial fails "
         "unless a later one logs it."),
    ],
)  # fmt: skip
def test_what_a_trial_need_not_raise_is_no_error(error, severity, end):
    ((found, _, text),) = ends(run("all low", TrialOutcome.failed(error), is_in_doubt=True))
    assert found == severity
    assert text.endswith(end)


def test_a_metric_that_is_missing_is_about_the_metric():
    ((severity, about, text),) = ends(run("all low", TrialOutcome.failed(MetricError("It was not logged."))))
    assert (severity, about, text) == ("error", "metric", "all low: It was not logged.")


BASE = run("untuned defaults")


def alone(value, noted=NOTED, **more):
    return run(f"act={value}", noted=noted, values={"act": value}, parameter="act", base="untuned defaults", **more)


def test_a_parameter_has_an_effect_where_one_of_its_values_has():
    other = dataclasses.replace(NOTED, losses=[2.0])
    assert len([*of_parameters([BASE, alone("gelu"), alone("elu")])]) == 1
    assert [*of_parameters([BASE, alone("gelu"), alone("elu", other)])] == []


@pytest.mark.parametrize("unknown", [alone("gelu", None), alone("gelu", is_visible=False)])
def test_nothing_is_said_of_what_cannot_be_seen(unknown):
    assert [*of_parameters([BASE, unknown])] == []
    assert [*of_parameters([unknown])] == []


def test_the_range_of_each_metric_is_a_fact():
    two = Objective(("val_loss", "acc"), ("min", "max"))
    runs = [
        run("a", noted=DryRunNotes(metrics={"val_loss": 1.0, "acc": 0.5})),
        run("b", noted=DryRunNotes(metrics={"val_loss": float("inf"), "acc": 0.75})),
        run("c", noted=None),
    ]
    assert of_metrics(runs, two) == ("Metric", "val_loss 1, acc 0.5 … 0.75 after two batches")
    assert of_metrics([run("c", noted=None)], two) is None


def lengths(trainer):
    return [
        (one.severity, one.text)
        for one in of_lengths(length_of(trainer, DryRunNotes(train_batches=100, val_batches=10)))
    ]


def test_a_validation_that_never_comes_is_told_of():
    assert lengths({"max_epochs": 3}) == []
    assert lengths({"max_steps": 50}) == [("warning", "A trial of 0.5 epochs ends before its first validation.")]
    assert lengths({"max_epochs": 9, "val_check_interval": 500, "check_val_every_n_epoch": None}) == []


LENGTH = Length(10, 100, 1000, 10, 10)
NOTHING = Reach("MedianPruner", 20, 0, None, None, True)
SOME = Reach("HyperbandPruner", 20, 9, 2, 1, True)


def pruner(reach, is_given=True, largest=None, objectives=1, length=LENGTH):
    return [(one.severity, one.text) for one in of_pruner(reach, "APruner", is_given, largest, length, objectives)]


def test_a_pruner_that_cannot_prune_is_told_of_and_more_loudly_where_it_was_asked_for():
    ((severity, text),) = pruner(NOTHING)
    assert severity == "warning"
    assert text.startswith(
        "MedianPruner prunes nothing in this study: even the worst of 20 trials of 10 validations is not"
    )
    assert pruner(NOTHING, is_given=False)[0][0] == "note"
    assert pruner(dataclasses.replace(NOTHING, is_whole=False)) == []
    assert pruner(None) == pruner(SOME) == pruner(NOTHING, length=Length(None, None, None, None, None)) == []


def test_hyperbands_resource_is_compared_with_the_validations():
    assert pruner(SOME, largest=10) == []
    assert pruner(SOME, largest=81)[0][0] == "warning"
    assert pruner(SOME, largest=81)[0][1].startswith("HyperbandPruner(max_resource=81), but a trial has 10 validations")
    assert pruner(SOME, largest=3)[0][0] == "note"


def test_only_resources_are_said_to_count_something():
    assert pruner(NOTHING)[0][1].endswith(" is not pruned.")
    halving = dataclasses.replace(NOTHING, pruner="SuccessiveHalvingPruner")
    epochs = dataclasses.replace(LENGTH, moment="epoch")
    assert pruner(halving, length=epochs)[0][1].endswith("20 trials of 10 epochs is not pruned. Its resources count "
                                                         "epochs.")  # fmt: skip


def test_several_objectives_are_never_pruned():
    assert pruner(None, objectives=2)[0][0] == "warning"
    assert pruner(None, objectives=2, is_given=False) == []
    assert fact(None, 10, 2) == "none: Optuna prunes no trial of several objectives"


def fact(reach, validations, objectives=1, moment="validation"):
    length = dataclasses.replace(LENGTH, validations=validations, moment=moment)
    return pruner_fact(reach, "APruner", length, objectives)[1]


def test_from_when_on_it_prunes_is_a_fact():
    assert fact(SOME, 10) == "APruner: from trial 2 on, and from validation 2 of 10 on"
    assert fact(SOME, 10, moment="epoch") == "APruner: from trial 2 on, and from epoch 2 of 10 on"
    assert fact(None, None) == "APruner, in trials whose number of values is not known"
    assert fact(None, 3) == "APruner: not tried, of 3 validations each"
    assert fact(NOTHING, 1) == "APruner: not one trial, of 1 validation each"
    part = dataclasses.replace(NOTHING, is_whole=False)
    assert fact(part, 5000) == "APruner: none of the first 20 trials, as far as it was tried, of 5,000 validations each"
