"""What `lightningtune compare` finds and draws."""

from pathlib import Path

from lightningtune.report.compare import compare_studies, draw_comparison
from lightningtune.study.results import StudyResults, TrialResult


def trial(number, values=(0.5,), state="complete", is_baseline=False, continued_by=None):
    return TrialResult(number, state, values, {}, "", "", 3, 2.0, is_baseline, Path(), None, continued_by=continued_by)


def study(*trials, name="s", best=(0,), metrics=("acc",), directions=("maximize",)):
    return StudyResults(name, metrics, directions, trials, best)


def sum_up(*trials, best):
    return compare_studies([study(*trials, best=best)], [{}]).studies[0]


def find_winner(*values, **aims):
    studies = [study(trial(0, value), **aims) if value else study(best=(), **aims) for value in values]
    return compare_studies(studies, [{}] * len(values)).winner


def test_a_study_is_summed_up():
    found = sum_up(trial(0, is_baseline=True), trial(1, (0.75,)), trial(2, None, "fail"), best=(1,))
    assert (found.best, found.best_number, found.baseline, found.improvement) == ((0.75,), 1, (0.5,), 0.25)
    assert (found.counts, found.epochs, found.seconds) == ({"complete": 2, "fail": 1}, 9, 6.0)


def test_epochs_of_a_trial_that_another_goes_on_from_count_once():
    found = sum_up(trial(0, None, "fail", continued_by=1), trial(1, (0.75,)), best=(1,))
    assert (found.epochs, found.seconds, found.counts) == (3, 4.0, {"complete": 1})


def test_a_study_of_nothing_is_too():
    found = sum_up(best=())
    assert (found.best, found.best_number, found.baseline, found.epochs) == (None, None, None, 0)


def test_the_better_wins_where_both_tune_the_same():
    assert find_winner((0.5,), (0.6,)) == 1
    assert find_winner((0.5,), (0.6,), directions=("minimize",)) == 0
    assert find_winner(None, (0.6,)) == 1


def test_nobody_wins_where_it_cannot_be_said():
    assert find_winner((0.5,), (0.5,)) is None
    assert find_winner(None, None) is None
    assert find_winner((0.5, 1.0), (0.6, 1.0), metrics=("a", "b"), directions=("maximize", "minimize")) is None
    assert compare_studies([study(trial(0)), study(trial(0, (0.6,)), metrics=("f1",))], [{}, {}]).winner is None


def test_what_differs_in_the_definitions_is_named_by_its_path():
    one = {"study_name": "a", "base_config": {"trainer": {"max_epochs": 3}}, "search_space": {"lr": {"low": 0.1}}}
    other = {"study_name": "b", "base_config": {"trainer": {"max_epochs": 5}}, "search_space": {"lr": {"low": 0.1}}}
    assert compare_studies([study(trial(0))] * 3, (one, other, {})).differences == {
        "base_config.trainer.max_epochs": (3, 5, None),
        "search_space.lr.low": (0.1, 0.1, None),
    }


def test_studies_stand_side_by_side_with_what_differs_below():
    one = study(trial(0, is_baseline=True), trial(1, (0.75,)), name="digits", best=(1,))
    other = study(trial(0, None, "fail"), name="faces", best=())
    definitions = ({"seed": 1, "sampler": "TPESampler"}, {"seed": 2, "sampler": "TPESampler", "callbacks": "x" * 60})
    assert draw_comparison(compare_studies([one, other], definitions)) == (
        f"""\
                    digits ★         faces
aim                 maximize acc     maximize acc
best                0.75  (trial 1)
untuned defaults    0.5
better by           0.25
complete            2
fail                                 1
epochs              6                3
time of all trials  0:04             0:02

what differs  digits  faces
seed          1       2
callbacks             {"x" * 39}…"""
    )


def test_of_studies_that_are_alike_it_is_said():
    both = [study(trial(0)), study(trial(0), name="faces")]
    assert draw_comparison(compare_studies(both, ({}, {}))).endswith(
        "\n\nNothing that was written down of them differs."
    )
