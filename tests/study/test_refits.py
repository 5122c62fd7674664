"""What more trainings of a trial come to, whatever logger they have."""

import json

import pytest
from nets import Line, Points

from lightningtune import OptunaDrivenOptimizer
from lightningtune.cli.main import main
from lightningtune.report.terminal import describe_refits
from lightningtune.study.directory import StudyDirectory
from lightningtune.study.results import keep_result, read_refits


class LogsByStep(Line):
    """Its column in a table is val_loss_epoch, and not val_loss."""

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.net(batch[0]).pow(2).mean(), on_step=True, on_epoch=True)


@pytest.fixture
def directory(tmp_path):
    directory = StudyDirectory(tmp_path)
    for number, seed, score, epochs in ((7, 1, 0.9, 3), (7, 2, 0.95, 3), (7, 3, 0.99, 9), (0, 1, 0.5, 3)):
        own = directory.refit(number, seed)
        for folder, seen in ((own, epochs), (directory.trial(number), 3)):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.yaml").write_text(f"{{seed_everything: {seed}, trainer: {{max_epochs: {seen}}}}}")
        keep_result(directory, number, seed, (score,), None, own)
    return directory


def test_results_are_read_back_and_a_longer_training_is_no_repetition(directory):
    found = [(refit.number, refit.seed, refit.score, refit.is_repetition) for refit in read_refits(directory)]
    assert found == [(0, 1, (0.5,), True), (7, 1, (0.9,), True), (7, 2, (0.95,), True), (7, 3, (0.99,), False)]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"number": 7, "seed": 1, "score": ["x"]}', "\x00"])
def test_a_result_that_cannot_be_read_is_left_out(directory, text):
    (directory.refit(7, 1) / "result.json").write_text(text)
    (directory.refit(7, 2) / "config.yaml").unlink()
    assert [(refit.seed, refit.is_repetition) for refit in read_refits(directory)] == [
        (1, True),
        (2, False),
        (3, False),
    ]


@pytest.mark.parametrize("logger", [False, True])
def test_refits_are_part_of_the_results_whatever_logger_they_have(tmp_path, logger, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    optimizer = OptunaDrivenOptimizer(
        base_config={"trainer": {"max_epochs": 1, "accelerator": "cpu", "logger": logger}},
        search_space={"lr": ("uniform", 0.01, 0.1)},
        model_class=LogsByStep,
        datamodule_class=Points,
        n_trials=2,
        verbose=False,
    )
    optimizer.optimize()
    results = optimizer.results()
    assert results.refits == ()
    number, other = results.best.number, 1 - results.best.number
    refits = optimizer.refit(seeds=[1, 2])
    assert optimizer.results().refits == refits
    assert optimizer.results().repetitions(number) == tuple(refit.score[0] for refit in refits)
    frame = optimizer.results().to_pandas()
    assert [*frame.refits[[number, other]]] == [2, 0]
    assert frame.refit_mean[number] == pytest.approx(sum(refit.score[0] for refit in refits) / 2)
    for line in (["best", "optuna_study"], ["status", "optuna_study"]):
        assert main(line) == 0
        assert f"{describe_refits(optimizer.results(), results.best)}\n" in capsys.readouterr().out
    assert main(["best", "optuna_study", "--json"]) == 0
    assert [refit["seed"] for refit in json.loads(capsys.readouterr().out)["refits"]] == [1, 2]
    optimizer.optimize()
    assert f"Trained again with 2 seeds, trial {number} comes to" in (optimizer.directory / "report.html").read_text()


def test_what_refits_come_to_is_said_beside_the_defaults(directory):
    from reported import ours

    from lightningtune.study.results import collect_results

    results = collect_results(ours(12), ("val_acc",), directory)
    assert describe_refits(results, results.trials[1]) == ""
    assert describe_refits(results, results.trials[7]) == (
        "val_acc 0.925 ± 0.0353553 (2 trainings); the untuned defaults: val_acc 0.5 (1 training)"
    )
    assert describe_refits(results, results.trials[0]) == "val_acc 0.5 (1 training)"
