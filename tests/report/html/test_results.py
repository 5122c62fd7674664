import dataclasses
import json
import pickle
import re

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reported import constrained, needs_optuna_5, ours, overlapping, theirs

from lightningtune import ConfigurationError, NoResultError
from lightningtune.report.html.results import drawable_results
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.results import collect_results

HERE = StudyDirectory.named(None, "nowhere")


def figures(study):
    return drawable_results(study, HERE)


@pytest.fixture(scope="module")
def drawn():
    return figures(ours(60))


def test_the_history_has_the_trials_the_best_so_far_and_the_defaults(drawn):
    figure = drawn.plot_optimization_history()
    assert [trace.name for trace in figure.data if trace.x] == ["value", "Best Value"]
    assert [annotation.text for annotation in figure.layout.annotations] == ["untuned defaults"]


def test_curves_are_one_trace_for_each_ending_and_crosses_where_trials_were_pruned(drawn):
    traces = {trace.name: trace for trace in drawn.plot_intermediate_values().data}
    assert [*traces] == ["pruned", "complete", "best", "where pruned"]
    pruned = [trial for trial in ours(60).trials if trial.state is optuna.trial.TrialState.PRUNED]
    assert [*traces["where pruned"].x] == [trial.last_step for trial in pruned]
    assert len(traces["best"].x) == 13, "12 validations, and the gap"


def test_values_that_are_no_numbers_leave_no_gap_in_json():
    study = optuna.create_study()
    for values in ({0: float("nan"), 1: 2.0}, {0: float("inf")}):
        study.add_trial(optuna.trial.create_trial(value=1.0, intermediate_values=values))
    json.loads(figures(study).plot_intermediate_values().to_json(), parse_constant=pytest.fail)


def test_importances_order_what_is_drawn(drawn):
    names = [*drawn.plot_param_importances().data[0].y]
    assert {*names} == {"lr", "width", "dropout", "act", "batch_size"}
    most = [drawn.plot_contour().layout.xaxis.title.text, drawn.plot_contour().layout.yaxis.title.text]
    assert {*most} == {*names[-2:]}


def test_all_figures_have_one_template(drawn):
    for draw in (drawn.plot_parallel_coordinate, drawn.plot_slice, drawn.plot_contour, drawn.plot_timeline):
        figure = draw()
        assert figure.layout.template.layout.paper_bgcolor == "rgba(0,0,0,0)"
        assert figure.layout.plot_bgcolor is None
        assert figure.layout.height
        assert figure.layout.title.text is None


def test_a_contour_of_hundreds_of_trials_draws_a_hundred_and_the_best():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1) + trial.suggest_float("y", 0, 1), n_trials=150)
    contour, points = figures(study).plot_contour().data[:2]
    assert len(points.x) == 100
    assert len(contour.x) <= 102, "Optuna pads each side"
    assert study.best_params["x"] in (*points.x, *points.y)


def test_the_best_is_darkest_whichever_way_a_metric_is_better():
    drawn = figures(theirs(["minimize", "maximize"]))
    assert [drawn.plot_contour(index).data[0].reversescale for index in (0, 1)] == [True, False]


@needs_optuna_5
def test_parallel_coordinates_have_an_axis_for_each_metric():
    dimensions = figures(theirs(["minimize", "maximize"])).plot_parallel_coordinate().layout.xaxis.ticktext
    assert dimensions[:2] == ("value_0", "value_1")


@pytest.mark.skipif(int(optuna.__version__.partition(".")[0]) >= 5, reason="Optuna 5 draws them")
def test_parallel_coordinates_of_several_metrics_name_the_optuna_that_draws_them():
    with pytest.raises(NoResultError, match="several metrics need Optuna 5"):
        figures(theirs(["minimize", "maximize"])).plot_parallel_coordinate()


def test_bars_that_overlap_in_time_are_drawn_beside_each_other():
    figure = figures(overlapping()).plot_timeline()
    spans = [
        (place, base, base + length)
        for trace in figure.data
        for place, base, length in zip(trace.y, trace.base, trace.x, strict=True)
    ]
    for place, start, end in spans:
        others = [span for span in spans if span[0] == place and span != (place, start, end)]
        assert all(other_end <= start + 1e-6 or end <= other_start + 1e-6 for _, other_start, other_end in others)
    assert [*figure.layout.yaxis.ticktext] == ["core 0"] * 3 + ["core 1"] * 3


@pytest.mark.parametrize("name", ["plot_optimization_history", "plot_slice", "plot_contour"])
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
    "name",
    [
        "plot_optimization_history",
        "plot_slice",
        "plot_contour",
        pytest.param("plot_parallel_coordinate", marks=needs_optuna_5),
    ],
)
def test_infeasible_trials_stand_in_every_legend(name):
    figure = getattr(figures(constrained()), name)()
    assert [trace.name for trace in figure.data if trace.name and trace.showlegend is True].count(
        "Infeasible Trial"
    ) == 1
    assert figure.layout.showlegend is not False


def test_the_timeline_has_a_row_for_each_place(drawn):
    figure = drawn.plot_timeline()
    assert [trace.name for trace in figure.data] == ["waiting", "complete", "pruned", "failed"]
    assert [*figure.layout.yaxis.ticktext] == ["core 0", "core 1"]
    assert figure.layout.xaxis.title.text == "minutes since the first trial began"


@pytest.mark.parametrize("count", [2, 3])
def test_several_objectives_have_a_front_and_a_history_each(count):
    drawn = figures(theirs(["minimize"] * count))
    assert "Best Trial" in drawn.plot_pareto_front().data[-1].hovertemplate
    assert drawn.plot_optimization_history(count - 1).layout.yaxis.title.text == f"value_{count - 1}"
    assert drawn.plot_slice(0).data
    with pytest.raises(NoResultError, match="several objectives"):
        drawn.plot_intermediate_values()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("plot_optimization_history", "A history needs a completed trial; there are none"),
        ("plot_param_importances", "2 completed trials"),
        ("plot_contour", "2 completed trials"),
        ("plot_slice", "a completed trial"),
        ("plot_parallel_coordinate", "a completed trial"),
        ("plot_pareto_front", "a completed trial"),
        ("plot_intermediate_values", "No trial reported any"),
        ("plot_timeline", "No trial has begun"),
    ],
)
def test_an_empty_study_says_why_there_is_nothing_to_draw(name, why):
    with pytest.raises(NoResultError, match=why):
        getattr(figures(optuna.create_study()), name)()


def test_a_study_without_parameters_or_with_one_says_so():
    study = optuna.create_study()
    study.optimize(lambda trial: 1.0, n_trials=2)
    with pytest.raises(NoResultError, match="no parameters"):
        figures(study).plot_slice()
    one = optuna.create_study()
    one.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    with pytest.raises(NoResultError, match="two parameters"):
        figures(one).plot_contour()
    with pytest.raises(NoResultError, match="1 objectives|2 or 3"):
        figures(one).plot_pareto_front()


def test_parameters_that_never_meet_have_no_contour():
    study = optuna.create_study()
    study.optimize(lambda trial: trial.suggest_float("ab"[trial.number % 2], 0, 1), n_trials=4)
    with pytest.raises(NoResultError, match="No trial has both 'a' and 'b'"):
        figures(study).plot_contour()


def test_a_study_of_ours_is_read_as_it_is():
    results = figures(ours(10))
    assert results.is_ours
    assert results.metrics == ("value",)
    assert results.parameters == ["lr", "width", "dropout", "act", "batch_size"]
    assert [trial.state for trial in results.drawn_study.trials] == [trial.state for trial in results.optuna_trials]
    assert results.drawn_study.best_trial.number == results.best_numbers[0]
    assert not results.drawn_study.trials[0].user_attrs


def test_of_another_study_the_reports_and_the_time_are_counted():
    results = figures(theirs())
    assert not results.is_ours
    assert {trial.epochs for trial in results.trials} == {4}
    assert all(trial.duration > 0 for trial in results.trials)


def test_several_objectives_have_names():
    assert figures(theirs(["minimize", "maximize"])).metrics == ("value_0", "value_1")


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=3))
def test_no_name_and_no_choice_is_drawn_as_html(choices):
    study = optuna.create_study()
    study.add_trial(
        optuna.trial.create_trial(
            value=1.0,
            params=choices,
            distributions={
                name: optuna.distributions.CategoricalDistribution([choice, "<b>"]) for name, choice in choices.items()
            },
        )
    )
    assert "<" not in repr(figures(study).drawn_study.trials[0].params)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (5.0, optuna.distributions.FloatDistribution(0.0, 1.0, step=0.5)),
        (2.0, optuna.distributions.FloatDistribution(0.1, 1.0, log=True)),
        (9, optuna.distributions.IntDistribution(1, 4)),
        (3, optuna.distributions.IntDistribution(8, 64, step=8)),
    ],
)
def test_untuned_defaults_outside_the_space_are_drawn(value, kind):
    study = optuna.create_study()
    study.enqueue_trial({"x": value})
    trial = study.ask()
    with pytest.warns(UserWarning, match="out of range"):
        _suggest(trial, kind)
    study.tell(trial, 1.0)
    assert figures(study).drawn_study.trials[0].params == {"x": value}


def _suggest(trial, kind):
    if isinstance(kind, optuna.distributions.IntDistribution):
        return trial.suggest_int("x", kind.low, kind.high, step=kind.step, log=kind.log)
    return trial.suggest_float("x", kind.low, kind.high, step=kind.step, log=kind.log)


def test_names_are_short_and_choices_keep_both_their_ends():
    study = optuna.create_study()
    long = ["torch.nn.modules.activation.GELU", "torch.nn.modules.activation.ReLU", None, 3]
    alike = ["a" * 20 + letter + "b" * 20 for letter in "xy"]
    for number in range(8):
        study.enqueue_trial({"model.init_args.act": long[number % 4], "model.init_args.path": alike[number % 2]})
        trial = study.ask()
        trial.suggest_categorical("model.init_args.act", long)
        trial.suggest_categorical("model.init_args.path", alike)
        study.tell(trial, number)
    drawn = figures(study).drawn_study.trials
    assert [trial.params["act"] for trial in drawn[:4]] == [
        "torch.nn.mo…ivation.GELU",
        "torch.nn.mo…ivation.ReLU",
        None,
        3,
    ]
    assert [trial.params["path"] for trial in drawn[:2]] == alike, "shortened, they would look alike"


def test_of_a_large_study_the_best_and_a_sample_are_drawn_with_their_numbers():
    study = ours(200)
    study.ask()
    results = dataclasses.replace(drawable_results(study, HERE), most_drawn=50)
    values = {trial.number: trial.value for trial in results.trials if trial.state == "complete"}
    best = sorted(values, key=values.get, reverse=True)[:10]
    improvements = {n for n in values if values[n] > max((values[m] for m in values if m < n), default=-1)}
    assert len(results.drawn) == 50
    assert {*best, *improvements, results.baseline.number, 200} <= results.drawn
    whole, drawn = drawable_results(study, HERE).plot_optimization_history(), results.plot_optimization_history()
    shown = dict(zip(drawn.data[0].x, drawn.data[0].y, strict=True))
    assert shown == {number: values[number] for number in results.drawn if number in values}
    so_far = dict(zip(whole.data[1].x, whole.data[1].y, strict=True))
    assert all(so_far[number] == value for number, value in zip(drawn.data[1].x, drawn.data[1].y, strict=True))
    bars = [number for trace in results.plot_timeline().data for number, _, _ in trace.customdata]
    assert {*bars} <= results.drawn
    assert {*results.plot_param_importances().data[0].y} == {"lr", "width", "dropout", "act", "batch_size"}


def test_of_several_objectives_the_front_is_drawn():
    results = dataclasses.replace(drawable_results(theirs(["minimize"] * 2, trials=60), HERE), most_drawn=30)
    assert len(results.drawn) == 30
    assert {*results.best_numbers} <= results.drawn


def test_the_results_are_what_they_were():
    results, plain = figures(ours(20)), collect_results(ours(20), ("value",), HERE)
    assert results.trials == plain.trials
    assert results.best.number == plain.best.number
    assert str(results) == repr(results) == str(plain)


def test_they_can_be_kept_and_drawn_later(drawn):
    assert pickle.loads(pickle.dumps(drawn)).plot_optimization_history().data


@pytest.mark.parametrize(("high", "step"), [(1e-1, 1), (1e-4, "D2")])
def test_log_axes_have_few_labels(high, step):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(lambda trial: trial.suggest_float("lr", 1e-5, high, log=True), n_trials=20)
    assert figures(study).plot_slice().layout.xaxis.dtick == step
