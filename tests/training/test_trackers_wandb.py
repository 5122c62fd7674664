"""Trials in W&B, offline, read back from the files that it would send."""

import struct
import time

import pytest
from nets import Line
from tracked import PARAMS, Breaks, Stops, fit, study_of

from lightningtune.contract import StopReason

pytestmark = [
    pytest.mark.slow,
    # W&B and what it imports
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_PROJECT", "WANDB_RUN_GROUP", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)


def records(place):
    """Read what W&B has written for its server, once its own process has written the end."""
    (file,) = place.glob("wandb/offline-run-*/run-*.wandb")
    end = time.monotonic() + 30
    while not (found := [*read(file.read_bytes())]) or not found[-1].HasField("exit"):
        assert time.monotonic() < end, [record.WhichOneof("record_type") for record in found]
        time.sleep(0.05)
    return found


def read(data):
    """Read a log of records as LevelDB has it, each a protocol buffer."""
    from wandb.proto.wandb_internal_pb2 import Record

    at, whole = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # a record's head does not cross the end of a block
            at += 32768 - at % 32768
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4) and at <= len(data):  # all of it, or its last part
            yield Record.FromString(whole)
            whole = b""


def test_a_trial_in_a_process_of_its_own_leaves_nothing_unwritten(tmp_path):
    # the first test here: once this process has W&B's threads, trials come from a new interpreter, which takes longer
    study_of(tmp_path, "WandbLogger", isolate=True, n_trials=1).optimize()
    found = records(tmp_path / "mine/trials/0000")
    assert [record.exit.exit_code for record in found if record.HasField("exit")] == [0]


def test_a_study_is_a_project_and_each_trial_a_run_with_its_true_state(tmp_path):
    import wandb

    ends = [
        (Line, None, 0, "completed"),
        (Line, Stops(StopReason.PRUNED), 0, "pruned"),
        (Breaks, None, 1, "failed"),
    ]
    for number, (model, reporter, code, state) in enumerate(ends):
        place = tmp_path / "mine" / "trials" / f"{number:04d}"
        place.mkdir(parents=True)
        outcome = fit(place, "WandbLogger", model, reporter, number=number)
        assert outcome.notices == ()
        assert wandb.run is None, "each trial has a fresh one"
        found = records(place)
        (run,) = [record.run for record in found if record.HasField("run")][:1]
        assert (run.project, run.run_group, run.display_name) == ("mine", "mine", f"trial {number}")
        assert [record.exit.exit_code for record in found if record.HasField("exit")] == [code]
        summary = {
            item.key or ".".join(item.nested_key): item.value_json for record in found for item in record.summary.update
        }
        assert summary["lightningtune.state"] == f'"{state}"'
        assert "score/val_loss" in summary
        config = {item.key: item.value_json for record in found for item in record.config.update}
        assert all(f'"{name}"' in config["tuned"] for name in PARAMS)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # it will be gone from optuna-integration 6
def test_optuna_integrations_callback_works_beside_loggers_that_share_its_run(tmp_path):
    import wandb
    from optuna_integration import WeightsAndBiasesCallback

    callback = WeightsAndBiasesCallback("val_loss", {"project": "p", "dir": str(tmp_path)})
    try:
        with pytest.warns(UserWarning, match="run already in progress"):
            study = study_of(tmp_path, "WandbLogger", [callback]).optimize()
        assert wandb.run.summary["val_loss"] == study.trials[-1].value
        assert wandb.run.summary["lightningtune.state"] == "completed"
    finally:
        wandb.finish()
