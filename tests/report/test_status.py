"""What `lightningtune status`, `list` and `best` draw, to the letter."""

from dataclasses import replace
from pathlib import Path

import pytest

from lightningtune.contract import TrialFacts
from lightningtune.report.best import draw_best
from lightningtune.report.status import draw_status
from lightningtune.report.studies import draw_studies
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.progress import RunningTrial, StudyProgress
from lightningtune.study.results import StudyResults, TrialResult


def trial(number, state="complete", values=None, reason="", detail="", is_baseline=False):
    params = {"model.lr": 0.001 * (number + 1), "act": "relu"}
    values = values if values is not None or state != "complete" else (number / 10,)
    facts = TrialFacts(parameters=1234, memory=3 * 2**20)
    return TrialResult(number, state, values, params, reason, detail, 10, 75.0, is_baseline, Path(), None, facts=facts)


def running(number=4, **changes):
    given = {"params": {"model.lr": 0.1}, "validations": 4, "epoch": 4, "max_epochs": 10, "value": 0.21, "best": 0.3}
    given |= {"seconds": 42.0, "where": "process 7 on a", "is_dead": False, "is_baseline": False, **changes}
    return RunningTrial(number, **given)


def progress(trials, best, runs=(), done=3, total=10, trial_seconds=75.0, metrics=("val_acc",)):
    results = StudyResults("digits", metrics, ("maximize",) * len(metrics), tuple(trials), best)
    return StudyProgress(results, done, total, tuple(runs), trial_seconds)


TRIALS = (
    trial(0, is_baseline=True),
    trial(1, "pruned", (0.05,), "pruned", "pruned by MedianPruner with 0.05 at validation 4"),
    trial(2),
    trial(3, "fail", reason="failed", detail="RuntimeError: no\nluck"),
    trial(4, "running"),
)


def test_the_whole_of_it():
    assert draw_status(progress(TRIALS, (2,), [running()])) == (
        """\
Study 'digits': maximize val_acc
Trials: 3 of 10 done (2 complete, 1 pruned, 1 fail, 1 running)
Best: trial 2 with val_acc 0.2, better than the untuned defaults by 0.2
Rate: 48 trials an hour, 8 min left

trial     state     val_acc  epochs  time  parameters
    0     complete        0      10  1:15  lr=0.001 act=relu (untuned defaults)
    1     pruned       0.05      10  1:15  lr=0.002 act=relu
    2  ★  complete      0.2      10  1:15  lr=0.003 act=relu
    3     fail                   10  1:15  RuntimeError: no luck
    4     running      0.21    4/10  0:42  lr=0.1"""
    )


def test_what_violates_a_constraint_is_marked():
    baseline, other = (replace(one, is_feasible=False) for one in (TRIALS[0], TRIALS[2]))
    lines = draw_status(progress((baseline, other), ())).splitlines()
    assert "Best: none, for each trial that is complete violates a constraint" in lines
    assert [line.rpartition("relu ")[2] for line in lines[-2:]] == ["(untuned defaults, infeasible)", "(infeasible)"]


def test_lines_of_the_table_are_cut_where_the_terminal_ends():
    drawn = draw_status(progress(TRIALS, (2,), [running()]), width=50).splitlines()
    assert drawn[6] == "    0     complete        0      10  1:15  lr=0.0…"
    assert max(map(len, drawn[5:])) <= 50


def test_of_many_trials_the_latest_and_the_best_are_shown():
    many = [trial(number, values=(100.0 - number,)) for number in range(200)]
    drawn = draw_status(progress(many, (0,), done=200, total=200), latest=3)
    assert [line.split()[0] for line in drawn.splitlines()[6:]] == ["0", "197", "198", "199", "196"]
    assert drawn.splitlines()[-1] == "196 more trials: lightningtune trials digits"
    assert "It has all its trials." in drawn


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (progress((), (), done=0, total=None, trial_seconds=None), "Trials: 0 done (none yet)\nNothing runs now."),
        (progress(TRIALS, (2,), [running(is_dead=True)]), "The process of trial 4 has died. Run the study again"),
        (progress(TRIALS, (2,), [running(is_dead=True)]), "   4     died"),
        (progress(TRIALS, (2,), [running(epoch=None)]), "4 val."),
        (progress(TRIALS, (0,)), "untuned defaults\nNothing runs now. Run it again"),
        (progress([trial(0, values=(1.0, 2.0))] * 2, (0, 1), metrics=("a", "b")), "Best: 2 trials on the Pareto front"),
        (progress([trial(0, "fail", reason="interrupted", detail="by Ctrl-C")], ()), "interrupted"),
    ],
)
def test_each_state_of_a_study_is_said(seen, says):
    assert says in draw_status(seen)


def test_several_studies_have_a_line_each():
    other = progress([trial(0, values=(1.0, 2.0))] * 2, (0, 1), metrics=("a", "b"), total=None)
    assert draw_studies([progress(TRIALS, (2,), [running()]), other]) == (
        """\
study   trials  running  metric                    best   left
digits    3/10        1  val_acc                    0.2  8 min
digits     3/?           a, b     2 on the Pareto front"""
    )


def test_the_best_trial_with_what_it_took(tmp_path):
    directory = StudyDirectory(tmp_path)
    results = progress(TRIALS, (2,)).results
    assert draw_best(results, 2, directory) == (
        """\
Study 'digits', best: trial 2
  val_acc = 0.2, better than the untuned defaults by 0.2

  model.lr  0.003
  act       relu

Defaults:   val_acc = 0
Took:       10 epochs in 1:15, 1,234 parameters, 3 MiB"""
    )
    other = draw_best(results, 0, directory, {"model": {"lr": 0.1}})
    assert other.startswith("Study 'digits', trial 0\n  val_acc = 0\n")
    assert other.endswith(f"Config:     {directory.config(0)}\n  model:\n    lr: 0.1")


@pytest.mark.parametrize(("seconds", "rate"), [(0.1914, "18,809"), (75.0, "48"), (1500.0, "2.4"), (36000.0, "0.1")])
def test_a_rate_is_a_number_that_is_read_at_a_glance(seconds, rate):
    assert f"\nRate: {rate} trials an hour" in draw_status(progress(TRIALS, (2,), [running()], trial_seconds=seconds))
