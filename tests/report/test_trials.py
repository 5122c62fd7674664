"""What `lightningtune trials` and `compare` draw, to the letter."""

from dataclasses import replace
from pathlib import Path

from lightningtune.report.contrast import draw_contrast
from lightningtune.report.trials import draw_trials
from lightningtune.study.contrast import contrast, finding_of
from lightningtune.study.results import StudyResults, TrialResult
from lightningtune.study.selection import parse_condition, select


def trial(number, state="complete", values=(0.5,), params=None, detail="", is_baseline=False, continued_by=None):
    given = {"model.lr": 0.01, "data.size": 8, "act": "relu"} if params is None else params
    return TrialResult(
        number, state, values, given, "", detail, 3, 12.0, is_baseline, Path(), None, continued_by=continued_by
    )


def results(*trials, name="digits", best=(0,)):
    return StudyResults(name, ("val_acc",), ("maximize",), trials, best)


def test_each_parameter_has_a_column_and_each_end_its_reason():
    rows = results(
        trial(0, is_baseline=True),
        trial(1, "fail", None, detail="killed", continued_by=2),
        trial(2, params={"model.lr": 0.123456, "act": "gelu"}),
        trial(3, "fail", None, {}, "ValueError: a\nb"),
    ).rows()
    assert draw_trials(rows, ("val_acc",)) == (
        """\
trial  state     val_acc      lr  size  act   epochs  time
    0  complete      0.5    0.01     8  relu       3  0:12  untuned defaults
    1  fail                 0.01     8  relu       3  0:12  trial 2 goes on in its place
    2  complete      0.5  0.1235        gelu       3  0:12
    3  fail                                        3  0:12  ValueError: a b"""
    )


def test_what_violates_a_constraint_is_marked():
    too_large = replace(trial(0, is_baseline=True), is_feasible=False)
    rows = results(too_large, replace(trial(1), is_feasible=False), trial(2)).rows()
    remarks = [line.partition("0:12")[2].strip() for line in draw_trials(rows, ("val_acc",)).splitlines()[1:]]
    assert remarks == ["untuned defaults, infeasible", "infeasible", ""]
    assert [row["number"] for row in select(rows, [], [parse_condition("feasible=true")])] == [2]


def test_parameters_whose_last_parts_are_alike_keep_their_paths():
    rows = results(trial(0, params={"model.size": 1, "data.size": 2})).rows()
    assert (
        draw_trials(rows, ("val_acc",)).splitlines()[0]
        == "trial  state     val_acc  model.size  data.size  epochs  time"
    )


def test_studies_stand_side_by_side_with_what_differs_below():
    one = results(trial(0, is_baseline=True), trial(1, values=(0.75,)), best=(1,))
    other = results(trial(0, "fail", None), name="faces", best=())
    definitions = ({"seed": 1, "sampler": "TPESampler"}, {"seed": 2, "sampler": "TPESampler", "callbacks": "x" * 60})
    seen = contrast((finding_of(one), finding_of(other)), definitions)
    assert draw_contrast(seen) == (
        f"""\
                    digits ★          faces
aim                 maximize val_acc  maximize val_acc
best                0.75  (trial 1)
untuned defaults    0.5
better by           0.25
complete            2
fail                                  1
epochs              6                 3
time of all trials  0:24              0:12

what differs  digits  faces
seed          1       2
callbacks             {"x" * 39}…"""
    )


def test_of_studies_that_are_alike_it_is_said():
    both = (finding_of(results(trial(0))), finding_of(results(trial(0), name="faces")))
    assert draw_contrast(contrast(both, ({}, {}))).endswith("\n\nNothing that was written down of them differs.")


def test_a_metric_that_is_called_as_a_column_has_one_of_its_own():
    ended = trial(0, values=(0.25, 0.125), params={})
    found = StudyResults("digits", ("memory", "val_loss"), ("minimize", "minimize"), (ended,), (0,))
    (row,) = found.rows()
    assert (row["metric.memory"], row["memory"], row["val_loss"]) == (0.25, None, 0.125)
    assert draw_trials([row], found.metrics).splitlines()[-1].split()[:4] == ["0", "complete", "0.25", "0.125"]
    assert select([row], [], [parse_condition("metric.memory<1")], "metric.memory") == [row]
