"""Trials in real processes, ended in every way there is."""

import contextlib
import ctypes
import errno
import functools
import os
import signal
import sys
import threading
import time
from pathlib import Path

import lightning as L
import pytest
import torch
from family import children_of, have_ended
from nets import Line, Points, loaders

from lightningtune import ConfigurationError
from lightningtune.config.schema import Schema
from lightningtune.contract import Objective, SilentReporter, Stop, StopReason, TrialSpec
from lightningtune.training.build import Blueprint
from lightningtune.training.run import train
from lightningtune.workers.devices import Slot
from lightningtune.workers.processes import TrialProcesses
from lightningtune.workers.starters import Cold, ForkServer

SLOT = Slot(threads=1)
Beside = functools.partial(ForkServer, is_fit_to_fork=lambda: True)
"""A server that is forked though another one is watched here."""
LOSS = Objective(("val_loss",), ("min",))


class Odd(Line):
    """Ends its process as ``act`` says, in the second epoch."""

    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            print("about to", self.hparams.act)
            match self.hparams.act:
                case "exit":
                    os._exit(3)
                case "sys.exit":
                    sys.exit(3)
                case "segfault":
                    ctypes.string_at(0)
                case "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "kill one" if not self.trainer.is_global_zero:
                    os.kill(os.getpid(), signal.SIGKILL)
                case "raise":
                    raise Strange(1, 2)
                case "term":
                    os.kill(os.getpid(), signal.SIGTERM)
                case "hang":
                    signal.pause()
                case "deaf":
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    while True:
                        signal.pause()


class Strange(Exception):  # noqa: N818 - strange in name, too
    """It can be pickled, and not be built again."""

    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


class Collect(SilentReporter):
    def __init__(self, stop_at=None):
        self.told, self.threads, self.stop_at = [], set(), stop_at

    def report(self, values, step):
        self.told.append((values, step))
        self.threads.add(threading.current_thread())
        return Stop(StopReason.PRUNED, "told to") if step == self.stop_at else None

    def notice(self, text):
        self.told.append(text)


@pytest.fixture(scope="module")
def processes(request):
    with TrialProcesses(blueprint(), getattr(request, "param", Beside), grace=0.5) as started:
        yield started


def each_way(*given, cold):
    """Parametrize a test by "given"; what is also done in processes that are started from nothing is slow."""
    ways = [pytest.param(Beside, each, id=f"forked-{each}") for each in given]
    ways.append(pytest.param(Cold, cold, id=f"cold-{cold}", marks=pytest.mark.slow))
    return pytest.mark.parametrize(("processes", "given"), ways, indirect=["processes"])


def blueprint(model=Odd, data=Points):
    return Blueprint(Schema(model, data, L.Trainer), {})


@pytest.fixture
def run(processes, tmp_path):
    def start(act="relu", reporter=None, ranks=1, trial_timeout=None, model=None, **trainer):
        config = {
            "seed_everything": 1,
            "model": {"act": act, **(model or {})},
            "trainer": {"accelerator": "cpu", "max_epochs": 3, **trainer},
        }
        spec = TrialSpec(7, config, tmp_path / "trial", LOSS)
        return processes.run(spec, SLOT, reporter or SilentReporter(), ranks, trial_timeout)

    return start


@each_way("relu", cold="relu")
def test_a_trial_gives_what_it_gives_in_this_process(run, tmp_path, given):
    reporter = Collect()
    outcome = run(given, reporter)
    config = {"seed_everything": 1, "model": {"act": "relu"}, "trainer": {"accelerator": "cpu", "max_epochs": 3}}
    spec, here = TrialSpec(7, config, tmp_path / "here", LOSS), Collect()
    expected = train(spec, Blueprint(Schema(Odd, Points, L.Trainer), config), here)
    assert (outcome.reason, outcome.score) == (expected.reason, expected.score)
    assert reporter.told == here.told
    assert reporter.threads == {threading.current_thread()}
    weights = [
        torch.load(tmp_path / name / "best.ckpt", weights_only=False)["state_dict"] for name in ("trial", "here")
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])


def test_a_notice_of_a_trial_reaches_the_host(run, tmp_path):
    reporter, shared = Collect(), str(tmp_path / "shared")
    given = {"class_path": "ModelCheckpoint", "init_args": {"dirpath": shared}}
    run(reporter=reporter, callbacks=given, max_epochs=1)
    assert reporter.told[0].startswith(f"ModelCheckpoint has dirpath='{shared}' in all trials")


class Full(ForkServer):
    """The system refuses the first two processes, as it does where a user has too many."""

    tries = 0

    def child(self):
        self.tries += 1
        if self.tries <= 2:
            raise OSError(errno.EAGAIN, "The trial's process could not be forked")
        return super().child()


def test_a_process_that_the_system_refuses_is_asked_for_again_with_an_end(tmp_path, caplog):
    config = {"seed_everything": 1, "trainer": {"accelerator": "cpu", "max_epochs": 1}}
    spec = TrialSpec(7, config, tmp_path / "trial", LOSS)
    with TrialProcesses(blueprint(), functools.partial(Full, is_fit_to_fork=lambda: True)) as full:
        assert full.run(spec, SLOT, SilentReporter()).reason is StopReason.COMPLETED
    assert [record.getMessage() for record in caplog.records if "workers" in record.name] == [
        "The system starts no process for a trial, and is asked again for 600 seconds: "
        "[Errno 11] The trial's process could not be forked"
    ]
    refusing = functools.partial(Full, is_fit_to_fork=lambda: True)
    with TrialProcesses(blueprint(), refusing, patience=0.0) as full, pytest.raises(BlockingIOError):
        full.run(spec, SLOT, SilentReporter())


def test_a_decision_comes_back(run):
    outcome = run(reporter=Collect(stop_at=1))
    assert (outcome.reason, outcome.detail, outcome.epochs) == (StopReason.PRUNED, "told to at validation 2", 2)


@pytest.mark.parametrize(
    ("act", "detail"),
    [
        ("exit", "the trial's process ended with exit code 3"),
        ("segfault", "the trial's process was killed by SIGSEGV"),
        ("kill", "the trial's process was killed by SIGKILL"),
    ],
)
def test_whatever_ends_a_process_is_said(run, tmp_path, act, detail):
    reporter = Collect()
    outcome = run(act, reporter)
    assert outcome.reason is StopReason.KILLED
    assert outcome.detail.startswith(f"{detail}. It printed last: ")
    assert f"about to {act}" in outcome.traceback
    assert len(reporter.told) == 1, "what was reported is kept"
    assert f"about to {act}" in (tmp_path / "trial" / "output.log").read_text()


def test_an_error_arrives_with_its_traceback(run):
    outcome = run("raise")
    assert (outcome.reason, outcome.detail) == (StopReason.FAILED, "Strange: 1 and 2")
    assert "in on_train_epoch_start" in outcome.traceback
    assert run("sys.exit").detail == "TrialError: the training called sys.exit(3)"
    outcome = run("term")
    assert (outcome.reason, outcome.detail) == (StopReason.INTERRUPTED, "interrupted by SIGTERM")


@pytest.fixture
def little_memory():
    """Return the file that a process writes its number to, to have little memory."""
    for root, limit, swap in (
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.max", "memory.swap.max"),
    ):
        group = Path(root, f"lightningtune-test-{os.getpid()}")
        try:
            group.mkdir()
            (group / limit).write_text(str(64 * 2**20))
        except OSError:
            continue
        with contextlib.suppress(OSError):  # there is no swap
            (group / swap).write_text("0" if "max" in limit else str(64 * 2**20))
        yield group / "cgroup.procs"
        group.rmdir()
        return
    pytest.skip("control groups cannot be made here")


class Told(Line):
    def on_train_start(self):
        print("process", os.getpid(), "has device", os.environ.get("CUDA_VISIBLE_DEVICES"))


def test_with_an_accelerator_a_trial_ends_when_its_process_is_gone(tmp_path):
    config = {"trainer": {"accelerator": "cpu", "max_epochs": 1}}
    with TrialProcesses(blueprint(Told), Beside) as own:
        for _ in range(5):
            own.run(TrialSpec(0, config, tmp_path, LOSS), Slot(devices=("3",)), SilentReporter())
            *_, said = (tmp_path / "output.log").read_text().splitlines()
            assert said.endswith("has device 3")
            assert int(said.split()[1]) not in children_of(os.getpid())


class Greedy(Line):
    def on_train_start(self):
        Path(self.hparams.act).write_text(str(os.getpid()))
        self.memory = torch.ones(100 * 2**20)


def test_out_of_memory_is_told_from_other_kills(tmp_path, little_memory):
    config = {"model": {"act": str(little_memory)}, "trainer": {"accelerator": "cpu", "max_epochs": 1}}
    with TrialProcesses(blueprint(Greedy), Beside) as own:
        outcome = own.run(TrialSpec(0, config, tmp_path, LOSS), SLOT, SilentReporter())
    assert outcome.reason is StopReason.OUT_OF_MEMORY
    assert outcome.detail == "the system ran out of memory and killed the trial's process"


def test_a_reporter_that_fails_fails_its_trial(run):
    class Away(SilentReporter):
        def report(self, values, step):
            raise ConnectionError("the storage is away")

    outcome = run(reporter=Away())
    assert (outcome.reason, outcome.detail) == (StopReason.FAILED, "ConnectionError: the storage is away")


def test_a_mistake_arrives_as_one(run):
    outcome = run(barebones=True)
    assert isinstance(outcome.error, ConfigurationError)
    assert "barebones" in outcome.detail


@each_way("hang", "deaf", cold="deaf")
def test_a_trial_that_hangs_is_ended(run, given):
    began = time.monotonic()
    outcome = run(given, trial_timeout=1.0)
    assert (outcome.reason, outcome.detail) == (StopReason.TIMED_OUT, "took longer than trial_timeout=1 seconds")
    assert outcome.traceback.startswith("It took longer than trial_timeout=1 seconds.\n")
    assert time.monotonic() - began < 60


def test_nothing_is_left_of_a_trial(tmp_path):
    """Not its DataLoader's workers, however it ends."""
    others = children_of(os.getpid())
    with TrialProcesses(blueprint(Workers, None), Beside) as own:
        (server,) = children_of(os.getpid()) - others
        for act in ("relu", "kill", "raise"):
            config = {"model": {"act": act}, "trainer": {"accelerator": "cpu", "max_epochs": 2}}
            own.run(TrialSpec(0, config, tmp_path / act, LOSS), SLOT, SilentReporter())
            started = [*map(int, (tmp_path / act / "workers").read_text().split())]
            assert len(started) >= 2
            assert have_ended(started)
            family = children_of(os.getpid()) - others
            assert have_ended(family - {server}), "only the server is left"
    assert children_of(os.getpid()) <= others, "what another test has left may end meanwhile"


class Workers(Odd):
    def train_dataloader(self):
        folder = self.trainer.default_root_dir

        def tell(worker):
            with Path(folder, "workers").open("a") as file:
                file.write(f"{os.getpid()}\n")

        data = loaders()[0].dataset
        return torch.utils.data.DataLoader(data, 8, num_workers=2, persistent_workers=True, worker_init_fn=tell)

    def val_dataloader(self):
        return loaders()[1]


@each_way("ddp", "ddp_spawn", "ddp_fork", cold="ddp")
def test_several_processes_train_one_trial(run, tmp_path, given):
    reporter = Collect(stop_at=1)
    outcome = run(reporter=reporter, ranks=2, strategy=given, devices=2)
    assert (outcome.reason, outcome.detail) == (StopReason.PRUNED, "told to at validation 2")
    assert [step for _, step in reporter.told] == [0, 1]
    assert (tmp_path / "trial" / "output_rank1.log").exists()


def test_one_rank_that_dies_takes_the_others_with_it(run):
    began = time.monotonic()
    outcome = run("kill one", ranks=2, strategy="ddp", devices=2)
    assert outcome.detail.startswith("the trial's process was killed by SIGKILL")
    assert outcome.score is None
    assert time.monotonic() - began < 60


def test_trials_run_at_the_same_time(processes, tmp_path):
    meet = threading.Barrier(2, timeout=60)

    class Meets(SilentReporter):
        def report(self, values, step):
            meet.wait()

    def start(name):
        config = {"seed_everything": 1, "trainer": {"accelerator": "cpu", "max_epochs": 2}}
        return processes.run(TrialSpec(0, config, tmp_path / name, LOSS), SLOT, Meets())

    outcomes = []
    threads = [threading.Thread(target=lambda name=name: outcomes.append(start(name))) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.reason for outcome in outcomes] == [StopReason.COMPLETED] * 2


def test_a_server_that_was_killed_is_started_again(tmp_path):
    others = children_of(os.getpid())
    with TrialProcesses(blueprint(), Beside) as own:
        (server,) = children_of(os.getpid()) - others

        class Kills(SilentReporter):
            def report(self, values, step):
                if step == 0:
                    os.kill(server, signal.SIGKILL)

        endless = {"trainer": {"accelerator": "cpu", "max_epochs": 100_000}}
        outcome = own.run(TrialSpec(0, endless, tmp_path, LOSS), SLOT, Kills())
        assert outcome.reason is StopReason.KILLED
        config = {"trainer": {"accelerator": "cpu", "max_epochs": 2}}
        assert own.run(TrialSpec(0, config, tmp_path, LOSS), SLOT, SilentReporter()).score is not None


def test_what_cannot_travel_is_named():
    lock = threading.Lock()

    def model(lr: float = 0.1):
        with lock:
            return Line(lr)

    with pytest.raises(ConfigurationError, match=r"model_class cannot be sent .*lock.*isolate=False"):
        TrialProcesses(blueprint(model, Points))


def test_what_cannot_be_loaded_is_said(tmp_path, monkeypatch):
    class Unloaded:
        def __reduce__(self):
            return exec, ("raise ImportError('no such thing there')",)

        def __call__(self, lr: float = 0.1): ...

    with (
        TrialProcesses(blueprint(Unloaded(), Points), Beside) as own,
        pytest.raises(ConfigurationError, match="no such thing there"),
    ):
        own.run(TrialSpec(0, {}, tmp_path, LOSS), SLOT, SilentReporter())
