import pickle

import pytest
from reported import ours, theirs

from lightningtune.report.html.results import drawable_results
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.results import collect_results

NAMES = ("history", "curves", "importances", "parallel_coordinates", "slices", "contours", "timeline")


@pytest.fixture(scope="module")
def results():
    return drawable_results(ours(20), StudyDirectory.named(None, "nowhere"))


@pytest.mark.parametrize("name", NAMES)
def test_each_figure_is_a_call_away(results, name):
    assert getattr(results, f"plot_{name}")().data


def test_the_results_are_what_they_were(results):
    directory = StudyDirectory.named(None, "nowhere")
    plain = collect_results(ours(20), ("value",), directory)
    assert results.trials == plain.trials
    assert results.best.number == plain.best.number
    assert str(results) == str(plain)
    assert "record" not in repr(results)


def test_they_can_be_kept_and_drawn_later(results):
    assert pickle.loads(pickle.dumps(results)).plot_history().data


def test_a_front_can_be_drawn():
    assert drawable_results(theirs(["minimize", "maximize"]), StudyDirectory.named(None, "n")).plot_pareto_front().data
