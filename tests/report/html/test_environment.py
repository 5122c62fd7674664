from reported import VERSIONS, ours, theirs

from lightningtune.report.html.environment import environment_of
from lightningtune.report.html.record import read_study
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.reporter import PROVENANCE

HERE = StudyDirectory.named(None, "nowhere")


def test_versions_machines_and_what_was_asked_for():
    definition = {"sampler": "TPESampler", "pruner": "NopPruner", "n_trials": 40}
    found = dict(environment_of(read_study(ours(12), HERE), definition))
    assert found["sampler"] == "TPESampler"
    assert found["trials asked for"] == "40"
    assert found["torch"] == "2.15.0"
    assert found["commit"] == "0123456789"
    assert found["device"] == "cpu (a processor)"
    assert found["peak memory of a trial"] == "512 MiB"


def test_what_changed_in_between_is_told_apart():
    study = ours(4)
    trials = study.get_trials()
    for trial in trials[2:]:
        newer = {"config": "0", "versions": {**VERSIONS, "torch": "2.16.0"}, "commit": "ff", "is_dirty": True}
        trial.user_attrs = {**trial.user_attrs, PROVENANCE: newer}
    changed = ours(0)
    changed.add_trials(trials)
    found = dict(environment_of(read_study(changed, HERE), {}))
    assert found["torch"] == "2.15.0 (trials 0, 1); 2.16.0 (trials 2, 3)"
    assert "ff with changes that were not committed (trials 2, 3)" in found["commit"]


def test_of_another_study_only_the_writer_is_known():
    (only,) = environment_of(read_study(theirs(), HERE), {})
    assert only[0] == "report written with"
