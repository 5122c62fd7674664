import re
from pathlib import Path

import optuna
import pytest

import lightningtune
from lightningtune.study.identifiers import id_of, storage_of


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
        assert storage_of(study).get_trial(id_of(trial)).number == trial.number
        assert id_of(trial) in {id_of(one) for one in study.get_trials()}


def test_nobody_else_asks_optuna_for_what_it_keeps_to_itself():
    package = Path(lightningtune.__file__).parent
    private = re.compile(r"(?<!self)\._(storage|trial_id|study_id)\b")
    found = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if private.search(path.read_text())}
    assert found == {"study/identifiers.py"}
