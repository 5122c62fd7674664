"""No password of a URL and no escape sequence of a study's reaches whoever looks."""

import unicodedata
import zipfile
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial
from servers import Postgres

from lightningtune.cli.main import main
from lightningtune.cli.start import StudyStart, read_start
from lightningtune.cli.studies import STORAGE
from lightningtune.cli.study_file import StudyFile
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.storage import open_storage

SECRET = "hunter2"
URL = f"postgresql+psycopg2://me:{SECRET}@127.0.0.1:1/db?password={SECRET}"
EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\x7f\r[bold]"


@pytest.mark.parametrize(
    "line",
    [
        f"status digits --storage nosql{URL[10:]}",
        f"--debug status digits --storage nosql{URL[10:]}",
        f"status digits --storage {URL.replace('me:', 'm@:')}",
        f"status digits --storage {URL.replace('127.0.0.1:1', 'host:port')}",
        f"status digits --storag={URL}",
        f"status digits {URL}",
        f"{URL} digits",
        f"tune --storage {URL.replace('://', ':')} --model_class nets.Line",
        f"tune --storage {URL} --print_config",
    ],
)
def test_no_command_shows_a_password(monkeypatch, tmp_path, capsys, line):
    monkeypatch.chdir(tmp_path)
    main(line.split())
    shown = "".join(capsys.readouterr())
    assert shown
    assert SECRET not in shown


def test_a_password_is_not_kept_on_the_study(tmp_path):
    study = optuna.create_study()
    StudyStart(StudyFile(storage=URL), tmp_path, tmp_path).save(study)
    assert SECRET not in repr(study.user_attrs)
    assert read_start(study).study == StudyFile()


@pytest.mark.slow
def test_a_study_in_a_database_is_found_by_the_environment_and_shows_no_password(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    server = Postgres()
    try:
        url = server.url.replace("postgres:@", f"postgres:{SECRET}@")
        assert SECRET in url
        study = optuna.create_study(study_name="digits", storage=open_storage(url, tmp_path))
        study.add_trial(create_trial(value=1.0))
        StudyStart(StudyFile(storage=url), tmp_path, tmp_path).save(study)
        monkeypatch.setenv(STORAGE, url)
        for line in ("status digits --json", "report digits", "export digits", "pause digits"):
            assert main(line.split()) == 0
        assert main(["status", "nothing"]) == 1
    finally:
        server.close()
    shown = "".join(capsys.readouterr())
    assert "There is no study 'nothing' in postgresql+psycopg2://***@" in shown
    assert f"The storage is that of {STORAGE}." in shown
    assert SECRET not in shown
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= 2
    with zipfile.ZipFile("digits.zip") as archive:
        texts = [archive.read(name) for name in archive.namelist()] + [path.read_bytes() for path in written]
    assert not [text for text in texts if SECRET.encode() in text]


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """The folder of a study whose names and values are full of escape sequences."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "lightningtune_runs" / "evil"
    study = optuna.create_study(study_name=f"s{EVIL}", storage=open_storage(None, root / "journal.log"))
    choices = CategoricalDistribution([f"c{EVIL}", "b"])
    for state, values in ((TrialState.COMPLETE, 1.0), (TrialState.FAIL, None)):
        study.add_trial(
            create_trial(
                state=state,
                value=values,
                params={f"p{EVIL}": f"c{EVIL}"},
                distributions={f"p{EVIL}": choices},
                user_attrs={"lightningtune:detail": f"d{EVIL}", "lightningtune:reason": f"r{EVIL}"},
            )
        )
    definition = {"study_name": f"s{EVIL}", "metric": [f"m{EVIL}"], "versions": {"lightningtune": f"v{EVIL}"}}
    StudyDirectory(root).write_definition({**definition, "base_config": {f"k{EVIL}": f"x{EVIL}"}, "script": f"f{EVIL}"})
    return root


@pytest.mark.parametrize(
    "line",
    [
        "list",
        "list --json",
        "status evil",
        "status evil --json",
        "best evil",
        "best evil --json",
        "best evil --number 9",
        "trials evil",
        "trials evil --json",
        "trials evil --sort nothing",
        "compare evil evil",
        "report evil",
        "export evil evil.zip",
        "pause evil",
        "resume evil",
        "refit evil",
        "replay evil 0",
        "tune lightningtune_runs/evil/study.yaml",
        "rm evil",
        "rm evil --yes",
    ],
)
@pytest.mark.usefixtures("evil")
def test_no_escape_sequence_of_a_study_reaches_the_terminal(capsys, line):
    assert main(line.split()) in (0, 1)
    shown = "".join(capsys.readouterr())
    assert shown
    assert not {letter for letter in shown if unicodedata.category(letter) == "Cc"} - {"\n"}


def test_a_command_that_is_offered_is_quoted_for_a_shell(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = "a; rm $HOME 'b'"
    root = Path("lightningtune_runs", name).absolute()
    optuna.create_study(study_name=name, storage=open_storage(None, root / "journal.log"))
    assert main(["export", name, "out.zip"]) == 0
    assert """then `lightningtune status 'a; rm $HOME '"'"'b'"'"''`.""" in capsys.readouterr().out
