import json
from dataclasses import asdict, replace

import pytest

from lightningtune.check.runs import (
    DryRunNotes,
    TriedPoint,
    extent_of,
    length_of,
    read_dry_run_notes,
    seconds_of,
)
from lightningtune.contract import StopReason, TrialOutcome

NOTED = DryRunNotes(
    metrics={"val_loss": 0.5},
    losses=[1.0, 0.9],
    train_batches=100,
    val_batches=10,
    train_seconds=[0.5, 0.01],
    val_seconds=[0.25, 0.005],
    marks={"model": "Line()"},
)


def of_trainer(trainer, train=100, val=20):
    length = length_of(trainer, DryRunNotes(train_batches=train, val_batches=val))
    return length.epochs, length.total, length.val_batches, length.validations


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ({"max_epochs": 10}, (10, 1000, 20, 10)),
        ({}, (1000, 100_000, 20, 1000)),
        ({"max_epochs": -1}, (None, None, 20, None)),
        ({"max_time": "00:01:00:00"}, (None, None, 20, None)),
        ({"max_steps": 250}, (2.5, 250, 20, 2)),
        ({"max_steps": 50, "accumulate_grad_batches": 4}, (2, 200, 20, 2)),
        ({"max_epochs": 4, "max_steps": 1000}, (4, 400, 20, 4)),
        ({"max_epochs": 10, "check_val_every_n_epoch": 3}, (10, 1000, 20, 3)),
        ({"max_epochs": 2, "check_val_every_n_epoch": 3}, (2, 200, 20, 0)),
        ({"max_epochs": 2, "val_check_interval": 0.25}, (2, 200, 20, 8)),
        ({"max_epochs": 2, "val_check_interval": 30}, (2, 200, 20, 6)),
        ({"max_epochs": 2, "val_check_interval": 30, "check_val_every_n_epoch": None}, (2, 200, 20, 6)),
        ({"max_epochs": 2, "val_check_interval": 150, "check_val_every_n_epoch": None}, (2, 200, 20, 1)),
        ({"max_steps": 50}, (0.5, 50, 20, 0)),
        ({"max_steps": 50, "val_check_interval": 25}, (0.5, 50, 20, 2)),
        ({"max_epochs": 2, "val_check_interval": "00:00:10:00"}, (2, 200, 20, None)),
    ],
)
def test_a_trials_length_is_told_from_its_trainer(trainer, expected):
    assert of_trainer(trainer) == expected


def test_what_a_dataloader_does_not_tell_is_not_told():
    assert of_trainer({"max_epochs": 10}, train=None) == (10, None, 20, 10)
    assert of_trainer({"max_epochs": 10}, val=None) == (10, 1000, None, 10)


def test_a_model_that_does_not_validate_is_judged_after_each_epoch():
    assert length_of({"max_epochs": 10}, NOTED).moment == "validation"
    length = length_of({"max_steps": 250}, replace(NOTED, val_batches=0))
    assert (length.validations, length.moment) == (3, "epoch")
    assert length_of({"max_epochs": -1}, replace(NOTED, val_batches=0)).validations is None


def run(noted=NOTED, trainer=None, seconds=1.0):
    outcome = TrialOutcome(StopReason.COMPLETED, duration=seconds)
    return TriedPoint("all low", {}, outcome, noted, trainer=trainer or {"max_epochs": 10})


def test_a_trials_time_is_that_of_its_batches_and_of_what_comes_once():
    once = 1.0 - 2 * 0.01 - 2 * 0.005
    assert seconds_of(run()) == pytest.approx(once + 1000 * 0.01 + 10 * 10 * 0.005)
    assert seconds_of(run(replace(NOTED, overhead=0.5))) == pytest.approx(once - 0.5 + 1000 * 0.01 + 10 * 10 * 0.005)
    assert seconds_of(run(replace(NOTED, val_seconds=[], val_batches=0))) == pytest.approx(0.98 + 10)
    assert seconds_of(run(replace(NOTED, train_batches=None))) is None
    assert seconds_of(run(replace(NOTED, val_batches=None))) is None
    assert seconds_of(run(None)) is None


def test_runs_are_of_two_batches_unless_one_had_to_be_of_an_epoch():
    assert extent_of([run(), run(None)]) == "two batches"
    assert extent_of([run(), run(replace(NOTED, is_whole=True))]) == "one epoch"


def test_what_was_noted_is_read_back_and_nothing_is_made_of_a_torn_file(tmp_path):
    path = tmp_path / "noted.json"
    assert read_dry_run_notes(path) is None
    path.write_text(json.dumps(asdict(replace(NOTED, metrics={"val_loss": float("nan")}))))
    found = read_dry_run_notes(path)
    assert found.identity == replace(NOTED, metrics={"val_loss": float("nan")}).identity
    path.write_text(path.read_text()[:-9])
    assert read_dry_run_notes(path) is None


@pytest.mark.parametrize(
    "changed",
    [{"metrics": {"val_loss": 0.5000001}}, {"losses": [1.0]}, {"train_batches": 99}, {"marks": {"model": "Other()"}}],
)
def test_any_difference_makes_two_trainings_two(changed):
    assert replace(NOTED, train_seconds=[9.0], checkpoint=3).identity == NOTED.identity
    assert replace(NOTED, **changed).identity != NOTED.identity
