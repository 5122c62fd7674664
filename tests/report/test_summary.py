import dataclasses

from lightningtune.contract import Objective
from lightningtune.report.summary import headline, summary
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.results import StudyResults, TrialResult

BASE = TrialResult(0, "complete", (0.5,), {"lr": 0.001}, "completed", "", 3, 1.0, True, None, None)
BEST = dataclasses.replace(
    BASE, number=1, values=(0.75,), params={"lr": 0.0123456789, "act": "relu"}, is_baseline=False
)


def study(trials, best, metrics=("val_acc",), directions=("maximize",)):
    return StudyResults("s", metrics, directions, trials, best)


def test_the_answer_comes_with_its_comparison_and_its_files(tmp_path):
    directory = StudyDirectory(tmp_path)
    directory.best_config.parent.mkdir()
    directory.best_checkpoint.touch()
    directory.report.touch()
    assert summary(study((BASE, BEST), (1,)), directory).splitlines() == [
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
    assert "(nothing better was found)" in summary(study((BASE,), (0,)), StudyDirectory(tmp_path))


def test_defaults_that_violate_a_constraint_are_called_so(tmp_path):
    too_large = dataclasses.replace(BASE, is_feasible=False)
    text = summary(
        study((too_large, dataclasses.replace(BASE, number=1, is_baseline=False)), (1,)), StudyDirectory(tmp_path)
    )
    assert "Untuned defaults: val_acc = 0.5  (infeasible: not compared with)" in text


def test_a_study_without_a_completed_trial_says_why(tmp_path):
    failed = dataclasses.replace(BASE, state="fail", values=None, detail="ValueError: x")
    text = summary(study((failed,), ()), StudyDirectory(tmp_path))
    assert text.splitlines()[1] == "No trial completed. Trials: 1 fail. Most frequent reason: ValueError: x"


def test_a_study_that_was_only_interrupted_goes_on(tmp_path):
    interrupted = dataclasses.replace(BASE, state="fail", values=None, reason="interrupted", detail="by Ctrl-C")
    assert summary(study((interrupted,), ()), StudyDirectory(tmp_path)).splitlines() == [
        "Study 's': 1 interrupted",
        "No trial completed. Run the study again to go on with those that were interrupted.",
    ]


def test_every_trial_of_a_front_is_listed(tmp_path):
    front = tuple(dataclasses.replace(BASE, number=n, values=(n / 10, 1 - n / 10), is_baseline=False) for n in range(2))
    text = summary(study(front, (0, 1), ("acc", "size"), ("maximize", "minimize")), StudyDirectory(tmp_path))
    assert "Best: trial 0  acc = 0  size = 1" in text
    assert "Best: trial 1  acc = 0.1  size = 0.9" in text


def test_the_headline_says_what_is_about_to_run():
    objective = Objective(("loss", "acc"), ("min", "max"))
    assert headline("s", objective, 0, 10) == "Study 's': minimize loss, maximize acc, 10 trials."
    assert headline("s", objective, 4, 10).endswith("10 trials, going on after 4.")
    assert headline("s", objective, 10, 10).endswith("raise n_trials to go on.")
