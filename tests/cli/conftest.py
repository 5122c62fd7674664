"""Two small real studies, which the tests of the command line look at."""

import shutil

import pytest
from nets import Line, Points

from lightningtune import OptunaDrivenOptimizer
from lightningtune.study.identity import Worker
from lightningtune.study.liveness import heartbeat_name


@pytest.fixture(scope="session")
def _made(tmp_path_factory):
    root = tmp_path_factory.mktemp("studies")
    for name, n_trials in (("digits", 4), ("faces", 2)):
        study = OptunaDrivenOptimizer(
            {"trainer": {"max_epochs": 2, "accelerator": "cpu"}},
            {"lr": ("uniform", 0.01, 20.0)},
            Line,
            Points,
            study_name=name,
            n_trials=n_trials,
            seed=1,
            experiment_dir=root / "lightningtune_runs",
            verbose=False,
        ).optimize()
        study.set_user_attr(heartbeat_name(Worker.this()), "as if the process that ran it had ended")
    return root


@pytest.fixture
def studies(_made, tmp_path, monkeypatch):
    """The working directory with the studies in it: `digits`, of which one trial has failed, and `faces`."""
    root = tmp_path / "here"
    shutil.copytree(_made, root)
    monkeypatch.chdir(root)
    return root
