import logging
import subprocess
import sys

import optuna
import pytest
from nets import Line, Points
from reported import ours, theirs

import lightningtune
from lightningtune import ConfigurationError, OptunaDrivenOptimizer
from lightningtune.report.html.writer import ReportWriter
from lightningtune.study.directory import StudyDirectory


@pytest.fixture
def directory(tmp_path):
    return StudyDirectory(tmp_path / "digits")


def test_the_report_is_written_where_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert lightningtune.study_report(theirs()) == tmp_path / "report.html"
    other = lightningtune.study_report(theirs(), "deep/er/mine.html")
    assert other.read_text().startswith("<!doctype html>")


def test_what_is_no_study_or_cannot_be_written_is_said(tmp_path):
    with pytest.raises(ConfigurationError, match=r"must be an optuna.Study, but got 'digits'"):
        lightningtune.study_report("digits")
    with pytest.raises(ConfigurationError, match="is a folder"):
        lightningtune.study_report(theirs(), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(lightningtune.LightningTuneError, match=r"'.*file' is to be a folder"):
        lightningtune.study_report(theirs(), tmp_path / "file" / "report.html")


class Clock:
    """Stands still, but for what a test lets pass, and a second for each look at it."""

    now = 0.0

    def __call__(self):
        self.now += 1
        return self.now


def test_while_a_study_runs_its_report_takes_no_more_than_its_share(directory):
    clock = Clock()
    writer = ReportWriter(directory, share=0.1, clock=clock)
    report, study, written = directory.report, ours(1), []
    while clock.now < 50:
        clock.now += 1
        writer(study, study.trials[-1])
        if report.exists():  # which took a second
            written.append(clock.now)
            report.unlink()
    assert written[0] > 20, "the first is expected to take 2 seconds"
    assert all(count <= 0.1 * when for count, when in enumerate(written, start=1))
    assert len(written) >= 3


def test_a_report_that_fails_says_so_once_and_ends_no_study(directory, caplog):
    directory.root.write_text("a file where the folder is to be")
    broken = ReportWriter(directory)
    with caplog.at_level(logging.WARNING, "lightningtune"):
        broken.write(ours(3))
        broken.write(ours(3))
    assert [record.message.split(":")[0] for record in caplog.records] == ["The study's report could not be written"]


def test_optunas_own_words_are_not_heard(directory, capfd):
    study = optuna.create_study(study_name="none")
    capfd.readouterr()
    ReportWriter(directory).write(study)
    assert capfd.readouterr() == ("", "")


def test_a_study_that_is_interrupted_has_its_report(tmp_path):
    def interrupt(study, trial):
        raise KeyboardInterrupt

    optimizer = OptunaDrivenOptimizer(
        base_config={"trainer": {"max_epochs": 1, "accelerator": "cpu", "logger": False}},
        search_space={"lr": ("uniform", 0.01, 0.1)},
        model_class=Line,
        datamodule_class=Points,
        callbacks=[interrupt],
        experiment_dir=tmp_path,
        verbose=False,
    )
    with pytest.raises(KeyboardInterrupt):
        optimizer.optimize()
    assert "1 complete" in (optimizer.directory / "report.html").read_text()


def test_no_study_waits_for_plotly_before_its_first_trial():
    code = "import sys, lightningtune.report.html.results, lightningtune.report.html.writer; print({*sys.modules})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "optuna" in ran.stdout
    assert not {"'plotly'", "'jinja2'", "'torch'"} & {*ran.stdout.strip("{}\n").split(", ")}
