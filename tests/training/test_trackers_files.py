"""``metrics.csv`` of a trial that goes on: as if it had not been broken off."""

import shutil

import lightning as L
import pytest
from nets import Line, Points

from lightningtune.config.schema import Schema
from lightningtune.contract import Objective, SilentReporter, TrialSpec
from lightningtune.training.build import Blueprint
from lightningtune.training.run import train


class Logs(Line):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if self.current_epoch >= 2:
            self.log("late", loss)  # a column that comes later
        self.log("train_loss", loss)
        return loss


class Copies(SilentReporter):
    def __init__(self, folder):
        self.folder, self.count = folder, 0

    def report(self, values, step):
        shutil.copytree(self.folder, self.folder.parent / f"killed_at_{step}")


def run(folder, reporter=None, checkpoint=None):
    folder.mkdir(exist_ok=True)
    config = {"seed_everything": 1, "trainer": {"accelerator": "cpu", "max_epochs": 4, "log_every_n_steps": 1}}
    spec = TrialSpec(0, config, folder, Objective(("val_loss",), ("min",)), checkpoint=checkpoint)
    train(spec, Blueprint(Schema(Logs, Points, L.Trainer), config), reporter or SilentReporter())
    return (folder / "metrics.csv").read_text()


@pytest.mark.parametrize("killed", [1, 2, 3])
@pytest.mark.parametrize("in_another_folder", [True, False])
def test_the_table_goes_on_where_the_checkpoint_was_written(tmp_path, killed, in_another_folder):
    whole = run(tmp_path / "whole", Copies(tmp_path / "whole"))
    old = tmp_path / f"killed_at_{killed}"
    with (old / "metrics.csv").open("a") as table:
        table.write("1.0,9999\r\n,,")  # of an epoch that is trained again; and a line that was cut
    new = tmp_path / "new" if in_another_folder else old
    assert run(new, checkpoint=old / "last.ckpt") == whole


def test_without_a_table_of_before_one_is_begun(tmp_path):
    run(tmp_path / "whole", Copies(tmp_path / "whole"))
    (tmp_path / "killed_at_1/metrics.csv").unlink()
    assert "val_loss" in run(tmp_path / "killed_at_1", checkpoint=tmp_path / "killed_at_1/last.ckpt")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"step,val_loss\n0,\x00,1,2\n", b"", b"step\n" + b"x" * 200_000])
def test_a_table_that_is_spoilt_does_not_hinder_the_trial(tmp_path, content):
    run(tmp_path / "whole", Copies(tmp_path / "whole"))
    (tmp_path / "killed_at_1/metrics.csv").write_bytes(content)
    table = run(tmp_path / "new", checkpoint=tmp_path / "killed_at_1/last.ckpt")
    assert "3" in table.splitlines()[-1]
