"""Any trial of a study is trained again from its record, and compared."""

import functools
import sys

import optuna
import pytest
import torch
from fits import PruneAt
from nets import DiesOnce, Line, Points

from lightningtune import ConfigurationError, NoResultError, OptunaDrivenOptimizer, TrialError
from lightningtune.contract import StopReason
from lightningtune.errors import InvalidConfigError
from lightningtune.study.comparison import Agreement
from lightningtune.study.reporter import FACTS, PROVENANCE

EPOCHS = 4


class Changing(Line):
    """Its code can be changed: from an epoch on the loss is scaled."""

    since, scale, fails = 99, 1.0, None

    def __init__(self, lr: float = 0.1, width: int = 4, note: str = ""):
        super().__init__(lr, width)

    def training_step(self, batch, batch_idx):
        if self.fails is not None and self.current_epoch == 2:
            raise self.fails
        return super().training_step(batch, batch_idx) * (self.scale if self.current_epoch >= self.since else 1.0)


class Drawn(Points):
    """Draws in ``prepare_data``, which is called once for a study, and before any of its trainings."""

    def prepare_data(self):
        torch.rand(3)


@pytest.fixture
def tune(tmp_path):
    def build(**changed):
        given = {
            "base_config": {"trainer": {"max_epochs": EPOCHS, "accelerator": "cpu"}},
            "search_space": {"lr": ("loguniform", 1e-3, 1.0)},
            "model_class": Changing,
            "datamodule_class": Points,
            "n_trials": 2,
            "experiment_dir": tmp_path,
            "verbose": False,
            "seed": 0,
            "max_failures": 9,
        }
        return OptunaDrivenOptimizer(**{**given, **changed})

    return build


@pytest.mark.parametrize("isolate", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_trial_is_trained_again_to_the_last_bit_and_nothing_of_the_study_changes(tune, isolate):
    optimizer = tune(isolate=isolate, datamodule_class=Drawn)
    study = optimizer.optimize()
    again = tune(isolate=isolate, datamodule_class=Drawn)
    assert again.study.study_name == study.study_name  # opening it writes to the journal
    files = {path: path.read_bytes() for path in optimizer.directory.rglob("*") if path.is_file()}
    found = again.replay(1, tolerance=0.0)
    assert found.agreement is Agreement.IDENTICAL
    assert found.recorded.curve == found.replayed.curve == study.trials[1].intermediate_values
    assert found.replayed.values == tuple(study.trials[1].values)
    assert str(found).startswith(f"Trial 1, trained again, is identical: {EPOCHS} validations and the score.")
    assert {name.name for name in found.differences} <= {"commit"}
    assert found.directory == optimizer.directory / "replay" / "0001"
    assert (found.directory / "config.yaml").read_bytes() == files[optimizer.directory / "trials/0001/config.yaml"]
    assert not list(found.directory.glob("*.ckpt"))
    assert (found.directory / "output.log").exists() == isolate, "it is trained the way it was"
    assert {path: path.read_bytes() for path in files} == files


def test_where_the_code_has_changed_the_curves_part(tune, monkeypatch):
    optimizer = tune(n_trials=1)
    optimizer.optimize()
    monkeypatch.setattr(Changing, "since", 2)
    monkeypatch.setattr(Changing, "scale", 1.5)
    found = optimizer.replay(0)
    assert (found.agreement, found.parts_at) == (Agreement.DIFFERENT, 2)
    assert len(found.replayed.curve) == EPOCHS, "the whole new curve is there to look at"
    assert str(found).startswith("Trial 0, trained again, parts from its record at validation 3: ")


def test_a_difference_within_the_tolerance_is_none(tune, monkeypatch):
    optimizer = tune(n_trials=1)
    optimizer.optimize()
    monkeypatch.setattr(Changing, "since", 0)
    monkeypatch.setattr(Changing, "scale", 1 + 1e-5)
    found = optimizer.replay(0, tolerance=1e-2)
    assert found.agreement is Agreement.WITHIN_TOLERANCE
    assert 0 < found.largest < 1e-2
    assert optimizer.replay(0, tolerance=0.0).agreement is Agreement.DIFFERENT


def test_a_pruned_trial_is_trained_as_far_as_it_was(tune):
    optimizer = tune(pruner=PruneAt(1))
    assert optimizer.optimize().trials[1].state.name == "PRUNED"
    found = tune(pruner=PruneAt(0)).replay(1)
    assert found.agreement is Agreement.IDENTICAL
    assert [*found.replayed.curve] == [0, 1]


def test_a_trial_that_failed_is_seen_to_fail_again_or_not(tune, monkeypatch):
    monkeypatch.setattr(Changing, "fails", ValueError("no luck"))
    optimizer = tune(n_trials=1)
    optimizer.optimize()
    found = optimizer.replay(0)
    assert (found.agreement, [*found.replayed.curve]) == (Agreement.IDENTICAL, [0, 1])
    assert "2 validations and the end (ValueError: no luck)" in str(found)
    assert "no luck" in (found.directory / "error.txt").read_text()
    monkeypatch.setattr(Changing, "fails", KeyError("other"))
    assert "ended in another way: ValueError: no luck then, KeyError: 'other' now" in str(optimizer.replay(0))
    monkeypatch.setattr(Changing, "fails", None)
    found = optimizer.replay(0)
    assert (found.parts_at, [*found.replayed.curve]) == (2, [0, 1, 2])
    assert not (found.directory / "error.txt").exists(), "what an earlier replay has left is gone"


@pytest.mark.parametrize("policy", ["prune", "fail"])
def test_a_trial_whose_loss_was_no_number_is_seen_to_end_like_that_again(tune, monkeypatch, policy):
    monkeypatch.setattr(Changing, "since", 1)
    monkeypatch.setattr(Changing, "scale", float("nan"))
    optimizer = tune(n_trials=1, non_finite=policy)
    optimizer.optimize()
    assert optimizer.results().trials[0].reason == StopReason.NON_FINITE.value
    found = str(optimizer.replay(0))
    assert "is identical: 1 validation and the end (" in found
    assert "val_loss is nan" in found
    monkeypatch.setattr(Changing, "scale", 1.0)
    assert optimizer.replay(0).parts_at == 1


def test_data_that_trials_share_is_loaded_for_it(tune):
    tune(share_data=True, n_trials=1).optimize()
    assert tune(share_data=True).replay(0, tolerance=0.0).agreement is Agreement.IDENTICAL


def test_a_trial_that_completed_and_now_fails_has_not_reached_the_rest(tune, monkeypatch):
    optimizer = tune(n_trials=1)
    optimizer.optimize()
    monkeypatch.setattr(Changing, "fails", ValueError("new"))
    assert "at validation 3, which it did not reach: ValueError: new." in str(optimizer.replay(0))


def test_of_several_objectives_the_scores_are_compared(tune, monkeypatch):
    metrics = {"metric": ["val_loss", "size"], "direction": ["minimize", "minimize"]}
    optimizer = tune(n_trials=1, **metrics)
    optimizer.optimize()
    assert str(optimizer.replay(0)).startswith("Trial 0, trained again, is identical: the score.")
    monkeypatch.setattr(Changing, "since", 0)
    monkeypatch.setattr(Changing, "scale", 2.0)
    assert "has another score: " in str(optimizer.replay(0))


def test_it_computes_with_the_threads_of_the_trial(tune):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        optimizer = tune(n_trials=1)
        optimizer.optimize()
        torch.set_num_threads(1)
        found = optimizer.replay(0)
        assert (torch.get_num_threads(), optimizer.results().trials[0].facts.threads) == (1, 2)
        assert "threads" not in {difference.name for difference in found.differences}
    finally:
        torch.set_num_threads(before)


def test_what_is_not_as_it_was_around_the_trial_is_named(tune):
    optimizer = tune(n_trials=1)
    study = optimizer.optimize()
    before = study.trials[0]
    attrs = dict(before.user_attrs)
    provenance = {**attrs[PROVENANCE], "versions": {"torch": "1.0"}, "commit": None, "is_dirty": None}
    study.add_trial(
        optuna.trial.create_trial(
            value=before.value,
            params=before.params,
            distributions=before.distributions,
            intermediate_values=before.intermediate_values,
            user_attrs={**attrs, PROVENANCE: provenance, FACTS: {**attrs[FACTS], "device": "cpu (Z80)"}},
        )
    )
    (optimizer.directory / "trials/0000").rename(optimizer.directory / "trials/0001")
    found = optimizer.replay(1)
    assert found.agreement is Agreement.IDENTICAL
    named = {difference.name: difference.recorded for difference in found.differences}
    assert (named["torch"], named["device"]) == ("1.0", "cpu (Z80)")


def test_a_training_without_a_seed_says_so(tune):
    optimizer = tune(
        base_config={"seed_everything": False, "trainer": {"max_epochs": 1, "accelerator": "cpu"}}, n_trials=1
    )
    optimizer.optimize()
    assert "It has no seed." in str(optimizer.replay(0))


@pytest.mark.parametrize("number", [2, -1, "0", None])
def test_a_trial_that_does_not_exist_is_refused_with_those_that_do(tune, number):
    optimizer = tune()
    optimizer.optimize()
    with pytest.raises(NoResultError, match=r"has no trial .*\. It has trials 0 to 1\."):
        optimizer.replay(number)
    with pytest.raises(NoResultError, match="It has none"):
        tune(study_name="empty").replay(0)


def test_a_trial_without_a_record_is_refused(tune):
    def space(trial):
        trial.suggest_float("lr", 0.1, 0.2)
        raise optuna.TrialPruned("of no interest")

    optimizer = tune(search_space=space, baseline=False, n_trials=1)
    study = optimizer.optimize()
    with pytest.raises(NoResultError, match="no config was recorded.*: of no interest"):
        optimizer.replay(0)
    study.ask()
    with pytest.raises(NoResultError, match="Trial 1 has not ended yet: it is running"):
        optimizer.replay(1)


def test_a_trial_that_was_cut_short_before_its_first_value_is_refused(tune):
    class Interrupted(Changing):
        def training_step(self, batch, batch_idx):
            raise KeyboardInterrupt

    optimizer = tune(model_class=Interrupted, n_trials=1)
    with pytest.raises(KeyboardInterrupt):
        optimizer.optimize()
    assert optimizer.results().trials[0].reason == StopReason.INTERRUPTED.value
    with pytest.raises(NoResultError, match="Trial 0 has no values to compare with: interrupted by Ctrl-C"):
        optimizer.replay(0)


def test_a_config_that_is_not_the_trials_is_refused(tune):
    optimizer = tune(n_trials=1)
    optimizer.optimize()
    config = optimizer.directory / "trials/0000/config.yaml"
    config.write_text(config.read_text().replace("lr: 0.1", "lr: 0.2"))
    with pytest.raises(InvalidConfigError, match="is not the config that trial 0 was trained with"):
        optimizer.replay(0)
    config.unlink()
    with pytest.raises(InvalidConfigError):
        optimizer.replay(0)


@pytest.mark.parametrize("isolate", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_class_that_takes_other_arguments_is_refused(tune, isolate):
    class Edited(Line):
        __qualname__ = Changing.__qualname__

    base = {"trainer": {"max_epochs": 1, "accelerator": "cpu"}, "model": {"note": "x"}}
    tune(base_config=base, isolate=isolate, n_trials=1).optimize()
    with pytest.raises(TrialError, match=r"Trial 0 cannot be trained with the classes.* as they are now: .*note"):
        tune(model_class=Edited, isolate=isolate).replay(0)


def test_other_arguments_of_the_class_and_another_size_are_named(tune):
    tune(n_trials=1).optimize()
    found = tune(model_class=functools.partial(Changing, width=8)).replay(0)
    assert (found.agreement, found.parts_at) == (Agreement.DIFFERENT, 0)
    named = {difference.name: (difference.recorded, difference.now) for difference in found.differences}
    assert named["parameters"] == ("17", "33")
    assert named["model_class"][1].endswith("Changing'>, width=8)")


@pytest.mark.parametrize("tolerance", [-1, 1, "x", True, None, float("nan")])
def test_a_tolerance_is_a_share(tune, tolerance):
    with pytest.raises(ConfigurationError, match="tolerance must be a number from 0 and below 1"):
        tune().replay(0, tolerance=tolerance)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_trial_that_was_killed_goes_on_at_once_and_is_the_same_when_nothing_kills_it(tune, tmp_path):
    base = {"trainer": {"max_epochs": 6, "accelerator": "cpu"}, "model": {"mark": str(tmp_path / "mark")}}
    optimizer = tune(model_class=DiesOnce, base_config=base, isolate=True)
    study = optimizer.optimize()
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    killed, went_on = optimizer.replay(0, tolerance=0.0), optimizer.replay(1, tolerance=0.0)
    assert (killed.agreement, [*killed.replayed.curve]) == (Agreement.IDENTICAL, [0, 1, 2])
    assert (went_on.agreement, [*went_on.replayed.curve]) == (Agreement.IDENTICAL, [*range(6)])
    results = optimizer.results()
    assert (results.counts, results.trials[0].continued_by, results.baseline.number) == ({"complete": 2}, 1, 1)
    assert not list(optimizer.directory.glob("trials/*/last.ckpt"))
    facts = [trial.facts for trial in results.trials]
    assert (facts[0].parameters, facts[1].parameters) == (None, 17), "what was killed could tell nothing"
    assert results.trials[0].provenance is not None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="its processes are forked")
def test_a_trial_of_several_processes_is_trained_by_as_many(tune):
    base = {"trainer": {"max_epochs": 2, "accelerator": "cpu", "devices": 2, "strategy": "ddp"}}
    optimizer = tune(base_config=base, n_trials=1)
    optimizer.optimize()
    found = optimizer.replay(0, tolerance=0.0)
    assert found.agreement is Agreement.IDENTICAL
    assert optimizer.results().trials[0].facts.ranks == 2
    assert {difference.name for difference in found.differences} <= {"commit"}
