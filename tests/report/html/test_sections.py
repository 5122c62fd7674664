import json
import math

import optuna
import plotly.graph_objects as go
from reported import constrained, ours, theirs

from lightningtune.report.html.results import drawable_results
from lightningtune.report.html.sections import draw_sections, encode_figure
from lightningtune.study.directory import StudyDirectory

HERE = StudyDirectory.named(None, "nowhere")


def sections(study):
    return {section.name: section for section in draw_sections(drawable_results(study, HERE))}


def test_every_figure_of_a_study_is_drawn():
    found = sections(ours(30))
    assert [*found] == ["history", "curves", "importances", "parallel", "slices", "contours", "timeline"]
    assert all(section.figure and section.height and not section.missing for section in found.values())


def test_of_few_trials_no_importance_is_told():
    found = sections(ours(8))
    assert found["importances"].missing.endswith("can be said from 10 completed trials on; there are 7.")
    assert found["contours"].figure


def test_each_metric_has_its_figures_and_one_line_in_the_contents():
    found = sections(theirs(["minimize", "minimize"]))
    assert [name for name in found if name.startswith("history")] == ["history", "history-1"]
    assert [section.label for section in found.values() if section.label] == [
        "Pareto front",
        "History",
        "Importances",
        "Parallel coordinates",
        "Slices",
        "Contours",
        "Timeline",
    ]
    assert "draws three in a notebook" in sections(theirs(["minimize"] * 3))["front"].missing


def test_captions_tell_that_only_some_parameters_are_drawn():
    many = {f"p{index}": optuna.distributions.FloatDistribution(0, 1) for index in range(12)}
    found = sections(ours(30, distributions=many))
    assert "a completed trial, through the 8 most important of 12 parameters:" in found["parallel"].reading
    assert "over each of the 8 most important of 12 parameters;" in found["slices"].reading
    assert "over the 2 most important of 12 parameters," in found["contours"].reading
    few = sections(ours(8, distributions=many))
    assert "the first 8 of 12 parameters" in few["slices"].reading
    assert "over each parameter;" in sections(ours(30))["slices"].reading
    assert "of 12 parameters" not in sections(ours(30))["parallel"].reading


def test_several_metrics_say_for_which_a_parameter_is_important():
    study = optuna.create_study(directions=["minimize", "minimize"])
    study.optimize(lambda trial: [trial.suggest_float(name, 0, 1) for name in "abc"][:2], n_trials=12)
    assert "the 2 most important of 3 parameters for value_0" in sections(study)["contours-1"].reading


def test_captions_say_of_another_study_only_what_is_known_and_what_is_infeasible():
    assert "waited" in sections(ours(3))["timeline"].reading
    assert "waited" not in sections(theirs())["timeline"].reading
    assert "nfeasible" not in sections(theirs())["history"].reading
    assert "Infeasible trials violate a constraint" in sections(constrained())["history"].reading


def test_one_figure_that_fails_costs_only_itself():
    study = optuna.create_study()
    for number in range(3):
        study.add_trial(
            optuna.trial.create_trial(
                value=float(number),
                params={"x": float(number)},
                distributions={"x": optuna.distributions.FloatDistribution(0, 4)},
                intermediate_values={0: math.nan, 1: float(number)},
            )
        )
    results = drawable_results(study, HERE)
    object.__setattr__(results, "best_numbers", None)  # no figure but the curves looks for them
    found = {section.name: section for section in draw_sections(results)}
    assert found["curves"].missing.startswith("It could not be drawn: TypeError")
    assert found["history"].figure


def test_json_ends_no_script():
    figure = go.Figure(layout={"title": "</script>&\u2028"})
    text = encode_figure(figure)
    assert not {*"<>&\u2028"} & {*text}
    assert json.loads(text)["layout"]["title"]["text"] == "</script>&\u2028"
