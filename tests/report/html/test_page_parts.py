"""The parts of a page: the table of trials, what is copied to run the best, and the environment."""

import shlex
from pathlib import Path

import optuna
import pytest
from reported import VERSIONS, constrained, ours, theirs

from lightningtune.report.html.page import (
    describe_environment,
    describe_run,
    link_file,
    link_folder,
    make_columns,
    make_rows,
    read_best_config,
)
from lightningtune.report.html.results import DrawableResults, drawable_results
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.reporter import PROVENANCE
from lightningtune.study.results import TrialResult

HERE = StudyDirectory.named(None, "nowhere")
BLOCKS = {"model": {"class_path": "nets.Line", "init_args": {"lr": 0.1}}, "data": {"class_path": "nets.Points"}}


def test_each_trial_is_a_row_with_a_cell_for_each_column(tmp_path):
    results = drawable_results(ours(12), StudyDirectory(tmp_path))
    columns, rows = make_columns(results), make_rows(results, tmp_path / "report.html")
    assert columns[:4] == ["trial", "state", "value", "lr"]
    assert columns[-4:] == ["epochs", "time", "memory", "note"]
    assert all(len(cells) == len(columns) for _, cells in rows)
    assert [trial.outcome for trial, _ in rows[:9]] == ["complete"] * 4 + ["pruned"] + ["complete"] * 3 + ["fail"]
    assert rows[0][1][-1].text == "untuned defaults"
    assert rows[8][1][-1].text == "RuntimeError: out of luck at 8"


def test_numbers_are_sorted_as_numbers_and_shown_short(tmp_path):
    results = drawable_results(ours(3), StudyDirectory(tmp_path))
    _, cells = make_rows(results, tmp_path / "report.html")[0]
    lr, act = cells[3], cells[6]
    assert float(lr.key) == lr.value == results.optuna_trials[0].params["lr"]
    assert lr.is_number
    assert len(lr.text) < len(lr.key)
    assert not act.is_number


def test_another_study_has_reports_and_no_notes(tmp_path):
    assert make_columns(drawable_results(theirs(), StudyDirectory(tmp_path)))[-2:] == ["reports", "time"]


def test_links_lead_from_where_the_page_lies(tmp_path):
    folder = tmp_path / "a study" / "trials" / "0007"
    folder.mkdir(parents=True)
    assert link_folder(folder, tmp_path / "a study" / "report.html") == "trials/0007/"
    assert link_folder(folder, tmp_path / "elsewhere" / "r.html") == "../a%20study/trials/0007/"
    assert link_file(folder / "error.txt", tmp_path / "report.html") == ""


def test_a_choice_of_none_is_told_from_a_parameter_that_a_trial_does_not_have(tmp_path):
    study = optuna.create_study()
    choice = optuna.distributions.CategoricalDistribution([None, 3])
    study.add_trial(optuna.trial.create_trial(value=1.0, params={"x": None}, distributions={"x": choice}))
    study.add_trial(optuna.trial.create_trial(value=1.0))
    rows = make_rows(drawable_results(study, StudyDirectory(tmp_path)), tmp_path / "r.html")
    assert [cells[3].text for _, cells in rows] == ["None", ""]


def test_infeasible_trials_are_marked(tmp_path):
    rows = make_rows(drawable_results(constrained(), StudyDirectory(tmp_path)), tmp_path / "r.html")
    assert [cells[1].text for _, cells in rows[:3]] == ["complete, infeasible", "complete", "complete, infeasible"]
    assert {trial.outcome for trial, _ in rows} == {"complete"}


def test_versions_machines_and_what_was_asked_for():
    definition = {"sampler": "TPESampler", "pruner": "NopPruner", "n_trials": 40}
    found = dict(describe_environment(drawable_results(ours(12), HERE), definition))
    assert found["sampler"] == "TPESampler"
    assert found["trials asked for"] == "40"
    assert found["torch"] == "2.15.0"
    assert found["commit"] == "0123456789"
    assert found["device"] == "cpu (a processor)"
    assert found["peak memory of a trial"] == "512 MiB"


def test_what_changed_in_between_is_told_apart():
    study = ours(4)
    trials = study.get_trials()
    for trial in trials[2:]:
        newer = {"config": "0", "versions": {**VERSIONS, "torch": "2.16.0"}, "commit": "ff", "is_dirty": True}
        trial.user_attrs = {**trial.user_attrs, PROVENANCE: newer}
    changed = ours(0)
    changed.add_trials(trials)
    found = dict(describe_environment(drawable_results(changed, HERE), {}))
    assert found["torch"] == "2.15.0 (trials 0, 1); 2.16.0 (trials 2, 3)"
    assert "ff with changes that were not committed (trials 2, 3)" in found["commit"]


def test_of_another_study_only_the_writer_is_known():
    (only,) = describe_environment(drawable_results(theirs(), HERE), {})
    assert only[0] == "report written with"


@pytest.fixture
def directory(tmp_path):
    directory = StudyDirectory(tmp_path / "a study")
    directory.begin(directory.trial(3), {**BLOCKS, "trainer": {"max_epochs": 1}})
    return directory


def describe(directory, number, is_of_command=False, is_ours=True, params=None):
    """Return the config of the only best trial of a study, with this number, and how it is run."""
    best = TrialResult(number, "complete", (1.0,), params or {}, "", "", 1, 1.0, False, Path(), None)
    kinds = {"optuna_trials": (), "is_ours": is_ours, "is_of_command": is_of_command}
    results = DrawableResults("s", ("a",), ("minimize",), (best,) * (number + 1), (number,), **kinds)
    config = read_best_config(results, directory)
    return config, describe_run(best, config, directory, is_of_command)


def test_a_config_with_class_paths_is_run_in_a_shell(directory):
    config, run = describe(directory, 3)
    assert config["model"] == BLOCKS["model"]
    words = shlex.split(run.command)
    assert words[:2] == ["python", "-c"]
    assert words[3:] == ["fit", "--config", str(directory.config(3))]
    compile(words[2], "command", "exec")


def test_other_configs_are_run_by_their_script(directory):
    directory.begin(directory.trial(4), {"model": {"lr": 0.1}})
    assert describe(directory, 4)[1].command == "optimizer.refit(number=4, seeds=[1, 2, 3])"


def test_a_study_of_the_command_line_is_run_by_it(directory):
    command = ["lightningtune", "refit", str(directory.root), "--number", "3", "--seeds", "1", "2", "3"]
    _, stored_elsewhere = describe(directory, 3, is_of_command=True)
    assert shlex.split(stored_elsewhere.command) == [*command, "--storage", "URL"]
    assert stored_elsewhere.purpose.endswith("with the URL of its storage")
    directory.journal.touch()
    assert shlex.split(describe(directory, 3, is_of_command=True)[1].command) == command


@pytest.mark.parametrize("is_ours", [True, False])
def test_without_a_config_the_parameters_are_all_there_is(directory, is_ours):
    config, run = describe(directory, 9, is_ours=is_ours, params={"x": 0.5})
    assert config is None
    assert run.command == "study.enqueue_trial({'x': 0.5})"
