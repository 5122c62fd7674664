"""What is kept up to date as trials end is what reading all trials at once gives."""

import random

import optuna
import pytest
from optuna.trial import TrialState

from lightningtune.contract import StopReason, TrialOutcome
from lightningtune.study.liveness import claim
from lightningtune.study.reporter import record_outcome
from lightningtune.study.succession import requeue
from lightningtune.study.tally import TrialTally, count_finished


def end_somehow(study, trial, draw):
    """End a trial in one of the ways in which trials end."""
    kind = draw.choice(["complete", "complete", "infeasible", "pruned", "fail", "interrupted", "killed", "running"])
    objectives = len(study.directions)
    if kind in ("complete", "infeasible"):
        if kind == "infeasible":
            study._storage.set_trial_system_attr(trial._trial_id, "constraints", (1.0,))
        study.tell(trial, [float(draw.randint(0, 5)) for _ in range(objectives)])
    elif kind == "pruned":
        if objectives == 1 and draw.random() < 0.5:
            trial.report(0.5, 0)
        study.tell(trial, state=TrialState.PRUNED)
    elif kind != "running":
        reason = {"fail": StopReason.FAILED, "interrupted": StopReason.INTERRUPTED, "killed": StopReason.KILLED}[kind]
        record_outcome(trial, TrialOutcome(reason, f"{kind} {draw.randint(0, 1)}"))
        study.tell(trial, state=TrialState.FAIL)
        if kind != "fail" and draw.random() < 0.5:
            requeue(study, trial.number)


def look(tally):
    return (
        tally.count,
        tally.best,
        tally.successors,
        tally.unfinished,
        tally.cut_short,
        tally.is_untried,
        tally.find_kept(2),
        tally.find_failing_alike(2),
        [tally.get_place(trial.number) for trial in tally.trials],
    )


@pytest.mark.parametrize("directions", [["minimize"], ["maximize"], ["minimize", "maximize"]], ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_a_tally_that_is_updated_is_one_that_is_made_anew(directions, seed):
    draw, study = random.Random(seed), optuna.create_study(directions=directions)
    tally = TrialTally(study)
    for _ in range(40):
        trial = study.ask()
        claim(trial)
        if draw.random() < 0.5:  # another host may look while the trial runs
            tally.update()
        end_somehow(study, trial, draw)
        tally.update()
        assert look(tally) == look(TrialTally(study))
        assert count_finished(study) == tally.count
    best = sorted(trial.number for trial in study.best_trials)
    values = {tuple(tally.trials[number].values) for number in best}
    assert tally.best == (best if len(directions) > 1 else best[:1])
    assert {tuple(tally.trials[number].values) for number in tally.best} == values


def test_trials_that_do_not_count_stay_out_when_a_study_starts_over():
    study = optuna.create_study()
    tally = TrialTally(study)
    study.add_trials([optuna.create_trial(state=TrialState.FAIL) for _ in range(2)])
    tally.update()
    assert tally.count == 2
    study.set_user_attr("lightningtune:void", 2)
    study.add_trial(optuna.create_trial(value=1.0))
    tally.update()
    assert (tally.count, count_finished(study)) == (1, 1)
