"""Whole studies on storages with a server: the server is killed and started again, and hosts are killed."""

import contextlib
import os
import queue
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import lightning as L
import optuna
import pytest
from nets import Line, Points
from servers import Postgres, Proxy, storage_of

from lightningtune import OptunaDrivenOptimizer
from lightningtune.study.storage import open_storage

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs fifos, and /proc")]

EPOCHS = 8
SCRIPT = """
    import os, signal, sys
    import lightning as L
    from lightningtune import OptunaDrivenOptimizer
    from nets import Line, Points
    from servers import storage_of

    url, study_name, n_jobs, n_trials = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    stops = sys.argv[5:]

    class Tell(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 5 and stops:
                with open("told", "w") as told:
                    told.write("epoch")
                while True:
                    signal.pause()

    OptunaDrivenOptimizer(
        {"trainer": {"max_epochs": 8, "accelerator": "cpu"}}, {"lr": ("loguniform", 1e-3, 1e-1)}, Line, Points,
        n_trials=n_trials, n_jobs=n_jobs, experiment_dir="runs", seed=0, callbacks=[Tell()], verbose=False,
        study_name=study_name, storage=storage_of(url),
    ).optimize()
"""


@pytest.fixture(scope="module")
def postgresql():
    with contextlib.closing(Postgres()) as server:
        yield server


@pytest.fixture(scope="module")
def grpc():
    with contextlib.closing(Proxy()) as server:
        yield server


@pytest.fixture
def server(request):
    """One of the servers above, by its name; each test has a study of its own on it."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def name(request):
    return request.node.name


@contextlib.contextmanager
def running(*arguments):
    """Start a host, which is killed in the end, whatever comes before it."""
    with start(*arguments) as process:
        try:
            yield process
        finally:
            process.kill()


def start(folder, server, name, *arguments):
    (folder / "script.py").write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "script.py", str(server.url), name, *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment)


def read_trials(server, name):
    storage = open_storage(storage_of(server.url), Path("unused"))
    return optuna.load_study(study_name=name, storage=storage).trials


def completed(server, name):
    """Return a study's trials, and those that are complete, of which each has every step."""
    trials = read_trials(server, name)
    assert all(trial.state.is_finished() for trial in trials)
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    assert [[*trial.intermediate_values] for trial in complete] == [[*range(EPOCHS)]] * len(complete)
    assert len({trial.params["lr"] for trial in complete}) == len(complete)
    return trials, complete


class Asks(L.Callback):
    """Has the server killed before the fourth epoch of one trial, and started again before the seventh."""

    def __init__(self, folder: str):
        self.folder = Path(folder)

    def on_train_epoch_start(self, trainer, pl_module):
        number = {3: "kill", 6: "start"}.get(trainer.current_epoch)
        if number and self._is_mine(trainer):
            (self.folder / "asked").write_text(number)  # a fifo: the other end reads it when it is opened
            assert (self.folder / "done").read_text() == number

    def _is_mine(self, trainer):
        mark = self.folder / "trial"
        with contextlib.suppress(FileExistsError), mark.open("x") as file:
            file.write(trainer.default_root_dir)
        return mark.read_text() == trainer.default_root_dir


@pytest.mark.parametrize(("server", "n_jobs"), [("postgresql", 1), ("grpc", 2)], indirect=["server"])
def test_a_server_that_is_killed_and_started_again_costs_nothing(tmp_path, server, name, n_jobs, caplog):
    for fifo in ("asked", "done"):
        os.mkfifo(tmp_path / fifo)

    def serve():
        for _ in range(2):
            wish = (tmp_path / "asked").read_text()
            getattr(server, wish)()
            (tmp_path / "done").write_text(wish)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    OptunaDrivenOptimizer(
        {"trainer": {"max_epochs": EPOCHS, "accelerator": "cpu"}},
        {"lr": ("loguniform", 1e-3, 1.0)},
        Line,
        Points,
        n_trials=3,
        n_jobs=n_jobs,
        experiment_dir=tmp_path / "runs",
        study_name=name,
        storage=storage_of(server.url),
        seed=0,
        callbacks=[Asks(str(tmp_path))],
        verbose=False,
    ).optimize()
    thread.join()
    trials, complete = completed(server, name)
    assert len(trials) == len(complete) == 3
    told = [record.message for record in caplog.records if "storage is" in record.message]
    assert [" ".join(message.split()[3:5]) for message in told] == ["is away;", "is back"]


@pytest.mark.parametrize(("server", "n_jobs"), [("postgresql", "2"), ("grpc", "1")], indirect=["server"])
def test_a_trial_whose_host_is_killed_goes_on_in_the_next(tmp_path, server, name, n_jobs):
    os.mkfifo(tmp_path / "told")
    with running(tmp_path, server, name, n_jobs, "3", "stops"):
        assert (tmp_path / "told").read_text().startswith("epoch")
    assert start(tmp_path, server, name, n_jobs, "3").wait() == 0
    trials, complete = completed(server, name)
    assert len(complete) == 3
    killed = [trial for trial in trials if trial.user_attrs.get("lightningtune:reason") == "killed"]
    assert len(trials) == 3 + len(killed)
    assert 1 <= len(killed) <= int(n_jobs)


@pytest.mark.parametrize("server", ["postgresql"], indirect=True)
def test_two_hosts_at_a_time_of_which_one_is_killed(tmp_path, server, name):
    os.mkfifo(tmp_path / "told")
    with running(tmp_path, server, name, "1", "2", "stops"):
        assert (tmp_path / "told").read_text() == "epoch"
        assert start(tmp_path, server, name, "1", "2").wait() == 0
        states = [trial.state.name for trial in read_trials(server, name)]
        assert states == ["RUNNING"] + ["COMPLETE"] * 2, "a host that lives keeps its trial"
    assert start(tmp_path, server, name, "1", "3").wait() == 0
    trials, complete = completed(server, name)
    assert [trial.state.name for trial in trials] == ["FAIL"] + ["COMPLETE"] * 3
    assert trials[3].user_attrs["lightningtune:continues"] == 0
    assert len(complete) == 3


def test_who_works_while_a_server_is_killed_again_and_again_sees_no_error():
    """Three at a time make its tables, open it and use it; it is killed in the midst of whatever that does."""
    told, errors, ends = queue.Queue(), [], threading.Event()

    def work(name):
        try:
            while not ends.is_set():
                storage = open_storage(server.url, Path("unused"), start_seconds=120)
                study = optuna.create_study(study_name=name, storage=storage, load_if_exists=True)
                for _ in range(3):
                    trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
                    trial.report(0.5, 0)
                    study.tell(trial, 0.5)
                    told.put(name)
        except Exception as error:
            errors.append(error)

    with contextlib.closing(Postgres()) as server:
        workers = [threading.Thread(target=work, args=(name,)) for name in "abc"]
        for worker in workers:
            worker.start()
        for kills in range(6):
            for _ in range(3 + kills):
                told.get(timeout=60)
            server.kill()
            server.start()
        ends.set()
        for worker in workers:
            worker.join()
    assert errors == []
