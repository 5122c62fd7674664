"""What a host leaves that is killed after a trial has ended, and before the trial's folder is as it should be."""

from __future__ import annotations

import optuna
from optuna.trial import TrialState

from lightningtune.study.directory import StudyDirectory
from lightningtune.study.results import kept_numbers


def drop_leftovers(study: optuna.Study, directory: StudyDirectory, top_k: int) -> None:
    """Remove the checkpoints that have had their time, and files that never came to their place.

    Args:
        study: the study; trials that run, or wait to go on, keep all they have.
        directory: its folder.
        top_k: of how many of the best trials the weights are kept.
    """
    directory.drop_unfinished_report()
    left = directory.with_checkpoints()  # first: what begins from now on is another host's
    kept, trials = kept_numbers(study, top_k), study.get_trials(deepcopy=False)
    for number in left & {*range(len(trials))}:
        if number not in kept:
            directory.drop_weights(number)
        elif trials[number].state is TrialState.COMPLETE:
            directory.drop_last(directory.trial(number))
