"""What Optuna keeps to itself, and a study of several hosts needs: its storage, and the ids of its trials there.

Optuna has public methods of a storage that change a trial, but no public way to the storage from a study, nor from a
trial to the id that those methods take.
"""

from __future__ import annotations

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial


def storage_of(study: optuna.Study) -> BaseStorage:
    """Return the storage of a study."""
    return study._storage


def id_of(trial: optuna.Trial | FrozenTrial) -> int:
    """Return the id of a trial in its storage; its number counts within one study only."""
    return trial._trial_id
