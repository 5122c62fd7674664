import optuna
import pytest
from optuna.storages import InMemoryStorage, JournalStorage

from lightningtune import ConfigurationError
from lightningtune.study.storage import open_storage


def test_the_default_is_a_journal(tmp_path):
    path = tmp_path / "deep" / "journal.log"
    assert isinstance(open_storage(None, path), JournalStorage)
    optuna.create_study(storage=open_storage(None, path), study_name="s")
    assert path.exists()


def test_a_path_is_a_journal_and_a_url_a_database(tmp_path):
    assert isinstance(open_storage(tmp_path / "a.log", tmp_path / "unused"), JournalStorage)
    assert isinstance(open_storage(str(tmp_path / "a.log"), tmp_path / "unused"), JournalStorage)
    url = f"sqlite:///{tmp_path}/a.db"
    optuna.create_study(storage=open_storage(url, tmp_path / "unused"), study_name="s")
    assert optuna.get_all_study_names(url) == ["s"]
    assert not (tmp_path / "unused").exists()


def test_an_object_is_used_as_it_is(tmp_path):
    storage = InMemoryStorage()
    assert open_storage(storage, tmp_path) is storage


@pytest.mark.parametrize("url", ["sqlite:////missing/folder/a.db", "sqlit:///a.db"])
def test_a_database_that_cannot_be_opened_is_named(tmp_path, url):
    with pytest.raises(ConfigurationError, match=f"storage='{url}' cannot be opened"):
        open_storage(url, tmp_path)


def test_a_database_given_by_its_path_is_told_its_url(tmp_path):
    open_storage(f"sqlite:///{tmp_path}/a.db", tmp_path)
    with pytest.raises(ConfigurationError, match=f"'sqlite:///{tmp_path}/a.db'"):
        open_storage(tmp_path / "a.db", tmp_path)


def test_anything_else_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="storage must be"):
        open_storage(3, tmp_path)


@pytest.mark.parametrize("url", ["sqlite:/a.db", "sqlite:a.db", "mysql+pymysql:/a"])
def test_a_url_with_a_slash_too_few_is_no_path(tmp_path, url):
    with pytest.raises(ConfigurationError, match="is no URL: one begins with a name and '://'"):
        open_storage(url, tmp_path / "unused")
