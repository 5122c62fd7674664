"""A study in a cell of a real kernel."""

import sys
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

pytestmark = pytest.mark.slow

CELL = f"""
import sys, warnings
sys.path[:0] = {[str(Path(__file__).parents[1]), *sys.path]}
warnings.simplefilter("ignore")
from nets import Line, Points
from lightningtune import OptunaDrivenOptimizer
OptunaDrivenOptimizer(
    {{"trainer": {{"max_epochs": 2, "accelerator": "cpu"}}}}, {{"lr": ("loguniform", 1e-3, 1.0)}}, Line, Points,
    n_trials=3, experiment_dir="runs", seed=0,
).optimize()
"""
FAILS = CELL.replace('("loguniform", 1e-3, 1.0)', '("uniform", 10.0, 20.0)').replace(
    "seed=0", "seed=0, baseline=False, max_failures=2"
)


@pytest.fixture
def kernel(tmp_path):
    manager, client = start_new_kernel(cwd=str(tmp_path))
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def outputs_of(client, code):
    client.execute(code)
    while True:
        message = client.get_iopub_msg(timeout=120)
        content, kind = message["content"], message["msg_type"]
        assert kind != "error", "\n".join(content["traceback"])
        if kind == "status" and content["execution_state"] == "idle":
            return
        if kind in ("display_data", "update_display_data"):
            yield kind, content["transient"].get("display_id"), content["data"]["text/plain"]


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_study_is_one_output_that_is_updated(kernel):
    shown = [*outputs_of(kernel, CELL)]
    own = [(kind, text) for kind, name, text in shown if name is not None]
    assert len({name for _, name, _ in shown if name is not None}) == 1
    assert [kind for kind, _ in own] == ["display_data", *["update_display_data"] * (len(own) - 1)]
    assert own[0][1].strip() == "0/3 trials"
    assert any("no validation yet" in text for _, text in own)
    last = own[-1][1].splitlines()
    assert [line.split()[0] for line in last] == ["0", "1", "2"]
    assert all("complete val_loss" in line for line in last)
    others = [text for _, name, text in shown if name is None]
    assert others[0].strip() == "Study 'optuna_study': minimize val_loss, 3 trials."
    assert "Study 'optuna_study': 3 complete" in others[-1]


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_why_a_study_ends_stands_among_its_trials(kernel):
    shown = [*outputs_of(kernel, FAILS)]
    own = [text for _, name, text in shown if name is not None]
    assert [line.split()[:2] for line in own[-1].splitlines()][-3:] == [
        ["1", "fail"],
        ["The", "study"],
        ["If", "some"],
    ]
    assert "2 trials in a row failed alike. RuntimeError: lr" in own[-1]
    assert not any("failed alike" in text for _, name, text in shown if name is None)
