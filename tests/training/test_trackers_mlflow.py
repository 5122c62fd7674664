"""Trials in MLflow, read back by its own client from a database of its own."""

import shutil

import pytest
from nets import Line
from tracked import PARAMS, Breaks, Stops, fit, study_of

from lightningtune.contract import SilentReporter, StopReason

pytestmark = [
    pytest.mark.slow,
    # MLflow and what it imports
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def _no_other_address(monkeypatch):
    """Forget the tracking address that optuna-integration's callback has set in another test of this process."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("mlflow") / "mine"


def client_of(root):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


def history(root, run_id, metric):
    return client_of(root).get_metric_history(run_id, metric)


def runs(root):
    client = client_of(root)
    experiment = client.get_experiment_by_name("mine")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def train(root, number, model=Line, reporter=None, before=None):
    checkpoint = before and before / "last.ckpt"
    place = root / "trials" / f"{number:04d}"
    return fit(place, "MLFlowLogger", model, reporter, checkpoint, number=number, max_epochs=4)


def test_a_study_is_an_experiment_and_each_trial_a_run_with_its_true_state(root):
    ends = {
        1: (Line, None, "FINISHED", "completed"),
        2: (Line, Stops(StopReason.PRUNED), "FINISHED", "pruned"),
        3: (Line, Stops(StopReason.INTERRUPTED), "KILLED", "interrupted"),
        4: (Breaks, None, "FAILED", "failed"),
    }
    for number, (model, reporter, status, state) in ends.items():
        outcome = train(root, number, model, reporter)
        assert outcome.notices == ()
        run = runs(root)[f"trial {number}"]
        assert (run.info.status, run.data.tags["lightningtune.state"]) == (status, state)
        assert run.data.tags["lightningtune.study"] == "mine"
        tuned = {name.removeprefix("tuned/"): value for name, value in run.data.params.items() if "tuned/" in name}
        assert tuned == {name: str(value) for name, value in PARAMS.items()}
        best = min(point.value for point in history(root, run.info.run_id, "val_loss"))
        assert run.data.metrics["score/val_loss"] == pytest.approx(best)


def test_a_trial_that_goes_on_goes_on_with_its_run(root):
    copy = root / "trials" / "0005_killed"

    class Copies(SilentReporter):
        def report(self, values, step):
            if step == 2:
                shutil.copytree(root / "trials" / "0005", copy)

    train(root, 5, reporter=Copies())
    count = len(runs(root))
    assert train(root, 9, before=copy).reason is StopReason.COMPLETED
    assert len(runs(root)) == count
    run = runs(root)["trial 9"]
    assert run.info.status == "FINISHED"
    assert run.data.tags["lightningtune.trial"] == "trial 9"


def test_a_server_that_does_not_answer_is_told_of_once_without_its_password(root, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    block = {"class_path": "MLFlowLogger", "init_args": {"tracking_uri": "http://me:hunter2@127.0.0.1:9"}}
    outcome = fit(tmp_path / "mine/trials/0001", [block, "CSVLogger"])
    assert outcome.reason is StopReason.COMPLETED
    (notice,) = map(str, outcome.notices)
    assert notice.startswith("MLFlowLogger failed in experiment: MlflowException: ")
    assert "http://***@127.0.0.1:9" in notice
    assert "hunter2" not in notice
    assert notice.endswith("The trial goes on without it.")


def test_optuna_integrations_callback_works(root, tmp_path):
    from optuna_integration import MLflowCallback

    client = client_of(root)
    address = f"sqlite:///{root / 'mlflow.db'}"
    study_of(tmp_path, False, [MLflowCallback(address, "val_loss")], study_name="whole").optimize()
    found = client.search_runs([client.get_experiment_by_name("whole").experiment_id])
    assert {run.info.run_name for run in found} == {"0", "1"}
    assert all("val_loss" in run.data.metrics and "model.lr" in run.data.params for run in found)


def test_trials_in_processes_of_their_own_have_their_runs(tmp_path):
    """What MLflow has imported before them survives the fork, and those that begin first make its database."""
    study_of(tmp_path, "MLFlowLogger", n_jobs=2, n_trials=3).optimize()
    found = runs(tmp_path / "mine")
    assert {name: run.info.status for name, run in found.items()} == {f"trial {n}": "FINISHED" for n in range(3)}
