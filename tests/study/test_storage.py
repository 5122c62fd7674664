"""Which storage is opened, and what is asked of Optuna's private attributes."""

import contextlib
import re
import sqlite3
import sys
import tempfile
import threading
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from servers import Postgres

import lightningtune
from lightningtune import ConfigurationError
from lightningtune.study.storage import get_id, get_storage, open_storage


def test_the_default_is_a_journal(tmp_path):
    path = tmp_path / "deep" / "journal.log"
    assert isinstance(open_storage(None, path).storage, JournalStorage)
    optuna.create_study(storage=open_storage(None, path), study_name="s")
    assert path.exists()


def test_a_path_is_a_journal_and_a_url_a_database(tmp_path):
    assert isinstance(open_storage(tmp_path / "a.log", tmp_path / "unused").storage, JournalStorage)
    assert isinstance(open_storage(str(tmp_path / "a.log"), tmp_path / "unused").storage, JournalStorage)
    url = f"sqlite:///{tmp_path}/a.db"
    optuna.create_study(storage=open_storage(url, tmp_path / "unused"), study_name="s")
    assert optuna.get_all_study_names(url) == ["s"]
    assert not (tmp_path / "unused").exists()


def test_an_object_is_used_as_it_is(tmp_path):
    storage = InMemoryStorage()
    assert open_storage(storage, tmp_path) is storage
    patient = open_storage(tmp_path / "a.log", tmp_path)
    assert open_storage(patient, tmp_path) is patient


def test_a_database_has_optunas_cache_before_it(tmp_path):
    url = f"sqlite:///{tmp_path}/a.db"
    given = open_storage(optuna.storages.RDBStorage(url), tmp_path)
    assert type(given.storage) is type(open_storage(url, tmp_path).storage) is type(optuna.storages.get_storage(url))


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_storage_that_beats_is_used_as_it_is(tmp_path):
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/a.db", heartbeat_interval=60)
    assert open_storage(storage, tmp_path) is storage


@pytest.mark.parametrize("url", ["sqlite:////missing/folder/a.db", "sqlit:///a.db"])
def test_a_database_that_cannot_be_opened_is_named(tmp_path, url):
    with pytest.raises(ConfigurationError, match=f"storage='{url}' cannot be opened"):
        open_storage(url, tmp_path)


def test_why_a_database_cannot_be_opened_is_told_as_it_says_it(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as database:
        database.execute("CREATE TABLE version_info (of_another_program TEXT)")
    with pytest.raises(ConfigurationError, match="cannot be opened: .*no such column"):
        open_storage(f"sqlite:///{tmp_path}/a.db", tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="its processes are found in /proc")
def test_a_server_that_is_being_started_again_is_waited_for_but_not_for_long(tmp_path):
    with contextlib.closing(Postgres()) as server:
        server.kill()
        with pytest.raises(ConfigurationError, match="cannot be opened: .*No such file or directory"):
            open_storage(server.url, tmp_path, start_seconds=0.2)
        starts = threading.Thread(target=server.start)  # takes longer than the first try
        starts.start()
        optuna.create_study(storage=open_storage(server.url, tmp_path, start_seconds=120), study_name="s")
        starts.join()


def test_a_database_given_by_its_path_is_told_its_url(tmp_path):
    open_storage(f"sqlite:///{tmp_path}/a.db", tmp_path)
    with pytest.raises(ConfigurationError, match=f"'sqlite:///{tmp_path}/a.db'"):
        open_storage(tmp_path / "a.db", tmp_path)


def test_anything_else_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="storage must be"):
        open_storage(3, tmp_path)


@pytest.mark.parametrize("url", ["sqlite:/a.db", "sqlite:a.db", "mysql+pymysql:/a"])
def test_a_url_with_a_slash_too_few_is_no_path(tmp_path, url):
    with pytest.raises(ConfigurationError, match="is no URL. A URL begins with a name and '://'"):
        open_storage(url, tmp_path / "unused")


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    """The bytes of a journal, and its records."""
    path = tmp_path_factory.mktemp("journal") / "journal.log"
    study = optuna.create_study(storage=open_storage(path, path), study_name="s")
    study.set_user_attr("long", "x" * 10_000)
    study.enqueue_trial({"x": 0.5}, user_attrs={"ünï": "cödé"})
    for _ in range(2):
        trial = study.ask()
        trial.report(trial.suggest_float("x", 0, 1), 0)
        study.tell(trial, 1.0)
    return path.read_bytes(), records(path)


def records(path):
    return [*JournalFileBackend(str(path)).read_logs(0)]


@given(cut=st.floats(0, 1), is_long=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_journal_that_was_cut_anywhere_keeps_its_complete_records_and_takes_more(journal, cut, is_long):
    data, all_records = journal
    # most of the bytes are one long record's, and the others matter as much
    begin, end = (0, len(data)) if is_long else (data.index(b"\n", 10_000), len(data))
    torn = data[: begin + round(cut * (end - begin))]
    complete = all_records[: torn.count(b"\n")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.log"
        path.write_bytes(torn)
        storage = open_storage(path, path)
        assert records(path) == complete
        known = optuna.get_all_study_names(storage)
        assert known == (["s"] if complete else [])
        optuna.create_study(storage=storage, study_name="after").set_user_attr("a", 1)
        optuna.create_study(storage=storage, study_name="s", load_if_exists=True).ask()
        assert records(path)[: len(complete)] == complete
        again = open_storage(path, path)
        assert sorted(optuna.get_all_study_names(again)) == ["after", "s"]
        assert optuna.load_study(study_name="after", storage=again).user_attrs == {"a": 1}
        assert path.read_bytes().count(b"\n") == len(records(path))


def test_what_another_writer_leaves_unfinished_meanwhile_is_cut_too(tmp_path):
    path = tmp_path / "journal.log"
    study = optuna.create_study(storage=open_storage(path, path), study_name="s")
    with path.open("ab") as file:
        file.write(b'{"op_code":2,"worker')
    assert study.user_attrs == {}, "reading does not mind"
    study.set_user_attr("a", 1)
    assert optuna.load_study(study_name="s", storage=open_storage(path, path)).user_attrs == {"a": 1}


def test_a_journal_that_is_damaged_is_named(tmp_path):
    path = tmp_path / "journal.log"
    optuna.create_study(storage=open_storage(path, path), study_name="s").set_user_attr("a", 1)
    path.write_bytes(b"garbage\n" + path.read_bytes())
    with pytest.raises(ConfigurationError, match=f"The journal '{path}' is damaged"):
        open_storage(path, path)


@pytest.mark.parametrize("kind", ["memory", "sqlite", "journal"])
def test_a_storage_knows_a_trial_by_its_id(tmp_path, kind):
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    storages = {
        "memory": optuna.storages.InMemoryStorage,
        "sqlite": lambda: optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/study.db"),
        "journal": lambda: optuna.storages.JournalStorage(backend),
    }
    storage = storages[kind]()
    optuna.create_study(storage=storage, study_name="other").ask()
    study = optuna.create_study(storage=storage, study_name="one")
    asked = [study.ask(), study.ask()]
    for trial in (*asked, *study.trials):
        assert get_storage(study).get_trial(get_id(trial)).number == trial.number
        assert get_id(trial) in {get_id(one) for one in study.get_trials()}


def test_nobody_else_asks_optuna_for_what_it_keeps_to_itself():
    package = Path(lightningtune.__file__).parent
    private = re.compile(r"(?<!self)\._(storage|trial_id|study_id)\b")
    found = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if private.search(path.read_text())}
    assert found == {"study/storage.py"}
