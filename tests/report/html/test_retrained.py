import pytest

from lightningtune.report.html.retrained import retrained
from lightningtune.study.directory import StudyDirectory

TABLE = "epoch,step,train_loss,val_acc\n0,3,0.5,\n0,3,,0.7\n1,7,,0.9\n2,11,,0.8\n"


@pytest.fixture
def directory(tmp_path):
    directory = StudyDirectory(tmp_path)
    for number, seed, text in ((7, 1, TABLE), (7, 2, TABLE.replace("0.9", "0.95")), (0, 1, TABLE)):
        folder = directory.refit(number, seed)
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text(text)
    return directory


def test_the_scores_of_refits_are_read_from_their_tables(directory):
    assert retrained(directory, "val_acc", "maximize") == {0: [0.9], 7: [0.9, 0.95]}
    assert retrained(directory, "val_acc", "minimize") == {0: [0.7], 7: [0.7, 0.7]}
    assert retrained(directory, "val_acc", "maximize", "last") == {0: [0.8], 7: [0.8, 0.8]}


def test_what_cannot_be_read_is_left_out(directory):
    assert retrained(directory, "val_loss", "minimize") == {}
    assert retrained(directory, "val_acc", "maximize", "module.own_score") == {}
    (directory.refit(7, 1) / "metrics.csv").write_text("val_acc\nnothing\n")
    (directory.refit(7, 2) / "metrics.csv").unlink()
    (directory.root / "refit" / "no_seed_1").mkdir()
    assert retrained(directory, "val_acc", "maximize") == {0: [0.9]}
