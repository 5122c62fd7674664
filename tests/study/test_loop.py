"""The loop over trials, with futures in place of processes."""

from concurrent.futures import Future, ThreadPoolExecutor

import optuna
import pytest

from lightningtune.contract import StopReason, TrialOutcome
from lightningtune.study.liveness import HostedStudy
from lightningtune.study.loop import ask_and_tell

DONE = TrialOutcome(StopReason.COMPLETED, score=(1.0,))


@pytest.fixture
def study():
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(study_name="s", storage=storage)
    return HostedStudy("s", storage, optuna.samplers.RandomSampler(seed=0))


class Starter:
    """Ends trials when it is told to: by default, each at once."""

    def __init__(self, outcomes=None, held=()):
        self.outcomes, self.held, self.futures, self.ended = outcomes or {}, held, {}, 0

    def __call__(self, trial):
        future = self.futures[trial.number] = Future()
        if trial.number not in self.held:
            future.set_result(self.outcomes.get(trial.number, DONE))
        return future

    def end(self):
        self.ended += 1
        for future in self.futures.values():
            if not future.done():
                future.set_result(TrialOutcome.failed(KeyboardInterrupt(), StopReason.INTERRUPTED))


class Refuser(Starter):
    """Cannot start a trial: as at the interpreter's end, or when Ctrl-C comes just then."""

    def __init__(self, refused, error, held):
        super().__init__(held=held)
        self.refused, self.error = refused, error

    def __call__(self, trial):
        if trial.number == self.refused:
            self.error()
        return super().__call__(trial)


def run(study, starter, n_jobs=2, n_trials=5, timeout=None, catch=(Exception,), callbacks=()):
    def is_wanted(running):
        return len(study.trials) < n_trials

    ask_and_tell(
        study, starter, lambda trial, outcome: outcome, starter.end, is_wanted, n_jobs, timeout, catch, callbacks
    )
    return [trial.state.name for trial in study.trials]


def test_every_outcome_is_told(study):
    failed = TrialOutcome.failed(ValueError("no"))
    pruned = TrialOutcome(StopReason.PRUNED, "bad")
    assert run(study, Starter({1: failed, 2: pruned})) == ["COMPLETE", "FAIL", "PRUNED", "COMPLETE", "COMPLETE"]
    assert study.trials[0].values == [1.0]


def test_never_more_than_asked_for_run_at_a_time(study):
    starter = Starter(held={0, 1, 2, 3, 4})
    most = []

    def next_one_ends(study, trial):
        running = [future for future in starter.futures.values() if not future.done()]
        most.append(len(running))
        if running:
            running[0].set_result(DONE)

    held = starter.held
    starter.held = held - {0}
    run(study, starter, n_jobs=3, callbacks=[next_one_ends])
    assert len(most) == 5
    assert max(most) <= 2, "one of three has just ended"


def test_callbacks_see_the_told_trial_and_may_stop(study):
    seen = []

    def look(study, trial):
        seen.append((trial.number, trial.state.name))
        study.stop()

    run(study, Starter(), n_jobs=2, callbacks=[look])
    assert seen == [(0, "COMPLETE"), (1, "COMPLETE")], "those that ran are told, no other is asked for"


def test_a_timeout_asks_for_no_further_trial(study):
    assert run(study, Starter(), timeout=0) == []


def test_an_error_that_is_not_caught_ends_every_trial_and_is_raised(study):
    starter = Starter({0: TrialOutcome.failed(ValueError("no"))}, held={1})
    with pytest.raises(ValueError, match="no"):
        run(study, starter, catch=())
    assert starter.ended == 1
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL"]


def test_a_callback_that_raises_leaves_no_trial_running(study):
    def fails(study, trial):
        raise RuntimeError("broken callback")

    with pytest.raises(RuntimeError, match="broken callback"):
        run(study, Starter(held={1}), callbacks=[fails])
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL"]


def no_more_threads():
    threads = ThreadPoolExecutor(1)
    threads.shutdown()
    threads.submit(print)


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize(("error", "kind"), [(no_more_threads, RuntimeError), (interrupt, KeyboardInterrupt)])
def test_a_trial_that_cannot_be_started_is_not_left_running(study, error, kind):
    recorded = {}

    def record(trial, outcome):
        recorded[trial.number] = outcome.reason
        return outcome

    starter = Refuser(2, error, held={1})
    with pytest.raises(kind):
        ask_and_tell(study, starter, record, starter.end, lambda running: True, 2, None, (), ())
    assert starter.ended == 1
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "FAIL"]
    assert recorded == {0: StopReason.COMPLETED, 1: StopReason.INTERRUPTED, 2: StopReason.INTERRUPTED}


def test_several_values_are_told(study):
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(study_name="m", storage=storage, directions=["minimize", "maximize"])
    several = HostedStudy("m", storage)
    run(several, Starter({0: TrialOutcome(StopReason.COMPLETED, score=(1.0, 2.0))}), n_trials=1)
    assert several.trials[0].values == [1.0, 2.0]
