"""What `lightningtune status`, `list`, `best` and `trials` draw, to the letter, and the summary of a study."""

from dataclasses import replace
from pathlib import Path

import pytest

from lightningtune.contract import Objective, TrialFacts
from lightningtune.report.terminal import draw_best, draw_status, draw_studies, draw_trials, headline, summary
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.progress import RunningTrial, StudyProgress
from lightningtune.study.results import StudyResults, TrialResult
from lightningtune.study.selection import parse_condition, select


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


def listed(number, state="complete", values=(0.5,), params=None, detail="", is_baseline=False, continued_by=None):
    given = {"model.lr": 0.01, "data.size": 8, "act": "relu"} if params is None else params
    return TrialResult(
        number, state, values, given, "", detail, 3, 12.0, is_baseline, Path(), None, continued_by=continued_by
    )


def results(*trials, name="digits", best=(0,)):
    return StudyResults(name, ("val_acc",), ("maximize",), trials, best)


def test_each_parameter_has_a_column_and_each_end_its_reason():
    rows = results(
        listed(0, is_baseline=True),
        listed(1, "fail", None, detail="killed", continued_by=2),
        listed(2, params={"model.lr": 0.123456, "act": "gelu"}),
        listed(3, "fail", None, {}, "ValueError: a\nb"),
    ).rows()
    assert draw_trials(rows, ("val_acc",)) == (
        """\
trial  state     val_acc      lr  size  act   epochs  time
    0  complete      0.5    0.01     8  relu       3  0:12  untuned defaults
    1  fail                 0.01     8  relu       3  0:12  trial 2 goes on in its place
    2  complete      0.5  0.1235        gelu       3  0:12
    3  fail                                        3  0:12  ValueError: a b"""
    )


def test_what_violates_a_constraint_is_marked_in_the_list():
    too_large = replace(listed(0, is_baseline=True), is_feasible=False)
    rows = results(too_large, replace(listed(1), is_feasible=False), listed(2)).rows()
    remarks = [line.partition("0:12")[2].strip() for line in draw_trials(rows, ("val_acc",)).splitlines()[1:]]
    assert remarks == ["untuned defaults, infeasible", "infeasible", ""]
    assert [row["number"] for row in select(rows, [], [parse_condition("feasible=true")])] == [2]


def test_parameters_whose_last_parts_are_alike_keep_their_paths():
    rows = results(listed(0, params={"model.size": 1, "data.size": 2})).rows()
    assert (
        draw_trials(rows, ("val_acc",)).splitlines()[0]
        == "trial  state     val_acc  model.size  data.size  epochs  time"
    )


def test_a_metric_that_is_called_as_a_column_has_one_of_its_own():
    ended = listed(0, values=(0.25, 0.125), params={})
    found = StudyResults("digits", ("memory", "val_loss"), ("minimize", "minimize"), (ended,), (0,))
    (row,) = found.rows()
    assert (row["metric.memory"], row["memory"], row["val_loss"]) == (0.25, None, 0.125)
    assert draw_trials([row], found.metrics).splitlines()[-1].split()[:4] == ["0", "complete", "0.25", "0.125"]
    assert select([row], [], [parse_condition("metric.memory<1")], "metric.memory") == [row]


SUMMED_BASE = TrialResult(0, "complete", (0.5,), {"lr": 0.001}, "completed", "", 3, 1.0, True, None, None)
SUMMED_BEST = replace(
    SUMMED_BASE, number=1, values=(0.75,), params={"lr": 0.0123456789, "act": "relu"}, is_baseline=False
)


def summed(trials, best, metrics=("val_acc",), directions=("maximize",)):
    return StudyResults("s", metrics, directions, trials, best)


def test_the_answer_comes_with_its_comparison_and_its_files(tmp_path):
    directory = StudyDirectory(tmp_path)
    directory.best_config.parent.mkdir()
    directory.best_checkpoint.touch()
    directory.report.touch()
    assert summary(summed((SUMMED_BASE, SUMMED_BEST), (1,)), directory).splitlines() == [
        "Study 's': 2 complete",
        "Best: trial 1  val_acc = 0.75",
        "  lr   0.0123457",
        "  act  relu",
        "Untuned defaults: val_acc = 0.5  (better by 0.25)",
        f"Config:     {directory.best_config}",
        f"Checkpoint: {directory.best_checkpoint}",
        f"Report:     {directory.report}",
    ]


def test_defaults_that_nothing_beats_are_called_so(tmp_path):
    assert "(nothing better was found)" in summary(summed((SUMMED_BASE,), (0,)), StudyDirectory(tmp_path))


def test_defaults_that_violate_a_constraint_are_called_so(tmp_path):
    too_large = replace(SUMMED_BASE, is_feasible=False)
    text = summary(
        summed((too_large, replace(SUMMED_BASE, number=1, is_baseline=False)), (1,)), StudyDirectory(tmp_path)
    )
    assert "Untuned defaults: val_acc = 0.5  (infeasible: not compared with)" in text


def test_a_study_without_a_completed_trial_says_why(tmp_path):
    failed = replace(SUMMED_BASE, state="fail", values=None, detail="ValueError: x")
    text = summary(summed((failed,), ()), StudyDirectory(tmp_path))
    assert text.splitlines()[1] == "No trial completed. Trials: 1 fail. Most frequent reason: ValueError: x"


def test_a_study_that_was_only_interrupted_goes_on(tmp_path):
    interrupted = replace(SUMMED_BASE, state="fail", values=None, reason="interrupted", detail="by Ctrl-C")
    assert summary(summed((interrupted,), ()), StudyDirectory(tmp_path)).splitlines() == [
        "Study 's': 1 interrupted",
        "No trial completed. Run the study again to go on with those that were interrupted.",
    ]


def test_every_trial_of_a_front_is_listed(tmp_path):
    front = tuple(replace(SUMMED_BASE, number=n, values=(n / 10, 1 - n / 10), is_baseline=False) for n in range(2))
    text = summary(summed(front, (0, 1), ("acc", "size"), ("maximize", "minimize")), StudyDirectory(tmp_path))
    assert "Best: trial 0  acc = 0  size = 1" in text
    assert "Best: trial 1  acc = 0.1  size = 0.9" in text


def test_the_headline_says_what_is_about_to_run():
    objective = Objective(("loss", "acc"), ("min", "max"))
    assert headline("s", objective, 0, 10) == "Study 's': minimize loss, maximize acc, 10 trials."
    assert headline("s", objective, 4, 10).endswith("10 trials, going on after 4.")
    assert headline("s", objective, 10, 10).endswith("raise n_trials to go on.")
