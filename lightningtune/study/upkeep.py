"""Keeps a study's folder right: ``best/``, the weights of the best trials, and no checkpoint that nobody needs."""

from __future__ import annotations

from collections.abc import Callable

import optuna
from optuna.trial import FrozenTrial, TrialState

from lightningtune.errors import InvalidConfigError
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.reporter import read_config_sum
from lightningtune.study.tally import TrialTally


class FolderUpkeep:
    """Keeps the folder of a study as its trials say."""

    def __init__(self, study: optuna.Study, directory: StudyDirectory, tally: TrialTally, top_k: int) -> None:
        self._study, self._directory, self._tally, self._top_k = study, directory, tally, top_k
        self._has_one_best = len(study.directions) == 1
        self._kept = tally.find_kept(top_k)

    def repair(self, tell: Callable[[str], None]) -> None:
        """Make ``best/`` the best trial: a host may have been killed after a trial ended and before it did so."""
        best = self._tally.best
        if not best or not self._has_one_best or not self._directory.trial(best[0]).exists():
            return
        try:
            self._directory.check_whole(best[0], read_config_sum(self._study, best[0]))
            self._directory.promote(best[0])
        except InvalidConfigError as damage:
            tell(f"best/ stays as it is. {damage}")

    def drop_leftovers(self) -> None:
        """Remove checkpoints that a killed host has left, and files that never came to their place.

        Trials that run, or wait to go on, keep all they have.
        """
        self._directory.drop_unfinished_report()
        # the folder is read before the study: what begins in between is another host's, and has no tally yet
        left = self._directory.with_checkpoints()
        self._tally.update()
        self._kept = self._tally.find_kept(self._top_k)
        for number in left & {*range(len(self._tally.trials))}:
            if number not in self._kept:
                self._directory.drop_weights(number)
            elif self._tally.trials[number].state is TrialState.COMPLETE:
                self._directory.drop_last(self._directory.trial(number))

    def keep(self, trial: FrozenTrial) -> None:
        """Put a trial that has ended into ``best/`` if it is the best, and drop the weights that it makes obsolete."""
        if trial.state is not TrialState.FAIL:
            self._directory.drop_last(self._directory.trial(trial.number))
        if self._has_one_best and self._tally.best == [trial.number]:
            self._directory.promote(trial.number)
        kept = self._tally.find_kept(self._top_k)
        for number in {*self._kept, trial.number} - kept:
            self._directory.drop_weights(number)
        self._kept = kept
