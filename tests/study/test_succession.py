"""Which trial goes on from which."""

import optuna
import pytest
from optuna.trial import TrialState
from reported import constrain

from lightningtune import ConfigurationError
from lightningtune.contract import StopReason, TrialOutcome
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.liveness import WORKER, claim
from lightningtune.study.reporter import record_outcome
from lightningtune.study.results import collect_results
from lightningtune.study.succession import (
    ATTEMPT,
    CONTINUES,
    ORIGIN,
    find_successors,
    get_lineage,
    next_attempt,
    requeue,
)
from lightningtune.study.tally import TrialTally, count_finished, get_constraints, is_new


@pytest.fixture
def study():
    return optuna.create_study(direction="minimize")


def killed(study, values=(), reason=StopReason.KILLED):
    """A trial that goes wrong after so many values: the next that waits, if one does."""
    trial = study.ask()
    claim(trial)
    for step, value in enumerate(values):
        trial.report(value, step)
    record_outcome(trial, TrialOutcome(reason, "killed by SIGKILL"))
    study.tell(trial, state=TrialState.FAIL)
    return trial.number


def queue_to_go_on_from(study, number):
    waiting = optuna.trial.create_trial(state=TrialState.WAITING, user_attrs={CONTINUES: number})
    study.add_trial(waiting)


def test_a_trial_is_queued_again_once(study):
    number = killed(study)
    assert [requeue(study, number) for _ in range(3)] == [1, 1, 1]
    assert len(study.trials) == 2


def test_only_a_failed_trial_is_queued_again(study):
    study.tell(study.ask(), 1.0)
    study.ask()
    assert [requeue(study, number) for number in (0, 1)] == [None, None]


def test_of_several_the_first_goes_on_and_the_others_are_withdrawn(study):
    killed(study)
    for _ in range(3):
        queue_to_go_on_from(study, 0)
    first, begun = study.ask(), study.ask()
    assert find_successors(study.trials) == {0: 1, 2: 1, 3: 1}
    assert (claim(first), claim(begun)) == (True, False)
    assert requeue(study, 0) == 1
    assert is_new(study) is False
    assert count_finished(study) == 0
    assert [trial.state.name for trial in study.trials] == ["FAIL", "RUNNING", "FAIL", "FAIL"]
    study.tell(first, 1.0)
    assert count_finished(study) == 1


def test_withdrawn_trials_leave_the_queue(study):
    killed(study)
    queue_to_go_on_from(study, 0)
    queue_to_go_on_from(study, 0)
    assert requeue(study, 0) == 1
    assert [trial.state.name for trial in study.trials] == ["FAIL", "WAITING", "FAIL"]
    assert study.trials[2].user_attrs["lightningtune:detail"] == "trial 1 goes on in its place already"


def test_a_grid_knows_that_a_point_is_taken_again():
    study = optuna.create_study(sampler=optuna.samplers.GridSampler({"x": [0.0, 1.0]}, seed=0))
    old = study.ask()
    x = old.suggest_float("x", 0, 1)
    study.tell(old, state=TrialState.FAIL)
    requeue(study, 0)
    seen = {study.ask().suggest_float("x", 0, 1) for _ in range(2)}
    assert seen == {0.0, 1.0}
    assert study.trials[1].params["x"] == x


def test_constraints_are_set_anew(study):
    old = study.ask()
    constrain(old, 1.0)
    study.tell(old, state=TrialState.FAIL)
    requeue(study, 0)
    new = study.ask()
    constrain(new, -1.0)
    assert [*get_constraints(study.trials[1]).values()] == [-1.0]


def test_a_training_keeps_its_place(study):
    killed(study)
    requeue(study, 0)
    killed(study)
    requeue(study, 1)
    study.ask()
    study.ask()
    assert [TrialTally(study).get_place(number) for number in range(4)] == [0, 0, 0, 1]


def test_a_trial_counts_once(study, tmp_path):
    study.tell(study.ask(), 2.0)
    killed(study)
    requeue(study, 1)
    results = collect_results(study, ("loss",), StudyDirectory(tmp_path))
    assert results.counts == {"complete": 1, "waiting": 1}
    assert (results.trials[1].continued_by, results.trials[2].continues) == (2, 1)
    assert list(results.to_pandas()["continued_by"].fillna(-1)) == [-1, 2, -1]
    study.tell(study.ask(), 1.0)
    assert count_finished(study) == 2
    assert collect_results(study, ("loss",), StudyDirectory(tmp_path)).counts == {"complete": 2}


def test_a_trial_that_was_cut_short_each_time_fails_once(study):
    for _ in range(3):
        requeue(study, killed(study))
    assert study.trials[2].user_attrs[ATTEMPT] == 3
    assert TrialTally(study).find_failing_alike(2) is None
    killed(study)
    assert TrialTally(study).find_failing_alike(2) == (2, "killed by SIGKILL")


def attempts(study, *lengths, reason=StopReason.KILLED):
    """Cut one training short after so many values each time; return the count that each attempt was given."""
    for length in lengths:
        number = killed(study, [0.5] * length, reason)
        requeue(study, number)
    return [trial.user_attrs.get(ATTEMPT, 1) for trial in study.trials]


@pytest.mark.parametrize(
    ("lengths", "counts"),
    [
        ((0, 0, 0), [1, 2, 3]),
        ((3, 3, 3, 3), [1, 1, 2, 3]),
        ((3, 0, 1, 4, 4), [1, 1, 2, 3, 1, 2]),
        ((2, 1, 2, 1), [1, 1, 2, 3]),
        ((1, 2, 3, 4, 5), [1, 1, 1, 1, 1, 1]),
    ],
)
def test_an_attempt_that_got_further_than_all_before_it_starts_the_count_afresh(study, lengths, counts):
    assert attempts(study, *lengths) == counts
    assert get_lineage(study.trials, len(study.trials) - 1)[0].number == 0


def test_a_training_that_ends_its_process_always_at_the_same_step_has_failed_after_three_more(study):
    attempts(study, 4, 4, 4, 4)
    assert {trial.user_attrs.get(ORIGIN) for trial in study.trials[1:]} == {0}
    assert [trial.state.name for trial in study.trials] == ["FAIL"] * 4
    assert count_finished(study) == 1


def test_an_interrupted_attempt_does_not_count(study):
    assert attempts(study, 0, 0, 0, 0, reason=StopReason.INTERRUPTED) == [1] * 5
    killed(study, [0.5])
    assert next_attempt(study.trials) == 1


def test_with_several_objectives_every_attempt_counts():
    study = optuna.create_study(directions=["minimize", "maximize"])
    assert attempts(study, 0, 0, 0) == [1, 2, 3]


def test_the_weights_of_a_trial_stay_until_the_one_that_goes_on_has_ended(study):
    requeue(study, killed(study))
    requeue(study, killed(study))
    assert TrialTally(study).find_kept(1) == {0, 1, 2}
    study.tell(study.ask(), 1.0)
    assert TrialTally(study).find_kept(1) == {2}


def test_an_interrupted_trial_keeps_its_weights_until_another_has_gone_on(study):
    killed(study, reason=StopReason.INTERRUPTED)
    assert TrialTally(study).find_kept(1) == {0}
    requeue(study, 0)
    study.tell(study.ask(), 1.0)
    assert TrialTally(study).find_kept(1) == {1}


def test_what_one_attempt_was_like_is_not_handed_on(study):
    requeue(study, killed(study))
    assert WORKER in study.trials[0].user_attrs
    assert {name for name in study.trials[1].user_attrs if "seconds" in name or "worker" in name} == set()


def test_the_weights_of_a_killed_trial_are_kept_until_it_is_given_out_again_or_given_up(study):
    number = killed(study)
    assert TrialTally(study).find_kept(1) == {0}
    requeue(study, number)
    assert TrialTally(study).find_kept(1) == {0, 1}
    killed(study)
    requeue(study, 1)
    killed(study)
    assert requeue(study, 2) is None
    assert TrialTally(study).find_kept(1) == set()


def end(study, outcome, state=TrialState.FAIL):
    trial = study.ask()
    record_outcome(trial, outcome)
    study.tell(trial, state=state)


def test_an_interrupted_trial_is_not_counted_and_leaves_the_study_new():
    study = optuna.create_study()
    assert is_new(study)
    end(study, TrialOutcome(StopReason.INTERRUPTED, "interrupted by Ctrl-C"))
    assert count_finished(study) == 0
    assert is_new(study)
    end(study, TrialOutcome.failed(ValueError("x")))
    assert count_finished(study) == 1
    assert not is_new(study)


def test_failures_are_alike_when_their_reason_is_the_same():
    study = optuna.create_study()
    for _ in range(2):
        end(study, TrialOutcome.failed(ValueError("bad")))
    assert TrialTally(study).find_failing_alike(3) is None
    end(study, TrialOutcome.failed(ValueError("bad")))
    assert TrialTally(study).find_failing_alike(3) == (3, "ValueError: bad")
    end(study, TrialOutcome.failed(ValueError("other")))
    assert TrialTally(study).find_failing_alike(3) is None


def test_failures_are_alike_whatever_numbers_they_tell():
    study = optuna.create_study()
    for size in ("2.50 GiB", "3 GiB", "0x7f GiB"):
        end(study, TrialOutcome.failed(ValueError(f"no room for {size}")))
    assert TrialTally(study).find_failing_alike(3) == (3, "ValueError: no room for 0x7f GiB")


@pytest.mark.parametrize("reason", [StopReason.FAILED, StopReason.OUT_OF_MEMORY])
@pytest.mark.parametrize("has_completed", [True, False])
def test_once_a_trial_has_worked_ten_times_as_many_failures_end_a_study(reason, has_completed):
    study, failed = optuna.create_study(), TrialOutcome.failed(ValueError("x"), reason)
    values = {"value": 1.0} if has_completed else {"state": TrialState.PRUNED, "intermediate_values": {0: 1.0}}
    study.add_trial(optuna.trial.create_trial(**values))
    for _ in range(19):
        end(study, failed)
    assert TrialTally(study).find_failing_alike(2) is None
    end(study, failed)
    assert TrialTally(study).find_failing_alike(2) == (20, "ValueError: x")
    study.add_trial(optuna.trial.create_trial(**values))
    end(study, failed)
    assert TrialTally(study).find_failing_alike(2) is None


def test_a_trial_pruned_before_it_reports_says_nothing_of_whether_others_work():
    study = optuna.create_study()
    for _ in range(2):
        end(study, TrialOutcome.failed(ValueError("bad")))
        end(study, TrialOutcome.pruned(optuna.TrialPruned("impossible")), TrialState.PRUNED)
    assert TrialTally(study).find_failing_alike(2) == (2, "ValueError: bad")


def test_a_refused_trial_does_not_count_and_the_baseline_comes_again():
    study = optuna.create_study()
    end(study, TrialOutcome.failed(ConfigurationError("no such metric"), StopReason.REFUSED))
    assert count_finished(study) == 0
    assert is_new(study)
