"""What is known of the versions and of the user's code, asked in a real repository."""

import functools
import json
import os
import platform
import subprocess
import sys

import optuna
import pytest

from lightningtune import __version__
from lightningtune.config.schema import Schema
from lightningtune.study.provenance import find_provenance, full_name, versions

ASK = """
import dataclasses, json
from lightningtune.config.schema import Schema
from lightningtune.study.provenance import find_provenance
print(json.dumps(dataclasses.asdict(find_provenance(Schema(dict, None, None), timeout=60))))
"""

SCHEMA = Schema(dict, None, None)


def git(folder, *arguments):
    options = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *options, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def run(script, cwd, **environment):
    """Run a script that asks; return the commit that it names, and whether that is dirty."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, env=environment)
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    return answer["commit"], answer["is_dirty"]


@pytest.fixture
def repository(tmp_path):
    """A repository with a committed script that asks, in a subfolder."""
    folder = tmp_path / "code"
    (folder / "scripts").mkdir(parents=True)
    (folder / "scripts" / "train.py").write_text(ASK)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_versions_are_those_that_are_installed():
    found = versions()
    assert [*found] == ["lightningtune", "python", "lightning", "torch", "optuna"]
    assert (found["lightningtune"], found["python"]) == (__version__, platform.python_version())
    assert found["optuna"] == optuna.__version__


def test_the_commit_is_that_of_the_scripts_repository_wherever_it_is_run(repository, tmp_path):
    script = repository / "scripts" / "train.py"
    assert run(script, tmp_path) == (git(repository, "rev-parse", "HEAD"), False)
    (repository / "lightningtune_runs").mkdir()
    (repository / "lightningtune_runs" / "study.yaml").touch()
    assert run(script, tmp_path)[1] is False, "what a study writes is no change of the code"


def test_a_change_that_is_not_committed_makes_it_dirty(repository, tmp_path):
    script = repository / "scripts" / "train.py"
    script.write_text(ASK + "# changed\n")
    assert run(script, tmp_path) == (git(repository, "rev-parse", "HEAD"), True)


def test_a_script_that_git_does_not_know_makes_it_dirty(repository, tmp_path):
    new = repository / "scripts" / "new.py"
    new.write_text(ASK)
    assert run(new, tmp_path)[1] is True


def test_without_a_script_the_working_directory_counts(repository, monkeypatch):
    monkeypatch.chdir(repository)  # the script here is pytest, which is installed
    found = find_provenance(SCHEMA, timeout=60)
    assert (found.commit, found.is_dirty) == (git(repository, "rev-parse", "HEAD"), False)
    assert found.classes == {"model_class": "builtins.dict", "datamodule_class": None}


@pytest.mark.parametrize("case", ["no repository", "no commit", "no git"])
def test_where_there_is_no_commit_none_is_named(repository, tmp_path, case):
    script, environment = tmp_path / "train.py", {}
    if case == "no commit":
        git(tmp_path, "init", "-q")
    elif case == "no git":
        script, environment = repository / "scripts" / "train.py", {"PATH": str(tmp_path)}
    script.write_text(ASK)
    assert run(script, tmp_path, **environment) == (None, None)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a script for git")
def test_a_git_that_does_not_answer_is_not_waited_for(repository, tmp_path, monkeypatch):
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}{os.pathsep}{os.environ['PATH']}")
    assert find_provenance(SCHEMA, timeout=0.05).commit is None


def test_a_name_is_the_same_in_every_run():
    assert full_name(None) is None
    assert full_name(test_a_name_is_the_same_in_every_run).endswith(
        "test_provenance.test_a_name_is_the_same_in_every_run"
    )
    assert full_name(functools.partial(int, base=2)) == "functools.partial(<class 'int'>, base=2)"
    assert full_name(object()) == "<object object>"


NAME = """
from lightningtune.study.provenance import full_name

class Net:
    class Inner: ...

print(full_name(Net.Inner))
"""


@pytest.mark.parametrize("how", [["net.py"], ["-m", "net"], ["-c", "import net"]])
def test_a_class_of_a_script_has_one_name_however_it_is_run(tmp_path, how):
    (tmp_path / "net.py").write_text(NAME)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    said = subprocess.run([sys.executable, *how], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert said.stdout == "net.Net.Inner\n", said.stderr


def test_a_class_of_no_file_is_one_of_main():
    said = subprocess.run([sys.executable, "-c", NAME], capture_output=True, text=True)
    assert said.stdout == "__main__.Net.Inner\n", said.stderr
