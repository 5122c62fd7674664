import pytest
from nets import Line, Points

from lightningtune import OptunaDrivenOptimizer
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
        for config in (folder / "config.yaml", directory.config(number)):
            config.parent.mkdir(parents=True, exist_ok=True)
            config.write_text(f"{{seed_everything: {seed}, trainer: {{max_epochs: 3}}}}")
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
    (directory.refit(0, 2)).mkdir()
    (directory.refit(0, 2) / "metrics.csv").write_text(TABLE)
    assert retrained(directory, "val_acc", "maximize") == {0: [0.9]}


def test_a_training_that_was_longer_is_no_repetition(directory):
    for folder, seed, epochs in (
        (directory.trial(7), 5, 3),
        (directory.refit(7, 1), 1, 3),
        (directory.refit(7, 2), 2, 9),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(f"{{seed_everything: {seed}, trainer: {{max_epochs: {epochs}}}}}")
    assert retrained(directory, "val_acc", "maximize")[7] == [0.9]


@pytest.mark.slow
def test_refits_of_a_real_study_stand_in_its_report(tmp_path):
    optimizer = OptunaDrivenOptimizer(
        base_config={"trainer": {"max_epochs": 2, "accelerator": "cpu"}},
        search_space={"lr": ("uniform", 0.01, 0.1)},
        model_class=Line,
        datamodule_class=Points,
        n_trials=2,
        experiment_dir=tmp_path,
        verbose=False,
    )
    optimizer.optimize()
    scores = [refit.score[0] for refit in optimizer.refit(seeds=[1, 2])]
    number = optimizer.results().best.number
    found = retrained(StudyDirectory(optimizer.directory), "val_loss", "minimize")
    assert found == {number: pytest.approx(scores, rel=1e-6)}
    optimizer.optimize()
    assert f"Trained again with 2 seeds, trial {number} comes to" in (optimizer.directory / "report.html").read_text()
