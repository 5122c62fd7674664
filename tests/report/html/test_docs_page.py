"""The page on the report says what is so."""

import re
import shlex
import webbrowser
from pathlib import Path
from types import SimpleNamespace

import optuna
from reported import ours

from lightningtune.cli.main import main
from lightningtune.report.html.results import DrawableResults, drawable_results
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.storage import open_storage

PAGE = (Path(__file__).parents[3] / "docs" / "report.md").read_text()
SCRIPT, NOTEBOOK = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
(CONSOLE,) = re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_script_writes_its_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(SCRIPT, {})
    assert "parabola" in Path("parabola.html").read_text()


def test_the_notebook_draws_every_figure_there_is():
    results = drawable_results(ours(20), StudyDirectory.named(None, "nowhere"))
    exec(NOTEBOOK, {"optimizer": SimpleNamespace(results=lambda: results)})
    there = {name for name in vars(DrawableResults) if name.startswith("plot_")}
    assert {*re.findall(r"\bplot_\w+", PAGE)} == there


def test_the_commands_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(webbrowser, "open", lambda address: True)
    optuna.create_study(study_name="digits", storage=open_storage(None, Path("lightningtune_runs/digits/journal.log")))
    for line in CONSOLE.splitlines():
        assert main(shlex.split(line)[1:]) == 0
    assert Path("digits.html").exists()
