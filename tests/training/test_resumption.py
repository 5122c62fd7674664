"""Which checkpoints a trial can go on from: whole ones of its own training."""

import pickle
import shutil
import zipfile

import lightning as L
import pytest
import torch
from cut_short import LOSS, Collect, Data, Final, Learner, hasty, run
from lightning.pytorch.callbacks import LearningRateFinder
from nets import Line, Sees

from lightningtune import TrialError
from lightningtune.config.schema import Schema
from lightningtune.contract import Objective, StopReason, TrialSpec
from lightningtune.files import check_sums
from lightningtune.training.build import Blueprint
from lightningtune.training.resumption import STATE, digest_training, find_resume_point, read_checkpoint
from lightningtune.training.run import train

LOW = Objective(("turns",), ("min",))
CONFIG = {"seed_everything": 1, "model": {"lr": 0.1}, "trainer": {"max_epochs": 3}}


def content(**more):
    kept = {"training": digest_training(CONFIG), "history": [(0.5,), (0.25,)]}
    return {"state_dict": Line().state_dict(), STATE: kept, **more}


def touches(path):
    return Sees(f"__import__('pathlib').Path({str(path)!r}).touch()")


@pytest.fixture
def path(tmp_path):
    torch.save(content(), tmp_path / "best.ckpt")
    return tmp_path / "best.ckpt"


def test_nothing_is_unpickled_where_weights_suffice(path):
    loaded, weights_only = read_checkpoint(path)
    assert (weights_only, loaded[STATE]["history"]) == (True, [(0.5,), (0.25,)])


def test_objects_are_unpickled_from_a_file_that_is_whole(path, tmp_path):
    torch.save(content(taste=touches(tmp_path / "seen")), path)
    assert not read_checkpoint(path)[1]
    assert (tmp_path / "seen").exists()


def test_a_file_that_is_no_checkpoint_is_not_unpickled(path, tmp_path):
    path.write_bytes(pickle.dumps(touches(tmp_path / "seen")))
    with pytest.raises(TrialError, match=f"The checkpoint '{path}' is not whole, or is none: BadZipFile"):
        read_checkpoint(path)
    assert not (tmp_path / "seen").exists()


def test_each_byte_of_the_weights_counts(path):
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        place = next(entry for entry in archive.infolist() if entry.filename.endswith("data/0"))
    name = place.filename.encode()
    data[data.index(name) + len(name) + 80] ^= 1
    path.write_bytes(data)
    with pytest.raises(TrialError, match=f"The checkpoint '{path}' is not whole"):
        read_checkpoint(path)


def test_a_file_that_holds_something_else_or_is_missing_is_named(path):
    torch.save([1, 2], path)
    with pytest.raises(TrialError, match=f"The checkpoint '{path}' is not whole, or .* it holds a list"):
        read_checkpoint(path)
    path.unlink()
    with pytest.raises(TrialError, match="No such file"):
        read_checkpoint(path)


def test_a_file_that_was_written_without_sums_is_read(path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(content(), path)
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(path) as archive:
        assert {entry.CRC for entry in archive.infolist()} == {0}
    check_sums(path)
    assert read_checkpoint(path)[1]


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """The folder of a trial that was killed at step 5; its best was step 3, so its two checkpoints differ."""
    folder = tmp_path_factory.mktemp("left")
    run(folder / "whole", Collect(folder / "whole"), objective=LOW)
    return folder / "killed_at_5"


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


def test_a_trial_goes_on_from_its_best_checkpoint_where_the_last_is_torn(left, tmp_path):
    folder, rest = shutil.copytree(left, tmp_path / "trial"), Collect()
    cut(folder / "last.ckpt")
    outcome, _ = run(folder, rest, folder / "last.ckpt", objective=LOW)
    assert [*rest.told] == [4, 5]
    assert outcome.score == (0.0,)


@pytest.mark.parametrize("damage", DAMAGES)
def test_without_its_best_checkpoint_a_trial_starts_afresh(left, tmp_path, damage):
    folder = shutil.copytree(left, tmp_path / "trial")
    damage(folder / "best.ckpt")
    assert start_of(folder / "last.ckpt") is None


def test_a_trial_starts_afresh_where_its_best_checkpoint_is_torn(left, tmp_path):
    folder, rest = shutil.copytree(left, tmp_path / "trial"), Collect()
    cut(folder / "best.ckpt")
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


def test_a_trial_that_has_come_further_than_it_may_now_starts_afresh_and_says_so(left, tmp_path, caplog):
    folder, rest = shutil.copytree(left, tmp_path / "trial"), Collect()
    run(folder, rest, folder / "last.ckpt", objective=LOW, max_epochs=2)
    assert [*rest.told] == [0, 1]
    assert "has come further than the trainer's limits are now: the trial starts afresh." in caplog.text
