"""What dry runs say of a study, from notes that are made up here."""

import dataclasses

import pytest

from lightningtune.check.findings import (
    HostResources,
    TrialLength,
    judge_ends,
    judge_forecast,
    judge_metrics,
    judge_parameters,
    judge_pruner,
    make_forecast,
    trial_seconds,
)
from lightningtune.check.points import PrunerSchedule
from lightningtune.check.report import DryRunNotes, Finding, TriedPoint
from lightningtune.contract import Objective, StopReason, TrialFacts, TrialOutcome
from lightningtune.errors import MetricError

LOSS = Objective(("val_loss",), ("min",))
DONE = TrialOutcome(StopReason.COMPLETED)
NOTES = DryRunNotes(metrics={"val_loss": 0.5}, losses=[1.0])


def run(name, outcome=DONE, notes=NOTES, **more):
    return TriedPoint(name, more.pop("values", {}), outcome, notes, **more)


def failed(text):
    return TrialOutcome.failed(RuntimeError(text))


def diverged(text="val_loss is nan"):
    return TrialOutcome(StopReason.NON_FINITE, text)


def ends(*runs, objective=LOSS):
    return [(one.severity, one.about, one.text) for one in judge_ends(runs, objective)]


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


def metrics(runs, objective=LOSS):
    """Return the fact of a metric, and the findings."""
    found = [*judge_metrics(runs, objective)]
    return [one for one in found if isinstance(one, tuple)], [one for one in found if isinstance(one, Finding)]


def test_a_metric_that_never_changes_is_good_to_know_of():
    def noted(loss, metric=0.5):
        return run(f"loss={loss}", notes=DryRunNotes(metrics={"val_loss": metric}, losses=[loss]))

    (found,) = metrics([noted(1.0), noted(2.0), noted(3.0)])[1]
    assert (found.severity, found.about) == ("note", "metric")
    assert found.text.startswith("'val_loss' was 0.5 in all 3 runs, though they have trained differently.")
    assert metrics([noted(1.0), noted(1.0), noted(1.0)])[1] == [], "they are one training"
    assert metrics([noted(1.0), noted(2.0), noted(3.0, 0.6)])[1] == []
    assert metrics([noted(1.0), noted(2.0)])[1] == []


def test_some_points_may_diverge_and_not_all():
    assert ends(run("all low"), run("all high", diverged()))[0] == ("warning", "metric", "all high: val_loss is nan")
    assert ends(run("all low", diverged()), run("all high", diverged()))[0][0] == "error"
    strict = dataclasses.replace(LOSS, non_finite="fail")
    assert ends(run("all low"), run("all high", diverged()), objective=strict)[0][0] == "error"


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (RuntimeError("too few samples."), "too few samples. That may be due to the shortened epoch."),
        (MetricError("It was not logged."), "It was not logged. That was the first epoch: a trial fails unless a later "
         "one logs it."),
    ],
)  # fmt: skip
def test_what_a_trial_need_not_raise_is_no_error(error, end):
    ((severity, _, text),) = ends(run("all low", TrialOutcome.failed(error), is_in_doubt=True))
    assert severity == "warning"
    assert text.endswith(end)


def test_a_metric_that_is_missing_is_about_the_metric():
    ((severity, about, text),) = ends(run("all low", TrialOutcome.failed(MetricError("It was not logged."))))
    assert (severity, about, text) == ("error", "metric", "all low: It was not logged.")


BASE = run("untuned defaults")


def alone(value, notes=NOTES):
    return run(f"act={value}", notes=notes, values={"act": value}, parameter="act", base="untuned defaults")


def test_a_parameter_has_an_effect_where_one_of_its_values_has():
    other = dataclasses.replace(NOTES, losses=[2.0])
    assert len([*judge_parameters([BASE, alone("gelu"), alone("elu")])]) == 1
    assert [*judge_parameters([BASE, alone("gelu"), alone("elu", other)])] == []


def test_nothing_is_said_of_what_cannot_be_seen():
    unknown = alone("gelu", None)
    assert [*judge_parameters([BASE, unknown])] == []
    assert [*judge_parameters([unknown])] == []


def test_the_range_of_each_metric_is_a_fact():
    two = Objective(("val_loss", "acc"), ("min", "max"))
    runs = [
        run("a", notes=DryRunNotes(metrics={"val_loss": 1.0, "acc": 0.5})),
        run("b", notes=DryRunNotes(metrics={"val_loss": float("inf"), "acc": 0.75})),
        run("c", notes=None),
    ]
    assert metrics(runs, two)[0] == [("Metric", "val_loss 1, acc 0.5 … 0.75 after two batches")]
    assert metrics([run("c", notes=None)], two)[0] == []


# --- pruners -----------------------------------------------------------------------------------------------------

LENGTH = TrialLength(10, 100, 10)
NOTHING = PrunerSchedule("MedianPruner", True, trials=20, is_whole=True)
SOME = PrunerSchedule("HyperbandPruner", True, trials=20, first_trial=2, first_step=1, is_whole=True)
UNTRIED = PrunerSchedule("NopPruner", True)


def pruner(schedule, objectives=1, length=LENGTH, **changed):
    """Return the fact of a pruner, and the findings."""
    found = [*judge_pruner(dataclasses.replace(schedule, **changed), length, objectives)]
    facts = [one for one in found if isinstance(one, tuple)]
    return facts, [(one.severity, one.text) for one in found if isinstance(one, Finding)]


def test_a_pruner_that_cannot_prune_is_told_of_and_more_loudly_where_it_was_asked_for():
    ((severity, text),) = pruner(NOTHING)[1]
    assert severity == "warning"
    assert (
        text
        == "MedianPruner prunes nothing in this study: even the worst of 20 trials of 10 validations is not pruned."
    )
    assert pruner(NOTHING, is_given=False)[1][0][0] == "note"
    unknown = TrialLength(None, None, None)
    assert pruner(NOTHING)[0] == []
    assert pruner(NOTHING, is_whole=False)[1] == pruner(UNTRIED)[1] == pruner(SOME)[1] == []
    assert pruner(UNTRIED, length=unknown) == (
        [("Pruner", "NopPruner, which was not tried")],
        [],
    )


def test_hyperbands_resource_is_compared_with_the_validations():
    assert pruner(SOME, max_resource=10)[1] == []
    ((severity, text),) = pruner(SOME, max_resource=81)[1]
    assert severity == "warning"
    assert text.startswith("HyperbandPruner(max_resource=81), but a trial has 10 validations")
    assert pruner(SOME, max_resource=3)[1] == []


def test_only_resources_are_said_to_count_something():
    epochs = dataclasses.replace(LENGTH, moment="epoch")
    ((_, text),) = pruner(NOTHING, pruner="SuccessiveHalvingPruner", length=epochs)[1]
    assert text.endswith("20 trials of 10 epochs is not pruned. Its resources count epochs.")


def test_several_objectives_are_never_pruned():
    facts, findings = pruner(UNTRIED, objectives=2)
    assert facts == [("Pruner", "none: Optuna prunes no trial of several objectives")]
    assert findings == [("warning", "NopPruner prunes nothing: Optuna prunes no trial of several objectives.")]
    assert pruner(UNTRIED, objectives=2, is_given=False) == (facts, [])


@pytest.mark.parametrize(
    ("schedule", "validations", "moment", "expected"),
    [
        (SOME, 10, "validation", "HyperbandPruner: from trial 2 on, and from validation 2 of 10 on"),
        (SOME, 10, "epoch", "HyperbandPruner: from trial 2 on, and from epoch 2 of 10 on"),
        (UNTRIED, 3, "validation", "NopPruner, which was not tried"),
        (
            dataclasses.replace(NOTHING, is_whole=False), 5000, "validation",
            "MedianPruner: none of the first 20 trials, as far as it was tried",
        ),
    ],
)  # fmt: skip
def test_from_when_on_it_prunes_is_a_fact(schedule, validations, moment, expected):
    length = dataclasses.replace(LENGTH, validations=validations, moment=moment)
    assert pruner(schedule, length=length)[0] == [("Pruner", expected)]


# --- length and time ---------------------------------------------------------------------------------------------

SETTINGS = {"max_epochs": -1, "max_steps": -1, "check_val_every_n_epoch": 1, "val_check_batch": 100}
"""Of a trainer without end."""
TEN_EPOCHS = {**SETTINGS, "max_epochs": 10}
INFINITE = float("inf")


def length_of(settings, train=100, val=20):
    notes = DryRunNotes(train_batches=train, val_batches=val, settings={**SETTINGS, **settings})
    length = TrialLength.from_notes(notes)
    return length.epochs, length.batches, length.validations


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"max_epochs": 10}, (10, 100, 10)),
        ({}, (None, 100, None)),
        ({"max_steps": 250}, (2.5, 100, 2)),
        ({"max_steps": 50, "accumulate_grad_batches": 4}, (2, 100, 2)),
        ({"max_epochs": 4, "max_steps": 1000}, (4, 100, 4)),
        ({"max_epochs": 10, "check_val_every_n_epoch": 3}, (10, 100, 3)),
        ({"max_epochs": 2, "check_val_every_n_epoch": 3}, (2, 100, 0)),
        ({"max_epochs": 2, "val_check_batch": 25}, (2, 100, 8)),
        ({"max_epochs": 2, "val_check_batch": 30}, (2, 100, 6)),
        ({"max_epochs": 2, "val_check_batch": 30, "check_val_every_n_epoch": None}, (2, 100, 6)),
        ({"max_epochs": 2, "val_check_batch": 150, "check_val_every_n_epoch": None}, (2, 100, 1)),
        ({"max_steps": 50}, (0.5, 100, 0)),
        ({"max_steps": 50, "val_check_batch": 25}, (0.5, 100, 2)),
        ({"max_epochs": 2, "val_check_batch": None}, (2, 100, None)),
    ],
)
def test_a_trials_length_is_told_from_its_trainer(settings, expected):
    assert length_of(settings) == expected


def test_what_a_dataloader_does_not_tell_is_not_told():
    assert length_of({"max_epochs": 10, "val_check_batch": INFINITE}, train=None) == (10, None, 10)
    assert length_of({"max_epochs": 10, "val_check_batch": 30}, train=None) == (10, None, None)
    assert length_of({"max_epochs": 10}, val=None) == (10, 100, 10)


def test_a_model_that_does_not_validate_is_judged_after_each_epoch():
    def length(**changed):
        return TrialLength.from_notes(DryRunNotes(train_batches=100, val_batches=0, settings={**SETTINGS, **changed}))

    assert (length(max_steps=250).validations, length(max_steps=250).moment) == (3, "epoch")
    assert length().validations is None


TIMED = DryRunNotes(
    metrics={"val_loss": 0.5},
    losses=[1.0, 0.9],
    train_batches=100,
    val_batches=10,
    train_seconds=[0.5, 0.01],
    val_seconds=[0.25, 0.005],
    settings=TEN_EPOCHS,
)


def test_a_trials_time_is_that_of_its_batches_and_of_what_comes_once():
    def seconds(notes=TIMED, **changed):
        notes = notes and dataclasses.replace(notes, **changed)
        return trial_seconds(TriedPoint("all low", {}, TrialOutcome(StopReason.COMPLETED, duration=1.0), notes))

    once = 1.0 - 2 * 0.01 - 2 * 0.005
    assert seconds() == pytest.approx(once + 1000 * 0.01 + 10 * 10 * 0.005)
    assert seconds(overhead=0.5) == pytest.approx(once - 0.5 + 1000 * 0.01 + 10 * 10 * 0.005)
    assert seconds(val_seconds=[], val_batches=0) == pytest.approx(0.98 + 10)
    assert seconds(train_batches=None) is None
    assert seconds(val_batches=None) is None
    assert seconds(None) is None


# --- what the study takes ----------------------------------------------------------------------------------------

MB = 10**6


def sized(seconds=0.01, memory=300, device=None, checkpoint=5, settings=TEN_EPOCHS):
    notes = DryRunNotes(
        losses=[1.0, 1.0],
        train_batches=100,
        val_batches=10,
        train_seconds=[seconds] * 2,
        val_seconds=[0.0] * 2,
        checkpoint=checkpoint and checkpoint * MB,
        device_total=None if device is None else 80_000 * MB,
        settings=settings,
    )
    facts = TrialFacts(memory=memory * MB, device_memory=device and device * MB)
    outcome = TrialOutcome(StopReason.COMPLETED, duration=2 * seconds, facts=facts)
    return TriedPoint("a", {}, outcome, notes)


def forecast_of(runs, resources):
    """Return the forecast, its facts and its findings."""
    notes = next((one.notes for one in runs if one.notes is not None), None)
    length = None if notes is None else TrialLength.from_notes(notes)
    forecast = make_forecast(runs, resources, length)
    found = [*judge_forecast(forecast, runs, resources, length)]
    facts = dict(one for one in found if isinstance(one, tuple))
    return forecast, facts, [one for one in found if isinstance(one, Finding)]


def test_the_mean_over_the_runs_stands_for_the_space():
    forecast, facts, findings = forecast_of(
        [sized(0.01), sized(0.03)], HostResources(20, jobs=3, kept=10, memory=4000 * MB, disk=9999 * MB)
    )
    assert forecast.trial_seconds == pytest.approx((10, 20, 30))
    assert forecast.seconds == pytest.approx(7 * 20)
    assert forecast.memory == 900 * MB
    assert forecast.disk == 50 * MB
    assert forecast.validations == 10
    assert findings == []
    assert facts == {
        "Time": "about 2 min 20 s: 20 trials of 20 s (10 s … 30 s), 3 at a time, none pruned (10 epochs of 100 batches "
        "of 20 ms, 10 validations)",
        "Memory": "at most 858 MiB, 3 at a time; 3.7 GiB are free",
        "Disk": "at most 48 MiB: 10 checkpoints of 5 MiB at a time; 9.3 GiB are free",
    }


def test_what_there_is_too_little_of_is_found():
    _, facts, findings = forecast_of(
        [sized(device=50_000)], HostResources(20, jobs=4, per_device=2, kept=10, memory=1000 * MB, disk=40 * MB)
    )
    assert [(one.severity, one.about) for one in findings] == [
        ("warning", "memory"), ("warning", "memory"), ("error", "disk")
    ]  # fmt: skip
    assert findings[0].text.startswith("4 trials at a time may need 1.1 GiB of memory, and 954 MiB are free")
    assert findings[1].text.startswith("2 trials that share an accelerator may need 93.1 GiB of its 74.5 GiB.")
    assert findings[2].text.startswith("Checkpoints may take 48 MiB, and 38 MiB are free")
    assert facts["GPU"] == "at most 93.1 GiB of 74.5 GiB on each, 2 at a time"


def test_processes_that_train_a_trial_together_each_take_memory():
    assert forecast_of([sized()], HostResources(20, jobs=2, ranks=2))[0].memory == 1200 * MB


def test_what_cannot_be_told_is_not_told():
    forecast, facts, findings = forecast_of([], HostResources(20))
    assert (forecast.seconds, forecast.memory, forecast.disk, facts, findings) == (None, None, None, {}, [])
    failed = TriedPoint("a", {}, TrialOutcome(StopReason.FAILED))
    for run_of in (failed, sized(settings=SETTINGS)):
        time = forecast_of([run_of], HostResources(20))[1]["Time"]
        assert time == "unknown: no run came to its end, or it cannot be told how long a trial is"
    assert forecast_of([sized(checkpoint=None)], HostResources(20))[0].disk is None
