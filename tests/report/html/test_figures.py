import json
import re

import optuna
import pytest
from reported import constrain, constrained, needs_optuna_5, ours, overlapping, theirs

from lightningtune import ConfigurationError, NoResultError
from lightningtune.report.html import drawing
from lightningtune.report.html.figures import Figures
from lightningtune.report.html.record import read_study
from lightningtune.study.directory import StudyDirectory

HERE = StudyDirectory.named(None, "nowhere")


def figures(study):
    return Figures(read_study(study, HERE))


@pytest.fixture(scope="module")
def drawn():
    return figures(ours(60))


def test_the_history_has_the_trials_the_best_so_far_and_the_defaults(drawn):
    figure = drawn.history()
    assert [trace.name for trace in figure.data] == ["value", "best so far"]
    assert [annotation.text for annotation in figure.layout.annotations] == ["untuned defaults"]


def test_curves_are_one_trace_for_each_ending_and_crosses_where_trials_were_pruned(drawn):
    traces = {trace.name: trace for trace in drawn.curves().data}
    assert [*traces] == ["pruned", "complete", "best", "where pruned"]
    pruned = [trial for trial in ours(60).trials if trial.state is optuna.trial.TrialState.PRUNED]
    assert [*traces["where pruned"].x] == [trial.last_step for trial in pruned]
    assert len(traces["best"].x) == 13, "12 validations, and the gap"


def test_values_that_are_no_numbers_leave_no_gap_in_json():
    study = optuna.create_study()
    for values in ({0: float("nan"), 1: 2.0}, {0: float("inf")}):
        study.add_trial(optuna.trial.create_trial(value=1.0, intermediate_values=values))
    json.loads(figures(study).curves().to_json(), parse_constant=pytest.fail)


def test_importances_order_what_is_drawn(drawn):
    names = [*drawn.importances().data[0].y]
    assert {*names} == {"lr", "width", "dropout", "act", "batch_size"}
    most = [drawn.contours().layout.xaxis.title.text, drawn.contours().layout.yaxis.title.text]
    assert {*most} == {*names[-2:]}


def test_all_figures_have_our_paper(drawn):
    for draw in (drawn.parallel_coordinates, drawn.slices, drawn.contours, drawn.timeline):
        figure = draw()
        assert figure.layout.template.layout.paper_bgcolor == "rgba(0,0,0,0)"
        assert figure.layout.plot_bgcolor is None
        assert figure.layout.height
        assert figure.layout.title.text is None


@needs_optuna_5
def test_the_best_line_has_the_best_colour(drawn):
    lines = [trace for trace in drawn.parallel_coordinates().data if trace.mode == "lines"]
    best = max(lines, key=lambda trace: trace.y[0])
    assert best.line.color == "rgb(111, 82, 184)", drawing.SCALE[-1]


def test_a_contour_of_hundreds_of_trials_stays_small(drawn):
    contour = drawn.contours().data[0]
    assert len(contour.x) <= 36
    assert len(contour.y) <= 36
    known = [value for row in contour.z for value in row if value is not None]
    complete = [trial.value for trial in ours(60).trials if trial.state is optuna.trial.TrialState.COMPLETE]
    assert min(complete) - 1e-9 <= min(known) <= max(known) <= max(complete) + 1e-9


def test_the_best_is_purple_whichever_way_a_metric_is_better():
    drawn = figures(theirs(["minimize", "maximize"]))
    assert [drawn.contours(index).data[0].reversescale for index in (0, 1)] == [True, False]


@needs_optuna_5
def test_parallel_coordinates_have_an_axis_for_each_metric():
    dimensions = figures(theirs(["minimize", "maximize"])).parallel_coordinates().layout.xaxis.ticktext
    assert dimensions[:2] == ("value_0", "value_1")


@pytest.mark.skipif(int(optuna.__version__.partition(".")[0]) >= 5, reason="Optuna 5 draws them")
def test_parallel_coordinates_of_several_metrics_name_the_optuna_that_draws_them():
    with pytest.raises(NoResultError, match="several metrics need Optuna 5"):
        figures(theirs(["minimize", "maximize"])).parallel_coordinates()


def test_bars_that_overlap_in_time_are_drawn_beside_each_other():
    figure = figures(overlapping()).timeline()
    spans = [
        (place, base, base + length)
        for trace in figure.data
        for place, base, length in zip(trace.y, trace.base, trace.x, strict=True)
    ]
    for place, start, end in spans:
        others = [span for span in spans if span[0] == place and span != (place, start, end)]
        assert all(other_end <= start + 1e-6 or end <= other_start + 1e-6 for _, other_start, other_end in others)
    assert [*figure.layout.yaxis.ticktext] == ["core 0"] * 3 + ["core 1"] * 3


@pytest.mark.parametrize("name", ["history", "slices", "contours"])
def test_an_objective_is_a_name_or_an_index(name):
    study = theirs(["minimize", "maximize"])
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        study.set_metric_names(["val_loss", "size"])
    draw = getattr(figures(study), name)
    assert draw(objective="size") == draw(objective=1) != draw()
    for wrong in (2, -1, 1.0, True, None, ["size"]):
        with pytest.raises(ConfigurationError, match=re.escape(f"but got {wrong!r}. Metrics: 0 'val_loss', 1 'size'.")):
            draw(objective=wrong)
    with pytest.raises(ConfigurationError, match=r"but got 'val_los'\. Did you mean 'val_loss'\?"):
        draw(objective="val_los")


@pytest.mark.parametrize(
    "name", ["history", "slices", "contours", pytest.param("parallel_coordinates", marks=needs_optuna_5)]
)
def test_infeasible_trials_stand_in_every_legend(name):
    figure = getattr(figures(constrained()), name)()
    assert [trace.name for trace in figure.data if trace.name and trace.showlegend is True].count("infeasible") == 1
    assert figure.layout.showlegend is not False


def test_infeasible_trials_are_drawn_over_choices_too():
    study = optuna.create_study()
    for number, act in enumerate(("<relu>", "<tanh>", "<relu>")):
        study.enqueue_trial({"<act>": act})
        trial = study.ask()
        trial.suggest_categorical("<act>", ["<relu>", "<tanh>"])
        trial.suggest_float("x", number, number)
        constrain(trial, float(number))
        study.tell(trial, number)
    points = [trace for trace in figures(study).slices().data if trace.name == "infeasible"]
    assert [(trace.x, trace.y) for trace in points] == [
        ((1.0, 2.0), (1.0, 2.0)),
        (("'&lt;tanh&gt;'", "'&lt;relu&gt;'"), (1, 2)),
    ]


def choices(of):
    """Return a study that has tried each of these choices of a parameter."""
    study = optuna.create_study(sampler=optuna.samplers.GridSampler({"x": of}))
    study.optimize(lambda trial: float(len(str(trial.suggest_categorical("x", of)))))
    return study


def test_long_choices_are_shortened_and_turned_and_whole_where_the_mouse_is():
    long = ['GELU(approximate="tanh")', 'GELU(approximate="none")', "</b>ReLU(inplace=True)", None]
    figure = figures(choices(long)).slices()
    assert figure.layout.xaxis.ticktext == ('GELU(…="tanh")', 'GELU(…="none")', "&lt;/b&gt;R…ce=True)", "None")
    assert figure.layout.xaxis.tickangle == -45
    assert {*figure.data[0].text} == {*long[:2], "&lt;/b&gt;ReLU(inplace=True)", "None"}


@needs_optuna_5
def test_long_choices_are_shortened_beside_the_axes_of_parallel_coordinates():
    long = ['GELU(approximate="tanh")', "</b>ReLU(inplace=True)"]
    values = {value.text for value in figures(choices(long)).parallel_coordinates().layout.annotations}
    assert {'GELU(…="tanh")', "&lt;/b&gt;R…ce=True)"} <= values


def test_short_choices_stay_as_they_are_and_many_are_thinned():
    short = figures(choices([16, 32, 64])).slices().layout.xaxis
    assert (short.ticktext, short.tickangle) == (("16", "32", "64"), 0)
    many = figures(choices([f"/a/long/way/to/{index}.csv" for index in range(20)])).slices().layout.xaxis
    assert len(many.tickvals) == 10


@needs_optuna_5
def test_axes_of_parallel_coordinates_have_the_ends_of_their_names():
    study = optuna.create_study()
    names = ["model.init_args.first_width", "model.init_args.second_width"]
    study.optimize(lambda trial: sum(trial.suggest_float(name, 0, 1) for name in names), n_trials=3)
    figure = figures(study).parallel_coordinates()
    assert figure.layout.xaxis.ticktext == ("value", "…_args.first_width", "…args.second_width")


def test_long_names_show_their_ends_beside_each_other():
    study = optuna.create_study()
    name = "model.init_args.<optimizer>.init_args.lr"
    study.optimize(lambda trial: trial.suggest_float(name, 0, 1) + trial.suggest_float("x", 0, 1), n_trials=3)
    drawn = figures(study).slices()
    assert {drawn.layout.xaxis.title.text, drawn.layout.xaxis2.title.text} == {"…timizer&gt;.init_args.lr", "x"}


def test_the_timeline_has_a_row_for_each_place(drawn):
    figure = drawn.timeline()
    assert [trace.name for trace in figure.data] == ["waiting", "complete", "pruned", "failed"]
    assert [*figure.layout.yaxis.ticktext] == ["core 0", "core 1"]
    assert figure.layout.xaxis.title.text == "minutes since the first trial began"


@pytest.mark.parametrize("count", [2, 3])
def test_several_objectives_have_a_front_and_a_history_each(count):
    drawn = figures(theirs(["minimize"] * count))
    assert [trace.name for trace in drawn.pareto_front().data] == ["other trials", "Pareto front"]
    assert drawn.history(count - 1).layout.yaxis.title.text == f"value_{count - 1}"
    assert drawn.slices(0).data
    with pytest.raises(NoResultError, match="several objectives"):
        drawn.curves()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("history", "A history needs a completed trial; there are none"),
        ("importances", "2 completed trials"),
        ("contours", "2 completed trials"),
        ("slices", "a completed trial"),
        ("parallel_coordinates", "a completed trial"),
        ("pareto_front", "a completed trial"),
        ("curves", "No trial reported any"),
        ("timeline", "No trial has begun"),
    ],
)
def test_an_empty_study_says_why_there_is_nothing_to_draw(name, why):
    with pytest.raises(NoResultError, match=why):
        getattr(figures(optuna.create_study()), name)()


def test_a_study_without_parameters_or_with_one_says_so():
    study = optuna.create_study()
    study.optimize(lambda trial: 1.0, n_trials=2)
    with pytest.raises(NoResultError, match="no parameters"):
        figures(study).slices()
    one = optuna.create_study()
    one.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    with pytest.raises(NoResultError, match="two parameters"):
        figures(one).contours()
    with pytest.raises(NoResultError, match="1 objectives|2 or 3"):
        figures(one).pareto_front()


def test_parameters_that_never_meet_have_no_contour():
    study = optuna.create_study()
    study.optimize(lambda trial: trial.suggest_float("ab"[trial.number % 2], 0, 1), n_trials=4)
    with pytest.raises(NoResultError, match="No trial has both 'a' and 'b'"):
        figures(study).contours()
