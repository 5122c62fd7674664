"""A study's storage as optuna-dashboard is shown it: with a note and files for each trial, of which nothing is written.

They are told from the study when they are asked for. So a study is the same whether anybody has looked at it or not, no
training waits for them, and those of a trial that runs are true. Written down, they would come late: Optuna takes no
attribute of a trial that has ended, and the notes of all trials are attributes of the study, which every sampler reads.
"""

from __future__ import annotations

import copy
from collections.abc import Container
from typing import Any, TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState

from lightningtune.report.dashboard.files import StudyFiles
from lightningtune.report.dashboard.notes import note_of
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.identifiers import id_of, storage_of
from lightningtune.study.patience import PatientStorage
from lightningtune.study.results import best_numbers, trial_result
from lightningtune.study.succession import successors

_T = TypeVar("_T")
_NOTES = 1000
"""Trials, the latest, that have a note: for each trial optuna-dashboard goes through the notes of all."""
_PATIENCE = 3.0
"""Seconds for which a storage that is away is waited for: somebody sits in front of the page."""


class ShownStorage(PatientStorage):
    """A storage in which one study has notes and files; whatever else is read and written is the storage's own.

    A note that somebody has written in the dashboard takes the place of ours. Of a large study the latest trials have
    one, and the best.

    Args:
        study: the study.
        directory: its folder.
        files: tells of the files of its trials.
    """

    def __init__(self, study: optuna.Study, directory: StudyDirectory, files: StudyFiles) -> None:
        storage = storage_of(study)
        super().__init__(storage.storage if isinstance(storage, PatientStorage) else storage, _PATIENCE)
        self._study = study
        self._study_id = storage.get_study_id_from_name(study.study_name)
        self._directory = directory
        self._files = files

    def get_all_studies(self) -> list[Any]:
        """Return all studies, this one with its notes."""
        studies, name = super().get_all_studies(), self._study.study_name
        return [_with(s, self._of_study(s.system_attrs)) if s.study_name == name else s for s in studies]

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the attributes of a study, of this one with its notes."""
        own = super().get_study_system_attrs(study_id)
        return {**self._of_study(own), **own} if study_id == self._study_id else own

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials of a study, those of this one with their files."""
        trials = super().get_all_trials(study_id, deepcopy, states)
        return [*map(self._with_files, trials)] if study_id == self._study_id else trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial, with its files where it is one of this study's."""
        trial = super().get_trial(trial_id)
        return self._with_files(trial) if self._is_ours(trial) else trial

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """Return the best trial of a study, with its files where it is one of this study's."""
        trial = super().get_best_trial(study_id)
        return self._with_files(trial) if study_id == self._study_id else trial

    def _is_ours(self, trial: FrozenTrial) -> bool:
        trials = self._study.get_trials(deepcopy=False)
        return trial.number < len(trials) and id_of(trials[trial.number]) == id_of(trial)

    def _with_files(self, trial: FrozenTrial) -> FrozenTrial:
        return _with(trial, self._files.of_trial(trial))

    def _of_study(self, own: dict[str, Any]) -> dict[str, Any]:
        """Return what the attributes of the study have besides its own."""
        trials = self._study.get_trials(deepcopy=False)
        heirs = successors(trials)
        best = {number for number in best_numbers(self._study) if number < len(trials) - _NOTES}
        attrs: dict[str, Any] = dict(self._files.of_study())
        for trial in [*(trials[number] for number in best), *trials[-_NOTES:]]:
            # what optuna-dashboard's save_note writes, and reads
            version = f"dashboard:{id_of(trial)}:note_ver"
            if version in own:
                continue
            heir = heirs.get(trial.number)
            note = note_of(trial_result(trial, self._directory, heir))
            if note:
                attrs[version] = 1 + trial.state.is_finished() + (heir is not None)
                attrs[f"dashboard:{id_of(trial)}:note_str:0"] = note
        return attrs


def _with(shown: _T, attrs: dict[str, Any]) -> _T:
    """Return a copy of a study or a trial that has some attributes besides its own."""
    copied: Any = copy.copy(shown)
    copied.system_attrs = {**attrs, **copied.system_attrs}
    return copied  # type: ignore[no-any-return]
