import threading

import optuna
from optuna.storages import InMemoryStorage

from lightningtune.study.pause import latest_request, pause, watched_for_pause
from lightningtune.study.storage import PatientStorage


def test_a_pause_is_noticed_once_and_only_one_that_is_asked_for_from_a_moment_on():
    study = optuna.create_study()
    assert latest_request(study) is None
    pause(study)
    noticed = threading.Semaphore(0)
    with watched_for_pause(study, latest_request(study), noticed.release, look=0.01):
        assert not noticed.acquire(timeout=0.1)
        pause(study)
        assert noticed.acquire(timeout=30)
        pause(study)
        assert not noticed.acquire(timeout=0.1)


def test_a_pause_that_was_asked_for_since_a_moment_counts():
    study = optuna.create_study()
    before, noticed = latest_request(study), threading.Event()
    pause(study)
    with watched_for_pause(study, before, noticed.set, look=0.01):
        assert noticed.wait(30)


class Away(InMemoryStorage):
    """A storage that is away when a study is looked at, until it is told to be back."""

    def __init__(self):
        super().__init__()
        self.is_away, self.looked = threading.Event(), threading.Event()

    def get_study_user_attrs(self, study_id):
        if self.is_away.is_set():
            self.looked.set()
            raise OSError(5, "away")
        return super().get_study_user_attrs(study_id)


def test_a_storage_that_is_away_is_looked_at_again_and_does_not_hold_up_the_end():
    storage = Away()
    study = optuna.create_study(storage=PatientStorage(storage))
    noticed = threading.Event()
    with watched_for_pause(study, None, noticed.set, look=0.01):
        pause(study)
        assert noticed.wait(30)
    before, noticed = latest_request(study), threading.Event()
    with watched_for_pause(study, before, noticed.set, look=0.01):
        storage.is_away.set()
        assert storage.looked.wait(30)
        storage.is_away.clear()
        pause(study)
        assert noticed.wait(30)
    storage.looked.clear()
    storage.is_away.set()
    with watched_for_pause(study, None, noticed.set, look=0.01):
        assert storage.looked.wait(30)
