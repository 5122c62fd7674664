"""A trial that was killed goes on from what it has left in its folder, and ends as if it had not been killed."""

import functools
import itertools
import shutil

import lightning as L
import pytest
import torch
from cut_short import LOSS, Collect, Positioned, run, same
from lightning.pytorch.callbacks import EarlyStopping

from lightningtune.contract import Objective, Stop, StopReason

CASES = {
    "every epoch": {},
    "last, every second epoch": {"objective": Objective(("val_loss",), ("min",), "last"), "check_val_every_n_epoch": 2},
    "accumulated, own generator": {"accumulate_grad_batches": 3, "data": {"own_generator": True}},
    "steps": {"max_steps": 28, "max_epochs": -1},
    "plateau": {"model": {"scheduler": "plateau"}},
    "plateau, every second epoch": {"model": {"scheduler": "plateau"}, "check_val_every_n_epoch": 2},
    "of training": {"objective": Objective(("train_loss",), ("min",))},
    "of training alone": {"objective": Objective(("train_loss",), ("min",)), "limit_val_batches": 0},
    "of some validations": {"objective": Objective(("odd",), ("min",))},
    "of some validations, and the last": {"objective": Objective(("odd",), ("min",), "last")},
    "of some epochs of training": {"objective": Objective(("odd_in_training",), ("min",))},
    "of validation and training": {"objective": Objective(("mixed",), ("min",))},
    "two metrics": {"objective": Objective(("turns", "val_loss"), ("min", "min"))},
    "in the middle, where the loader can": {"val_check_interval": 0.5, "data_class": Positioned},
}


@pytest.mark.parametrize("case", CASES)
def test_a_trial_that_is_killed_at_any_validation_ends_as_if_it_had_not_been(tmp_path, case):
    whole = Collect(tmp_path / "whole")
    outcome, final = run(tmp_path / "whole", whole, **CASES[case])
    assert outcome.reason is StopReason.COMPLETED, outcome
    assert len(whole.told) >= 2
    steps, count = [*whole.told], len(whole.told)
    for killed in range(1, count) if case == "every epoch" else {1, min(count // 2 + 1, count - 1), count - 1}:
        folder = tmp_path / f"killed_at_{steps[killed]}"
        rest = Collect()
        resumed, come_to = run(folder, rest, folder / "last.ckpt", **CASES[case])
        assert rest.told == {step: whole.told[step] for step in steps[killed:]}, killed
        assert rest.again | rest.told == whole.told
        assert resumed.score == outcome.score
        assert same(come_to.weights, final.weights)
        assert (come_to.optimizer, come_to.counts, come_to.loops) == (final.optimizer, final.counts, final.loops)
        best = [torch.load(one.checkpoint, weights_only=True) for one in (outcome, resumed)]
        assert same(best[0]["state_dict"], best[1]["state_dict"])
        assert best[0]["epoch"] == best[1]["epoch"]


@pytest.mark.parametrize(
    "objective", [LOSS, Objective(("val_loss",), ("max",)), Objective(("val_loss",), ("min",), "last")]
)
def test_a_trial_that_had_nothing_left_to_train_reports_all_the_same(tmp_path, objective):
    """It was killed when it had trained, and before the study knew."""
    whole, rest = Collect(), Collect()
    outcome, _ = run(tmp_path / "trial", whole, objective=objective)
    resumed, _ = run(tmp_path / "new", rest, tmp_path / "trial/last.ckpt", objective=objective)
    assert rest.again | rest.told == whole.told
    assert resumed.score == outcome.score
    assert resumed.reason is StopReason.COMPLETED
    weights = [torch.load(one.checkpoint, weights_only=True)["state_dict"] for one in (outcome, resumed)]
    assert same(*weights)


@pytest.mark.parametrize(("metric", "step"), [("val_loss", 7.0), ("turns", 1.0), ("last", 7.0)])
def test_a_best_validation_that_was_only_held_in_memory_is_found_again(tmp_path, metric, step):
    objective = Objective(("val_loss",), ("min",), "last") if metric == "last" else Objective((metric,), ("min",))

    def clock():
        return functools.partial(next, itertools.count(step=step))

    whole = Collect(tmp_path / "whole")
    outcome, final = run(tmp_path / "whole", whole, objective=objective, clock=clock(), max_epochs=9)
    begun = []
    for killed in (1, 4, 8):
        folder, rest = tmp_path / f"killed_at_{killed}", Collect()
        resumed, come_to = run(folder, rest, folder / "last.ckpt", objective=objective, clock=clock(), max_epochs=9)
        begun.append(min(rest.told))
        assert rest.again | rest.told == whole.told
        assert resumed.score == outcome.score
        assert same(come_to.weights, final.weights)
        best = [torch.load(one.checkpoint, weights_only=True) for one in (outcome, resumed)]
        assert same(best[0]["state_dict"], best[1]["state_dict"])
        assert best[0]["epoch"] == best[1]["epoch"]
    assert begun != [1, 4, 8], "not each validation was written"


def test_a_trial_may_be_killed_again_and_again(tmp_path):
    whole = Collect()
    outcome, final = run(tmp_path / "whole", whole)
    folder, told = tmp_path / "part_0", {}
    run(folder, Collect(folder))
    for killed in (1, 2, 3, 4):
        previous, folder = tmp_path / f"killed_at_{killed}", tmp_path / f"go_on_{killed}" / "part"
        folder.parent.mkdir()
        reporter = Collect(folder)
        resumed, come_to = run(folder, reporter, previous / "last.ckpt")
        told[killed] = reporter.told
        shutil.rmtree(tmp_path / f"killed_at_{killed + 1}")
        shutil.move(folder.parent / f"killed_at_{killed + 1}", tmp_path)
    assert told[4] == {step: whole.told[step] for step in (4, 5)}
    assert same(come_to.weights, final.weights)
    assert resumed.score == outcome.score


def test_patience_goes_on(tmp_path):
    def stopper():
        return EarlyStopping("turns", patience=2, mode="min")

    whole = Collect(tmp_path / "whole")
    run(tmp_path / "whole", whole, max_epochs=50, callbacks=[stopper()])
    assert len(whole.told) == 6
    for killed in (2, 5):
        folder, rest = tmp_path / f"killed_at_{killed}", Collect()
        run(folder, rest, folder / "last.ckpt", max_epochs=50, callbacks=[stopper()])
        assert rest.told == {step: whole.told[step] for step in range(killed, 6)}


def test_a_trial_that_was_killed_when_it_had_ended_by_itself_trains_no_further(tmp_path):
    """Its last validation was its best, so ``best.ckpt`` is the newest there is."""

    class Keep(L.Callback):
        def on_fit_end(self, trainer, pl_module):
            shutil.copytree(tmp_path / "whole", tmp_path / "killed")

    def callbacks():
        return [EarlyStopping("turns", mode="max", patience=50, stopping_threshold=5.0), Keep()]

    up = Objective(("turns",), ("max",))
    outcome, _ = run(tmp_path / "whole", Collect(), objective=up, max_epochs=50, callbacks=callbacks())
    assert outcome.score == (6.0,)
    rest = Collect()
    resumed, _ = run(
        tmp_path / "killed",
        rest,
        tmp_path / "killed/last.ckpt",
        objective=up,
        max_epochs=50,
        callbacks=callbacks()[:1],
    )
    assert (rest.told, resumed.score, resumed.reason) == ({}, outcome.score, outcome.reason)


def test_in_the_middle_of_an_epoch_no_step_is_lost_and_what_follows_can_be_repeated(tmp_path):
    whole = Collect(tmp_path / "whole")
    run(tmp_path / "whole", whole, val_check_interval=0.5)
    parts = []
    for name in ("one", "other"):
        parts.append(Collect())
        run(tmp_path / name, parts[-1], tmp_path / "killed_at_3/last.ckpt", val_check_interval=0.5)
        assert [*parts[-1].told] == [*range(3, len(whole.told))]
    assert parts[0].told == parts[1].told


@pytest.mark.parametrize(
    ("reason", "given"),
    [(StopReason.INTERRUPTED, {}), (StopReason.TIMED_OUT, {"val_check_interval": 0.5, "data_class": Positioned})],
)
def test_a_trial_that_is_stopped_from_outside_goes_on_from_its_last_validation(tmp_path, reason, given):
    whole, part, rest = Collect(), Collect(stop=Stop(reason, "for now")), Collect()
    outcome, final = run(tmp_path / "whole", whole, **given)
    stopped, _ = run(tmp_path / "trial", part, **given)
    assert (stopped.reason, [*part.told]) == (reason, [0, 1])
    resumed, come_to = run(tmp_path / "trial", rest, tmp_path / "trial/last.ckpt", **given)
    assert part.told | rest.told == whole.told
    assert min(rest.told) == 2
    assert same(come_to.weights, final.weights)
    assert resumed.score == outcome.score


def test_a_wider_budget_applies_to_what_follows(tmp_path):
    whole, rest = Collect(), Collect()
    run(tmp_path / "whole", whole)
    run(tmp_path / "trial", Collect(stop=Stop(StopReason.INTERRUPTED, "for now")), max_epochs=3)
    run(tmp_path / "trial", rest, tmp_path / "trial/last.ckpt", max_epochs=6)
    assert rest.told == {step: whole.told[step] for step in range(2, 6)}


def test_the_best_of_before_stays_the_best_in_another_folder(tmp_path):
    low = Objective(("turns",), ("min",))
    run(tmp_path / "whole", Collect(tmp_path / "whole"), objective=low)
    best = torch.load(tmp_path / "killed_at_5/best.ckpt", weights_only=True)
    resumed, _ = run(tmp_path / "new", Collect(), tmp_path / "killed_at_5/last.ckpt", objective=low)
    assert resumed.score == (0.0,)
    assert resumed.checkpoint == tmp_path / "new/best.ckpt"
    assert same(torch.load(resumed.checkpoint, weights_only=True)["state_dict"], best["state_dict"])
    assert (tmp_path / "killed_at_5/last.ckpt").exists(), "what is another trial's is left alone"
