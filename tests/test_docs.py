"""The README's code runs as it stands there, and names what exists."""

import contextlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from lightningtune import AdvancedSearchSpace, OptunaDrivenOptimizer
from lightningtune.cli.main import main
from lightningtune.files import dump_yaml, load_yaml
from lightningtune.training.process_state import quiet_lightning

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.slow
def test_the_thirty_lines_run_and_so_does_the_objective(tmp_path):
    thirty, objective = BLOCKS[0], BLOCKS[1]
    script = tmp_path / "readme.py"
    script.write_text(
        f"import optuna\nfrom lightningtune import TuneCallback\n{thirty}\n{objective}".replace("=20)", "=2)")
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "10 complete" in done.stdout or "pruned" in done.stdout
    assert (tmp_path / "lightningtune_runs/optuna_study/best/model.ckpt").exists()


def test_the_facade_takes_a_cli_config_as_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {name: {"class_path": f"nets.{cls}"} for name, cls in (("model", "Line"), ("data", "Points"))}
    Path("config.yaml").write_text(dump_yaml({**config, "trainer": {"max_epochs": 1}}))
    exec(BLOCKS[2], {"OptunaDrivenOptimizer": OptunaDrivenOptimizer, "optuna": optuna})


def test_the_function_of_the_trial_is_a_space():
    scope = {}
    exec(BLOCKS[3], scope)
    trial = optuna.trial.FixedTrial({"depth": 2, "width_0": 16, "width_1": 32})
    assert AdvancedSearchSpace(scope["space"]).suggest(trial) == {"model.widths": [16, 32]}
    assert len(BLOCKS) == 4, "a new block needs a test"


@pytest.fixture
def cli_project(tmp_path, monkeypatch):
    """The example with a LightningCLI, its trials smaller, as the working directory."""
    shutil.copytree(ROOT / "examples" / "lightning_cli", tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.syspath_prepend(tmp_path / "project")
    train = Path("train.py")
    train.write_text(train.read_text().replace('"max_epochs": 10', '"max_epochs": 1'))
    yield Path.cwd()
    sys.modules.pop("train", None)


QUICKER = {
    ("python", True): " --isolate false --verbose false --check false",
    ("python", False): " --trainer.enable_progress_bar false",
    ("lightningtune", True): " --check=false --verbose false",
}


def run_line(line, monkeypatch):
    """Run a line of a console in this process."""
    command, _, output = line.partition(" > ")
    program, *arguments = shlex.split(command)
    monkeypatch.setattr(sys, "argv", arguments)
    with contextlib.ExitStack() as stack:
        if output:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(Path(output).open("w"))))
        if program == "python":
            with quiet_lightning():
                runpy.run_path(arguments[0], run_name="__main__")
        else:
            assert program == "lightningtune"
            assert main(arguments) == 0


@pytest.mark.slow
def test_the_page_on_lightning_cli_runs(cli_project, monkeypatch):
    page = (ROOT / "docs" / "lightning_cli.md").read_text()
    shown, script = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    lines = [
        line for block in re.findall(r"```console\n(.*?)```", page, flags=re.DOTALL) for line in block.splitlines()
    ]
    assert {*shown.splitlines()} <= {*(ROOT / "examples" / "lightning_cli" / "train.py").read_text().splitlines()}
    (space,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    assert load_yaml(space).items() <= load_yaml(Path("space.yaml").read_text()).items()
    exec(script.replace("n_trials=30", "n_trials=2"), {})
    for line in lines:
        quicker = QUICKER.get((line.split()[0], " tune " in line), "")
        run_line(line.replace("_trials 30", "_trials 2") + quicker, monkeypatch)
    assert {path.name for path in Path("lightningtune_runs").iterdir()} == {"optuna_study", "inside", "script"}
    for study in Path("lightningtune_runs").iterdir():
        assert len([*(study / "trials").iterdir()]) == 2
    assert Path("best.yaml").read_text() == Path("lightningtune_runs/script/best/config.yaml").read_text()


def test_every_form_in_the_readme_is_read():
    from lightningtune.search.parameters import FORMS

    table = README.partition("| form | means |")[2].partition("\n\n")[0]
    assert {form for form in FORMS if f'`("{form}"' in table} == set(FORMS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_exist(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("name", ["architecture.md", "decisions.md"])
def test_files_that_are_named_exist(name):
    for file in re.findall(r"`([a-z_/]+\.py)`", (ROOT / "docs" / name).read_text()):
        assert (ROOT / "lightningtune" / file).exists() or (ROOT / file).exists(), file


def test_every_make_target_that_is_named_exists():
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(
            r"\bmake ([a-z-]+)", " ".join(re.findall(r"`[^`]*`|^make .*$", page.read_text(), re.MULTILINE))
        ):
            assert f"\n{target}:" in makefile, f"{page.name} names make {target}"


def test_the_tests_for_the_oldest_versions_exist():
    (line,) = re.findall(r"^OLDEST_TESTS \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [path for path in line.split() if not (ROOT / path).exists()] == []


def test_a_person_decides_in_two_minutes():
    assert len(README.splitlines()) <= 150


def test_ci_runs_what_the_readme_says():
    commands = (ROOT / ".ci" / "run").read_text().splitlines()
    assert {"make check", "make test-all"} <= {*commands}
    assert "make test-all" in README
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
