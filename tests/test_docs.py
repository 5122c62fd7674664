"""The README's code runs as it stands there, and names what exists."""

import os
import re
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from lightningtune import AdvancedSearchSpace, OptunaDrivenOptimizer
from lightningtune.files import dump_yaml

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


def test_every_form_in_the_readme_is_read():
    from lightningtune.search.distributions import FORMS

    table = README.partition("| form | means |")[2].partition("\n\n")[0]
    assert {form for form in FORMS if f'`("{form}"' in table} == set(FORMS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_exist(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_make_target_that_is_named_exists():
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(
            r"\bmake ([a-z]+)", " ".join(re.findall(r"`[^`]*`|^make .*$", page.read_text(), re.MULTILINE))
        ):
            assert f"\n{target}:" in makefile, f"{page.name} names make {target}"


def test_ci_runs_what_the_readme_says():
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
