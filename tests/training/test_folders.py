"""A folder of its own for each trial, in real fits."""

from pathlib import Path

import lightning as L
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from nets import Line, Points

from lightningtune.config.schema import Schema
from lightningtune.contract import Objective, SilentReporter, StopReason, TrialSpec
from lightningtune.training.build import Blueprint
from lightningtune.training.folders import own_folder
from lightningtune.training.run import train

LAST = Path("runs/mine/trials/0003/last.ckpt")


class Told(SilentReporter):
    def __init__(self):
        self.notices = []

    def notice(self, text):
        self.notices.append(text)


class Writes(L.Callback):
    """Writes to a folder that it makes when it is constructed, to a file, and reads from a third place."""

    def __init__(self, output_dir: str = "plots", save_path: str = "tables/best.csv", weights_path: str = "in.ckpt"):
        self.output_dir, self._save_path, self.weights_path = Path(output_dir), save_path, weights_path
        self.output_dir.mkdir(exist_ok=True)
        self.filename = "plot.txt"

    def setup(self, trainer, pl_module, stage):
        Path(self._save_path).parent.mkdir(parents=True)

    def on_train_end(self, trainer, pl_module):
        (self.output_dir / self.filename).touch()
        Path(self._save_path).touch()
        assert self.weights_path == "in.ckpt"


class WritesTable(L.Callback):
    """Writes a file to a folder that must exist, as most scripts do."""

    def __init__(self):
        self.log_file = "table.csv"

    def on_train_end(self, trainer, pl_module):
        Path(self.log_file).write_text("value")


class ModelOfItsOwn(Line):
    def configure_callbacks(self):
        return [ModelCheckpoint("of_model", "kept")]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(directory="runs/mine/trials/0003", own=(), model=Line, checkpoint=None, **trainer):
    config = {"seed_everything": 1, "trainer": {"accelerator": "cpu", "max_epochs": 1, "logger": False, **trainer}}
    Path(directory).mkdir(parents=True)
    spec = TrialSpec(0, config, Path(directory), Objective(("val_loss",), ("min",)), tuple(own), checkpoint=checkpoint)
    reporter = Told()
    outcome = train(spec, Blueprint(Schema(model, Points, L.Trainer), config), reporter)
    assert outcome.reason is StopReason.COMPLETED, outcome
    return reporter.notices


def files(*folders):
    return [str(path) for folder in folders for path in sorted(Path(folder).rglob("*")) if path.is_file()]


@pytest.mark.parametrize(
    ("directory", "place"), [("runs/mine/trials/0003", "mine/0003"), ("runs/mine/replay/0003", "mine/replay/0003")]
)
def test_what_callbacks_write_to_one_place_goes_to_a_folder_for_each_training(directory, place):
    absolute = ModelCheckpoint(filename=str(Path("absolute/best").absolute()), monitor="size")
    notices = run(directory, [Writes(), ModelCheckpoint("ckpts", "best"), absolute])
    assert files("plots", "tables", "ckpts", "absolute") == [
        f"plots/{place}/plot.txt",
        f"tables/{place}/best.csv",
        f"ckpts/{place}/best.ckpt",
        f"absolute/best/{place}.ckpt",
    ]
    rest = "in all trials: each writes to a folder of its own there, named by study and trial."
    assert notices[:3] == [
        f"Writes has output_dir='plots' {rest}",
        f"Writes has save_path='tables/best.csv' {rest}",
        f"ModelCheckpoint has dirpath='{Path('ckpts').absolute()}' {rest}",
    ]


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ({"callbacks": {"class_path": "ModelCheckpoint", "init_args": {"dirpath": "a", "filename": "b"}}}, "b.ckpt"),
        ({"profiler": {"class_path": "SimpleProfiler", "init_args": {"dirpath": "a", "filename": "b"}}}, "fit-b.txt"),
        ({"default_root_dir": "a", "enable_checkpointing": True}, "checkpoints/epoch=0-step=2.ckpt"),
    ],
)
def test_so_does_what_a_config_names(given, written):
    run(**given)
    assert files("a") == [f"a/mine/0003/{written}"]


def test_what_lightning_puts_into_the_trial_s_default_root_dir_stays_there():
    profiler = {"class_path": "SimpleProfiler", "init_args": {"filename": "p"}}
    assert run(default_root_dir="a", profiler=profiler) == []
    run("runs/mine/trials/0005", default_root_dir="a", profiler=profiler, checkpoint=LAST, max_epochs=2)
    assert files("a") == ["a/mine/0003/fit-p.txt", "a/mine/0005/fit-p.txt"]


def test_so_does_the_checkpoint_of_a_model_s_own_callback():
    run(model=ModelOfItsOwn)
    assert files("of_model") == ["of_model/mine/0003/kept.ckpt"]


def test_the_folder_of_a_file_exists_for_each_training_where_it_existed_before():
    run(own=[WritesTable()])
    assert files("mine") == ["mine/0003/table.csv"]


def test_what_is_in_the_trial_s_folder_stays_there():
    inside = "runs/mine/trials/0003/mine"
    assert run(own=[ModelCheckpoint(inside, "best")]) == []
    assert files(inside) == [f"{inside}/best.ckpt"]


@pytest.mark.parametrize("name", [{}, {"name": "exp"}])
def test_a_profiler_that_writes_nothing_is_not_told_of(name):
    """Lightning gives it the folder of the logger."""
    assert run(logger={"class_path": "CSVLogger", "init_args": {"save_dir": "logs", **name}}) == []


def test_a_trial_that_goes_on_goes_on_in_the_folder_of_the_one_before():
    """Its callback finds its state there: the best of both parts is kept."""
    kept = ModelCheckpoint("ckpts", "{epoch}", monitor="val_acc", mode="min")
    run(own=[kept], max_epochs=2)
    again = ModelCheckpoint("ckpts", "{epoch}", monitor="val_acc", mode="min")
    run("runs/mine/trials/0005", [again], checkpoint=LAST, max_epochs=3)
    assert files("ckpts") == ["ckpts/mine/0003/epoch=0.ckpt"]
    assert again.best_model_score == kept.best_model_score


def test_the_address_of_a_bucket_stays_one():
    assert own_folder("s3://bucket/runs/", Path("runs/mine/trials/0003")) == "s3://bucket/runs/mine/0003"
