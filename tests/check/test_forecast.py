import pytest

from lightningtune.check.forecast import Means, facts_of, forecast_of, of_forecast
from lightningtune.check.runs import DryRunNotes, TriedPoint, length_of
from lightningtune.contract import StopReason, TrialFacts, TrialOutcome

MB = 10**6
TRAINER = {"max_epochs": 10}
HUNDRED = DryRunNotes(train_batches=100, val_batches=10)


def run(seconds=0.01, memory=300, device=None, checkpoint=5):
    noted = DryRunNotes(
        losses=[1.0, 1.0],
        train_batches=100,
        val_batches=10,
        train_seconds=[seconds] * 2,
        val_seconds=[0.0] * 2,
        checkpoint=checkpoint and checkpoint * MB,
        device_total=None if device is None else 80_000 * MB,
    )
    facts = TrialFacts(memory=memory * MB, device_memory=device and device * MB)
    outcome = TrialOutcome(StopReason.COMPLETED, duration=2 * seconds, facts=facts)
    return TriedPoint("a", {}, outcome, noted, trainer=TRAINER)


def told(runs, means, length=length_of(TRAINER, HUNDRED)):  # noqa: B008 - it is frozen
    forecast = forecast_of(runs, means, length)
    return forecast, dict(facts_of(forecast, runs, means, length)), [*of_forecast(forecast, runs, means)]


def test_the_mean_over_the_runs_stands_for_the_space():
    forecast, facts, findings = told(
        [run(0.01), run(0.03)], Means(20, jobs=3, kept=10, memory=4000 * MB, disk=9999 * MB)
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
    _, facts, findings = told(
        [run(device=50_000)], Means(20, jobs=4, per_device=2, kept=10, memory=1000 * MB, disk=40 * MB)
    )
    assert [(one.severity, one.about) for one in findings] == [
        ("warning", "memory"), ("warning", "memory"), ("error", "disk")
    ]  # fmt: skip
    assert findings[0].text.startswith("4 trials at a time may need 1.1 GiB of memory, and 954 MiB are free")
    assert findings[1].text.startswith("2 trials that share an accelerator may need 93.1 GiB of its 74.5 GiB.")
    assert findings[2].text.startswith("Checkpoints may take 48 MiB, and 38 MiB are free")
    assert facts["GPU"] == "at most 93.1 GiB of 74.5 GiB on each, 2 at a time"


def test_processes_that_train_a_trial_together_each_take_memory():
    assert told([run()], Means(20, jobs=2, ranks=2))[0].memory == 1200 * MB


def test_what_cannot_be_told_is_not_told():
    forecast, facts, findings = told([], Means(20))
    assert (forecast.seconds, forecast.memory, forecast.disk, facts, findings) == (None, None, None, {}, [])
    failed = TriedPoint("a", {}, TrialOutcome(StopReason.FAILED))
    assert told([failed], Means(20), None)[1] == {"Time": "unknown: no run came to its end"}
    endless = TriedPoint("a", {}, TrialOutcome(StopReason.COMPLETED), run().noted, trainer={"max_epochs": -1})
    assert "how many epochs" in told([endless], Means(20), length_of({"max_epochs": -1}, HUNDRED))[1]["Time"]
    assert told([run(checkpoint=None)], Means(20))[0].disk is None
