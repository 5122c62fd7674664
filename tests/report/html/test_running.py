import shlex

import pytest

from lightningtune.files import load_yaml
from lightningtune.report.html.running import to_run
from lightningtune.study.directory import StudyDirectory

BLOCKS = {"model": {"class_path": "nets.Line", "init_args": {"lr": 0.1}}, "data": {"class_path": "nets.Points"}}


@pytest.fixture
def directory(tmp_path):
    directory = StudyDirectory(tmp_path / "a study")
    directory.begin(directory.trial(3), {**BLOCKS, "trainer": {"max_epochs": 1}})
    return directory


def test_a_config_with_class_paths_is_run_in_a_shell(directory):
    run = to_run(directory, 3, {}, is_ours=True, is_kept=False)
    assert load_yaml(run.config)["model"] == BLOCKS["model"]
    words = shlex.split(run.command)
    assert words[:2] == ["python", "-c"]
    assert words[3:] == ["fit", "--config", str(directory.config(3))]
    compile(words[2], "command", "exec")


def test_the_promoted_config_is_named_where_there_is_one(directory):
    directory.promote(3)
    assert shlex.split(to_run(directory, 3, {}, is_ours=True, is_kept=False).command)[-1] == str(directory.best_config)


def test_other_configs_are_run_by_their_script(directory):
    directory.begin(directory.trial(4), {"model": {"lr": 0.1}})
    assert to_run(directory, 4, {}, is_ours=True, is_kept=False).command == "optimizer.refit(number=4, seeds=[1, 2, 3])"


def test_a_study_of_the_command_line_is_run_by_it(directory):
    command = ["lightningtune", "refit", str(directory.root), "--number", "3", "--seeds", "1", "2", "3"]
    stored_elsewhere = to_run(directory, 3, {}, is_ours=True, is_kept=True)
    assert shlex.split(stored_elsewhere.command) == [*command, "--storage", "URL"]
    assert stored_elsewhere.purpose.endswith("with the URL of its storage")
    directory.journal.touch()
    assert shlex.split(to_run(directory, 3, {}, is_ours=True, is_kept=True).command) == command


@pytest.mark.parametrize("is_ours", [True, False])
def test_without_a_config_the_parameters_are_all_there_is(directory, is_ours):
    run = to_run(directory, 9, {"x": 0.5}, is_ours, is_kept=False)
    assert load_yaml(run.config) == {"x": 0.5}
    assert run.command == "study.enqueue_trial({'x': 0.5})"
