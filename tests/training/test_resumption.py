"""A trial that was killed goes on from what it has left in its folder, and ends as if it had not been killed."""

import functools
import itertools
import random
import shutil

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateFinder
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightningtune.config.schema import Schema
from lightningtune.contract import Objective, Stop, StopReason, TrialSpec
from lightningtune.training.build import Blueprint
from lightningtune.training.resumption import STATE, digest_training, find_resume_point
from lightningtune.training.run import train

LOSS = Objective(("val_loss",), ("min",))


class Learner(L.LightningModule):
    """Everything it does depends on random state: initial weights, dropout, noise from NumPy and from Python."""

    def __init__(self, scheduler: str = "step"):
        super().__init__()
        self.save_hyperparameters()
        self.scheduler = scheduler
        self.net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))

    def training_step(self, batch, batch_idx):
        noise = np.random.rand() + random.random()
        loss = (self.net(batch[0]) - batch[0].sum(dim=1, keepdim=True) - noise).pow(2).mean()
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        loss = (self.net(batch[0]) - 1.0).pow(2).mean()
        self.log("val_loss", loss)

    def on_validation_epoch_end(self):
        self.log("turns", float(abs(self.current_epoch - 3)))  # best at epoch 3
        self.log("held", 1.0)
        if self.current_epoch % 2:
            self.log("odd", self.net[0].weight.sum())
        if self.current_epoch == 0:
            self.log("mixed", self.net[0].weight.sum())

    def on_train_epoch_end(self):
        if self.current_epoch == 0:
            self.log("held", 1.0)
        if self.current_epoch in (1, 4, 5):
            self.log("odd_in_training", self.net[0].weight.sum())
        if self.current_epoch != 2:  # new to the validation of the next epoch
            self.log("mixed", self.net[0].weight.sum())

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
        if self.scheduler == "plateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "held"}}
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)]


def samples():
    return TensorDataset(torch.linspace(-1, 1, 36).reshape(18, 2))


class Data(L.LightningDataModule):
    def __init__(self, batch_size: int = 4, own_generator: bool = False):
        super().__init__()
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(3) if own_generator else None

    def train_dataloader(self):
        return DataLoader(samples(), self.batch_size, shuffle=True, generator=self.generator)

    def val_dataloader(self):
        return DataLoader(samples(), 9)


class PositionLoader(DataLoader):
    """Goes on in the middle of an epoch."""

    def __init__(self):
        self.seed, self.position = 0, 0
        super().__init__(samples(), 3)

    def __iter__(self):
        order = torch.randperm(18, generator=torch.Generator().manual_seed(self.seed)).split(3)
        if self.position == len(order):  # nobody asks for more than there is
            self.seed, self.position = self.seed + 1, 0
            order = torch.randperm(18, generator=torch.Generator().manual_seed(self.seed)).split(3)
        for batch in order[self.position :]:
            self.position += 1
            yield [samples().tensors[0][batch]]

    def state_dict(self):
        return {"seed": self.seed, "position": self.position}

    def load_state_dict(self, state):
        self.seed, self.position = state["seed"], state["position"]


class Positioned(Data):
    def train_dataloader(self):
        return PositionLoader()


class Collect:
    """A reporter that keeps what it is told, and what the folder holds when it is told, as if killed then.

    What it is told before the first batch is what was told before the checkpoint.
    """

    def __init__(self, folder=None, stop=None):
        self.again, self.told, self.folder, self.stop, self.has_begun = {}, {}, folder, stop, False

    def report(self, values, step):
        assert step > max({**self.again, **self.told}, default=-1)
        if not self.has_begun:
            self.again[step] = values
            return None
        self.told[step] = values
        if self.folder is not None:
            shutil.copytree(self.folder, self.folder.parent / f"killed_at_{step}")
        return self.stop if self.stop and step == 1 else None

    def notice(self, text): ...


class Final(L.Callback):
    """Keeps what training has come to, and tells a reporter that it has begun."""

    def __init__(self, reporter):
        self.reporter = reporter

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.reporter.has_begun = True

    def on_train_end(self, trainer, pl_module):
        self.weights = {name: value.clone() for name, value in pl_module.state_dict().items()}
        self.optimizer = trainer.optimizers[0].state_dict()["param_groups"][0]["lr"]
        self.counts = trainer.global_step, trainer.current_epoch
        self.loops = trainer.fit_loop.epoch_loop.state_dict()


def hasty():
    """Return a clock by which so much time passes that each validation is saved."""
    ticks = itertools.count(step=31.0)
    return lambda: next(ticks)


def run(
    folder,
    reporter,
    checkpoint=None,
    model=None,
    data=None,
    objective=LOSS,
    callbacks=(),
    data_class=Data,
    clock=None,
    **given,
):
    """Train a trial in a folder of its own; return its outcome and what it has come to."""
    folder.mkdir(exist_ok=True)
    trainer = {"max_epochs": 6, "accelerator": "cpu", "log_every_n_steps": 1, **given}
    config = {"seed_everything": 5, "model": model or {}, "data": data or {}, "trainer": trainer}
    final = Final(reporter)
    spec = TrialSpec(0, config, folder, objective, (*callbacks, final), checkpoint=checkpoint)
    blueprint = Blueprint(Schema(Learner, data_class, L.Trainer), config)
    return train(spec, blueprint, reporter, clock=clock or hasty()), final


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


CASES = {
    "every epoch": {},
    "every second epoch": {"check_val_every_n_epoch": 2},
    "accumulated": {"accumulate_grad_batches": 3},
    "steps": {"max_steps": 28, "max_epochs": -1},
    "steps and epochs": {"max_steps": 28},
    "plateau": {"model": {"scheduler": "plateau"}},
    "plateau, every second epoch": {"model": {"scheduler": "plateau"}, "check_val_every_n_epoch": 2},
    "own generator": {"data": {"own_generator": True}},
    "last": {"objective": Objective(("val_loss",), ("min",), "last")},
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


@pytest.mark.parametrize("step", [1.0, 7.0])
@pytest.mark.parametrize("metric", ["val_loss", "turns", "last"])
def test_a_best_validation_that_was_only_held_in_memory_is_found_again(tmp_path, step, metric):
    objective = Objective(("val_loss",), ("min",), "last") if metric == "last" else Objective((metric,), ("min",))

    def clock():
        return functools.partial(next, itertools.count(step=step))

    whole = Collect(tmp_path / "whole")
    outcome, final = run(tmp_path / "whole", whole, objective=objective, clock=clock(), max_epochs=9)
    begun = []
    for killed in (1, 4, 6, 8):
        folder, rest = tmp_path / f"killed_at_{killed}", Collect()
        resumed, come_to = run(folder, rest, folder / "last.ckpt", objective=objective, clock=clock(), max_epochs=9)
        begun.append(min(rest.told))
        assert rest.again | rest.told == whole.told
        assert resumed.score == outcome.score
        assert same(come_to.weights, final.weights)
        best = [torch.load(one.checkpoint, weights_only=True) for one in (outcome, resumed)]
        assert same(best[0]["state_dict"], best[1]["state_dict"])
        assert best[0]["epoch"] == best[1]["epoch"]
    assert begun != [1, 4, 6, 8], "not each validation was written"


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


@pytest.mark.parametrize("reason", [StopReason.INTERRUPTED, StopReason.TIMED_OUT])
@pytest.mark.parametrize("given", [{}, {"val_check_interval": 0.5, "data_class": Positioned}])
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


def test_a_trial_that_has_come_further_than_it_may_now_starts_afresh_and_says_so(left, tmp_path, caplog):
    folder, rest = shutil.copytree(left, tmp_path / "trial"), Collect()
    run(folder, rest, folder / "last.ckpt", objective=LOW, max_epochs=2)
    assert [*rest.told] == [0, 1]
    assert "has come further than the trainer's limits are now: the trial starts afresh." in caplog.text


def test_the_best_of_before_stays_the_best_in_another_folder(tmp_path):
    low = Objective(("turns",), ("min",))
    run(tmp_path / "whole", Collect(tmp_path / "whole"), objective=low)
    best = torch.load(tmp_path / "killed_at_5/best.ckpt", weights_only=True)
    resumed, _ = run(tmp_path / "new", Collect(), tmp_path / "killed_at_5/last.ckpt", objective=low)
    assert resumed.score == (0.0,)
    assert resumed.checkpoint == tmp_path / "new/best.ckpt"
    assert same(torch.load(resumed.checkpoint, weights_only=True)["state_dict"], best["state_dict"])
    assert (tmp_path / "killed_at_5/last.ckpt").exists(), "what is another trial's is left alone"


# --- what cannot be gone on from ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """The folder of a trial that was killed at step 5; its best was step 3, so its two checkpoints differ."""
    folder = tmp_path_factory.mktemp("left")
    run(folder / "whole", Collect(folder / "whole"), objective=LOW)
    return folder / "killed_at_5"


LOW = Objective(("turns",), ("min",))


OURS = {"seed_everything": 5, "model": {}, "data": {}, "trainer": {"accelerator": "cpu", "log_every_n_steps": 1}}


def start_of(path, objective=LOW, config=None):
    return find_resume_point(path, objective, digest_training(config or OURS))


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def garble(path):
    content = path.read_bytes()
    weights = torch.load(path, weights_only=True)["state_dict"]["net.0.weight"].numpy().tobytes()
    at = content.index(weights)
    path.write_bytes(content[:at] + bytes(len(weights)) + content[at + len(weights) :])


def without(key):
    def take(path):
        content = torch.load(path, weights_only=True)
        del content[key]
        torch.save(content, path)

    return take


def text(path):
    path.write_text("not a checkpoint")


def archive(path):
    import zipfile

    with zipfile.ZipFile(path, "w") as file:
        file.writestr("hello.txt", "hello")


def of_other_metrics(path):
    content = torch.load(path, weights_only=True)
    content[STATE]["monitor"] = ("val_acc",)
    torch.save(content, path)


def of_another_trial(path):
    content = torch.load(path, weights_only=True)
    content[STATE]["training"] = digest_training({**OURS, "seed_everything": 6})
    torch.save(content, path)


def of_another_version(path):
    content = torch.load(path, weights_only=True)
    content[STATE]["unheard_of"] = 1
    torch.save(content, path)


DAMAGES = [
    cut,
    empty,
    garble,
    without("optimizer_states"),
    without(STATE),
    text,
    archive,
    of_other_metrics,
    of_another_trial,
    of_another_version,
    lambda path: path.unlink(),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_torn_or_foreign_checkpoint_gives_way_to_the_one_before_it(left, tmp_path, damage):
    folder = shutil.copytree(left, tmp_path / "trial")
    assert start_of(folder / "last.ckpt").checkpoint.name == "last.ckpt"
    damage(folder / "last.ckpt")
    assert start_of(folder / "last.ckpt").checkpoint.name == "best.ckpt"
    rest = Collect()
    outcome, _ = run(folder, rest, folder / "last.ckpt", objective=LOW)
    assert [*rest.told] == [4, 5]
    assert outcome.score == (0.0,)


@pytest.mark.parametrize("damage", DAMAGES)
def test_without_its_best_checkpoint_a_trial_starts_afresh(left, tmp_path, damage):
    folder = shutil.copytree(left, tmp_path / "trial")
    damage(folder / "best.ckpt")
    assert start_of(folder / "last.ckpt") is None
    rest = Collect()
    outcome, _ = run(folder, rest, folder / "last.ckpt", objective=LOW)
    assert [*rest.told] == [0, 1, 2, 3, 4, 5]
    assert torch.load(outcome.checkpoint, weights_only=True)["epoch"] == 3


def test_a_best_checkpoint_of_another_time_is_not_taken_for_the_best(left, tmp_path):
    folder = shutil.copytree(left, tmp_path / "trial")
    shutil.copyfile(left.parent / "killed_at_2/best.ckpt", folder / "best.ckpt")
    assert start_of(folder / "last.ckpt") is None


def test_nothing_of_before_passes_for_a_result_where_a_trial_starts_afresh(left, tmp_path):
    folder = shutil.copytree(left, tmp_path / "trial")
    (folder / "best.ckpt").unlink()
    (folder / "last.ckpt").write_bytes(b"")
    outcome, _ = run(folder, Collect(), folder / "last.ckpt", objective=LOW, fast_dev_run=False, max_epochs=1)
    assert outcome.checkpoint is not None
    assert torch.load(outcome.checkpoint, weights_only=True)["epoch"] == 0


class Taste:
    """An object that no checkpoint with weights only can hold."""

    def __eq__(self, other):
        return isinstance(other, Taste)


def test_hyperparameters_that_have_to_be_unpickled_are(tmp_path):
    class Odd(Learner):
        def __init__(self):
            super().__init__()
            self.hparams.taste = Taste()

    def fit(folder, reporter, checkpoint=None):
        config = {"seed_everything": 5, "trainer": {"max_epochs": 3, "accelerator": "cpu"}}
        spec = TrialSpec(0, config, folder, LOSS, (Final(reporter),), checkpoint=checkpoint)
        return train(spec, Blueprint(Schema(Odd, Data, L.Trainer), config), reporter, clock=hasty())

    whole, rest = Collect(tmp_path / "whole"), Collect()
    odd = {"seed_everything": 5, "trainer": {"accelerator": "cpu"}}
    (tmp_path / "whole").mkdir()
    fit(tmp_path / "whole", whole)
    assert not start_of(tmp_path / "killed_at_1/last.ckpt", LOSS, odd).weights_only
    outcome = fit(tmp_path / "killed_at_1", rest, tmp_path / "killed_at_1/last.ckpt")
    assert outcome.reason is StopReason.COMPLETED, outcome.traceback
    assert rest.told == {step: whole.told[step] for step in (1, 2)}


@pytest.mark.filterwarnings("ignore::UserWarning")  # so few steps are no search
def test_a_fit_that_searches_for_a_learning_rate_first_starts_afresh(left, tmp_path, monkeypatch):
    monkeypatch.setattr(Learner, "lr", 0.05, raising=False)
    folder, rest = shutil.copytree(left, tmp_path / "trial"), Collect()
    finder = LearningRateFinder(num_training_steps=3)
    outcome, final = run(folder, rest, folder / "last.ckpt", objective=LOW, callbacks=[finder], max_epochs=2)
    assert outcome.reason is StopReason.COMPLETED, outcome
    assert [*rest.told] == [0, 1]
    assert final.counts[1] == 2


def test_a_fit_that_would_begin_elsewhere_than_the_checkpoint_fails(left, tmp_path):
    class Forgets(L.Callback):
        def on_fit_start(self, trainer, pl_module):
            trainer.save_checkpoint(tmp_path / "other.ckpt")
            trainer._checkpoint_connector.restore(tmp_path / "other.ckpt")

    folder, rest = shutil.copytree(left, tmp_path / "trial"), Collect()
    outcome, _ = run(folder, rest, folder / "last.ckpt", objective=LOW, callbacks=[Forgets()])
    assert outcome.reason is StopReason.FAILED
    assert "it is at step 25, and the fit would begin at step 0" in outcome.detail
    assert not rest.told


def test_weights_only_suffices_for_what_the_library_writes(left):
    assert start_of(left / "last.ckpt").weights_only
