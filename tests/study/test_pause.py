import threading

import optuna

from lightningtune.study.pause import pause, watched_for_pause


def test_a_pause_is_noticed_once_and_only_one_that_is_asked_for_from_now_on():
    study = optuna.create_study()
    pause(study)
    noticed = threading.Semaphore(0)
    with watched_for_pause(study, noticed.release, look=0.01):
        assert not noticed.acquire(timeout=0.1)
        pause(study)
        assert noticed.acquire(timeout=30)
        pause(study)
        assert not noticed.acquire(timeout=0.1)


class Away:
    """A study whose storage is away at first."""

    def __init__(self, failures):
        self.failures, self.looks = failures, 0

    @property
    def user_attrs(self):
        self.looks += 1
        if 1 < self.looks <= self.failures:
            raise OSError("away")
        return {} if self.looks == 1 else {"lightningtune:pause": "now"}


def test_a_storage_that_is_away_is_looked_at_again():
    noticed = threading.Event()
    with watched_for_pause(Away(3), noticed.set, look=0.01):
        assert noticed.wait(30)
