import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reported import ours, theirs

from lightningtune.report.html.record import escaped, parameters_of, read_study
from lightningtune.study.directory import StudyDirectory

HERE = StudyDirectory.named(None, "nowhere")


def test_a_study_of_ours_is_read_as_it_is():
    record = read_study(ours(10), HERE)
    assert record.is_ours
    assert record.results.metrics == ("value",)
    assert parameters_of(record.trials) == ["lr", "width", "dropout", "act", "batch_size"]
    assert [trial.state for trial in record.study.trials] == [trial.state for trial in record.trials]
    assert record.study.best_trial.number == record.results.best_numbers[0]
    assert not record.study.trials[0].user_attrs


def test_of_another_study_the_reports_and_the_time_are_counted():
    record = read_study(theirs(), HERE)
    assert not record.is_ours
    assert {trial.epochs for trial in record.results.trials} == {4}
    assert all(trial.duration > 0 for trial in record.results.trials)


def test_several_objectives_have_names():
    assert read_study(theirs(["minimize", "maximize"]), HERE).results.metrics == ("value_0", "value_1")


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
    drawn = read_study(study, HERE).study.trials[0].params
    assert drawn == {escaped(name): escaped(choice) for name, choice in choices.items()}
    assert "<" not in repr(drawn)


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
    assert read_study(study, HERE).study.trials[0].params == {"x": value}


def _suggest(trial, kind):
    if isinstance(kind, optuna.distributions.IntDistribution):
        return trial.suggest_int("x", kind.low, kind.high, step=kind.step, log=kind.log)
    return trial.suggest_float("x", kind.low, kind.high, step=kind.step, log=kind.log)
