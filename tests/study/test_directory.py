import os
import zipfile

import pytest

from lightningtune.errors import ConfigurationError, InvalidConfigError
from lightningtune.study.directory import StudyDirectory


@pytest.fixture
def directory(tmp_path):
    return StudyDirectory.named(tmp_path, "s")


def trained(directory, number, weights=b"weights"):
    directory.begin(directory.trial(number), {"model": {"lr": number}})
    (directory.trial(number) / "best.ckpt").write_bytes(weights)


def test_nothing_is_created_by_naming(directory, tmp_path):
    assert directory.root == tmp_path / "s"
    assert not directory.root.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a:b", "a\0b", "a\nb"])
def test_a_name_that_is_no_folders_name_is_refused(tmp_path, name):
    with pytest.raises(ConfigurationError, match="study_name"):
        StudyDirectory.named(tmp_path, name)


def test_the_default_lies_beside_the_script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert StudyDirectory.named(None, "s").root == tmp_path / "lightningtune_runs" / "s"


def test_a_config_is_read_back(directory):
    config = {"model": {"lr": 1e-5, "layers": [1, 2], "act": None, "name": "ünï"}}
    directory.begin(directory.trial(3), config)
    assert directory.read_config(3) == config
    with pytest.raises(ConfigurationError, match="0004"):
        directory.read_config(4)


def test_the_winner_is_promoted_and_replaced(directory):
    trained(directory, 0, b"first")
    directory.promote(0)
    trained(directory, 1, b"second")
    directory.promote(1)
    assert directory.best_checkpoint.read_bytes() == b"second"
    assert directory.best_config.read_text() == (directory.trial(1) / "config.yaml").read_text()
    directory.drop_weights(1)
    assert directory.best_checkpoint.read_bytes() == b"second"


def test_a_winner_without_weights_leaves_no_foreign_ones(directory):
    trained(directory, 0)
    directory.promote(0)
    directory.begin(directory.trial(1), {})
    directory.promote(1)
    assert not directory.best_checkpoint.exists()


def test_a_file_system_without_hard_links_gets_copies(directory, monkeypatch):
    def refuse(*args, **options):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    trained(directory, 0, b"first")
    directory.promote(0)
    assert directory.best_checkpoint.read_bytes() == b"first"


def test_what_another_study_left_under_a_number_goes(directory):
    trained(directory, 1)
    directory.write_error(1, "long ago")
    directory.begin(directory.trial(1), {"model": {"lr": 2}})
    assert directory.checkpoint(1) is None
    assert [path.name for path in directory.trial(1).iterdir()] == ["config.yaml"]


def test_each_training_of_a_config_has_a_folder_of_its_own(directory):
    folders = {directory.refit(*which) for which in ((1, 1), (1, 2), (2, 1), (1, 1, 50), (1, 1, 9))}
    assert len(folders) == 5
    for folder in folders:
        folder.mkdir(parents=True)
    assert {*directory.belongings()} == folders


def test_every_checkpoint_of_a_trial_goes_sharded_ones_too(directory):
    trained(directory, 2)
    trained(directory, 3)
    (directory.trial(2) / "checkpoints" / "sharded.ckpt").mkdir(parents=True)
    (directory.trial(2) / "checkpoints" / "user.ckpt").touch()
    directory.drop_weights(2)
    assert [path.parent.name for path in directory.root.rglob("*.ckpt")] == ["0003"]
    assert directory.read_config(2) == {"model": {"lr": 2}}


# --- damage ---------------------------------------------------------------------------------------------------------


def test_a_config_that_has_been_changed_is_not_given_out(directory):
    trained(directory, 1)
    written = directory.sum_of_config(1)
    assert directory.read_config(1, written) == {"model": {"lr": 1}}
    directory.config(1).write_text("model:\n  lr: 2\n")
    with pytest.raises(InvalidConfigError, match=r"0001/config.yaml' is not the config that trial 1 was trained with"):
        directory.read_config(1, written)


def test_what_stands_in_the_way_of_a_new_training_goes(directory):
    for name in ("metrics.csv", "output.log", "error.txt", "best.ckpt"):
        (directory.trial(1) / name / "deeper").mkdir(parents=True)
    directory.begin(directory.trial(1), {})
    assert [path.name for path in directory.trial(1).iterdir()] == ["config.yaml"]


def test_a_checkpoint_that_is_torn_is_not_promoted(directory):
    trained(directory, 1, b"no archive")
    with pytest.raises(InvalidConfigError, match=r"0001/best.ckpt' is not as it was written"):
        directory.check_whole(1, None)
    with zipfile.ZipFile(directory.trial(1) / "whole", "w") as archive:
        archive.writestr("a", "b")
    (directory.trial(1) / "whole").replace(directory.trial(1) / "best.ckpt")
    directory.check_whole(1, None)


def test_a_winner_whose_checkpoint_is_damaged_under_both_its_names_is_noticed(directory):
    trained(directory, 1)
    best = directory.trial(1) / "best.ckpt"
    with zipfile.ZipFile(best, "w") as archive:
        archive.writestr("a", b"weights")
    directory.promote(1)
    assert best.samefile(directory.best_checkpoint)
    directory.check_whole(1, None)
    best.write_bytes(best.read_bytes().replace(b"weights", b"wrights"))
    assert best.samefile(directory.best_checkpoint)
    with pytest.raises(InvalidConfigError, match=r"0001/best.ckpt' is not as it was written: Bad CRC-32"):
        directory.check_whole(1, None)


def test_a_winner_whose_checkpoint_is_lost_keeps_the_copy(directory):
    trained(directory, 1)
    directory.promote(1)
    directory.drop_weights(1)
    directory.promote(1)
    assert directory.best_checkpoint.read_bytes() == b"weights"


def test_a_journal_that_was_lost_is_not_begun_again_over_the_trials(directory):
    directory.check_belongs(seed=1, trials=0)
    trained(directory, 1)
    directory.check_belongs(seed=1, trials=2)
    with pytest.raises(ConfigurationError, match=r"The journal '.*/journal.log' holds no trial, but '.*/trials' does"):
        directory.check_belongs(seed=1, trials=0)


def test_a_journal_of_another_study_is_noticed_by_its_seed(directory):
    directory.write_definition({"seed": 1})
    directory.check_belongs(seed=1, trials=2)
    with pytest.raises(ConfigurationError, match=r"study.yaml' is of a study with seed 1, but the journal .* seed 2"):
        directory.check_belongs(seed=2, trials=2)


def test_through_a_link_in_a_trials_place_nothing_is_removed_and_nothing_written(directory, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    for name in ("model.ckpt", "config.yaml", "metrics.csv"):
        (home / name).write_text("mine")
    (directory.root / "trials").mkdir(parents=True)
    directory.trial(7).symlink_to(home)
    directory.drop_weights(7)
    directory.begin(directory.trial(7), {"model": {"lr": 0.1}})
    assert {path.name: path.read_text() for path in home.iterdir()} == dict.fromkeys(
        ("model.ckpt", "config.yaml", "metrics.csv"), "mine"
    )
    assert directory.read_config(7) == {"model": {"lr": 0.1}}
