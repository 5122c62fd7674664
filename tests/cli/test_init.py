"""A study file, written for a model of one's own."""

import sys
from pathlib import Path

import nets
import pytest

from lightningtune.cli.logged import best_guess, logged_metrics
from lightningtune.cli.main import main
from lightningtune.files import load_yaml
from lightningtune.study.finding import find_study

SCRIPT = '''
import enum
from typing import Literal

import lightning as L
import nets
from lightningtune import tunable


class Solver(enum.Enum):
    ADAM = 1
    SGD = 2


class Net(nets.Line):
    """Has arguments of every kind; of the metrics, a name that is put together is not found."""

    def __init__(
        self, classes: int, lr: float = 0.05, hidden_size: int = 4, dropout: float = 0.1, bias: bool = True,
        solver: Solver = Solver.ADAM, act: Literal["relu", "gelu"] = "relu", head: L.LightningModule = None,
        num_heads: int = 2, title: str = "a: b # c",
    ):
        super().__init__(lr, hidden_size)

    def training_step(self, batch, batch_idx):
        self.log("train_loss", 0.0)
        self.log_dict({"train_acc": 1.0, f"{self.device}_acc": 1.0})
        return super().training_step(batch, batch_idx)


class Data(nets.Points):
    def __init__(self, batch_size: int = 8, num_workers: int = 0, width: int = 16):
        super().__init__(batch_size)


@tunable(search_space={"lr": ("loguniform", 1e-3, 1e-1)})
class Declared(nets.Line): ...


if __name__ == "__main__":
    raise RuntimeError("this is not to run")
'''


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_script", raising=False)
    Path("own_script.py").write_text(SCRIPT)
    yield tmp_path
    sys.modules.pop("own_script", None)


def test_the_file_says_what_is_guessed_and_what_is_not(capsys):
    assert main(["init", "own_script.py:Net"]) == 0
    assert capsys.readouterr().out == (
        "Wrote 'study.yaml': 6 to tune, 7 more to look at.\n"
        "Fill in: base_config.model.classes, which has no default.\n"
        "Then: lightningtune tune study.yaml\n"
    )
    text = Path("study.yaml").read_text()
    assert "    # classes:  # fill in: the task or the data decides it; no default\n    solver: ADAM\n" in text
    assert (
        "  # model.num_heads: {type: categorical, choices: [1, 2, 4]}  # must divide another size; default 2\n" in text
    )
    assert "  # model.bias: {type: categorical, choices: [true, false]}  # perhaps; default true\n" in text
    assert "  # model.title:  # say the choices, as {type: categorical, choices: […, …]}; default 'a: b # c'\n" in text
    assert (
        "  # data.width: {type: categorical, choices: [4, 8, 16, 32, 64]}  # the model may depend on it; default 16\n"
        in text
    )
    assert "  model.lr: {type: loguniform, low: 0.0005, high: 1.0}  # default 0.05\n" in text
    assert "metric: val_loss  # the model logs train_loss, train_acc, val_loss, val_acc, size\n" in text
    read = load_yaml(text)
    assert (read["model_class"], read["datamodule_class"]) == ("own_script.py:Net", "own_script.py:Data")
    assert [*read["search_space"]] == [
        "model.lr",
        "model.hidden_size",
        "model.dropout",
        "model.solver",
        "model.act",
        "data.batch_size",
    ]
    assert max(map(len, text.splitlines())) <= 120


def test_the_file_runs_as_it_is_and_the_defaults_are_its_first_trial(capsys):
    assert main(["init", "own_script:Net", "--output", "conf/digits.yml"]) == 0
    line = ["conf/digits.yml", "--n_trials=3", "--trainer.max_epochs=1", "--model.classes", "3"]
    assert main(["tune", *line, "--no-check", "--isolate=false", "--trainer.accelerator", "cpu"]) == 0
    assert "Untuned defaults: val_loss = " in capsys.readouterr().out
    assert len(find_study("digits", None).study.trials) == 3


def test_a_file_that_is_there_stays(capsys):
    Path("study.yaml").write_text("mine\n")
    assert main(["init", "nets.Line"]) == 1
    assert capsys.readouterr().err == (
        "lightningtune: 'study.yaml' is there already. Replace it with --force, or name another with --output.\n"
    )
    assert Path("study.yaml").read_text() == "mine\n"
    assert main(["init", "nets.Line", "--data", "nets.loaders", "--force"]) == 0
    assert "datamodule_class: nets.loaders\n" in Path("study.yaml").read_text()


def test_a_script_is_named_from_where_the_file_lies():
    assert main(["init", "own_script.py:Net", "--output", "conf/study.yaml"]) == 0
    assert "model_class: ../own_script.py:Net\n" in Path("conf/study.yaml").read_text()


@pytest.mark.parametrize(
    ("name", "data"),
    [("pk_of_init.Net", "pk_of_init.inner.Data"), ("pk_of_init:Net", "pk_of_init.inner:Data"),
     ("shown.py:Net", "pk_of_init.inner:Data"), ("pk_of_init.inner.Net", "pk_of_init.inner.Data")],
)  # fmt: skip
def test_the_data_of_a_model_that_is_named_elsewhere_is_named_where_it_is(name, data, monkeypatch):
    Path("pk_of_init").mkdir()
    Path("pk_of_init/__init__.py").write_text("from pk_of_init.inner import Net\n")
    Path("pk_of_init/inner.py").write_text("import nets\nclass Net(nets.Line): ...\nclass Data(nets.Points): ...\n")
    Path("shown.py").write_text("from pk_of_init import Net\n")
    for module in ("pk_of_init", "pk_of_init.inner", "shown"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    assert main(["init", name]) == 0
    assert load_yaml(Path("study.yaml").read_text())["datamodule_class"] == data


def test_what_is_declared_stands_there_to_be_replaced(capsys):
    assert main(["init", "own_script:Declared"]) == 0
    assert "1 to tune, 0 more" in capsys.readouterr().out
    text = Path("study.yaml").read_text()
    assert "# search_space:\n#   model.lr: {type: loguniform, low: 0.001, high: 0.1}\n" in text
    assert "search_space" not in load_yaml(text)
    uncommented = text.replace("# search_space:", "search_space:").replace("#   model.lr", "  model.lr")
    assert load_yaml(uncommented)["search_space"]["model.lr"]["high"] == 0.1


def test_what_a_model_lacks_is_said(capsys):
    assert main(["init", "lightning.pytorch.demos.boring_classes.BoringModel"]) == 0
    assert main(["init", "nets:Line", "--force"]) == 0
    said = capsys.readouterr().out
    assert "Fill in: search_space: nothing could be guessed.\n" in said
    assert "Fill in: metric: nothing that a validation logs was found in lightning." in said
    assert "datamodule_class" not in said  # the one has dataloaders, beside the other is a datamodule
    Path("alone.py").write_text("from nets import Line\nclass Net(Line): ...\n")
    assert main(["init", "alone.py:Net", "--force"]) == 0
    assert "Fill in: datamodule_class, the data that the model trains on.\n" in capsys.readouterr().out
    assert "# datamodule_class: package.module:Data  # fill in" in Path("study.yaml").read_text()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["own_script.py:Nett"], "MODEL: the module 'own_script' has no 'Nett'. Did you mean 'Net'?"),
        (["own_scrpt.py:Net"], "MODEL: there is no file 'own_scrpt.py'. Did you mean 'own_script.py'?"),
        (["own_script.py:Data"], "model_class=Data must derive from lightning.pytorch.LightningModule."),
        (
            ["nets:Line", "--data", "nets:Line"],
            "datamodule_class=Line must derive from lightning.pytorch.LightningDataMo",
        ),
        (["nets:Line", "--output", "study.json"], "--output must be a file that ends in .yaml, but got 'study.json'."),
    ],
)
def test_a_wrong_command_line_writes_nothing(line, message, capsys):
    assert main(["init", *line]) == 1
    assert message in capsys.readouterr().err
    assert not Path("study.yaml").exists()


CLI_SCRIPT = """
import lightning as L
import nets
from lightning.pytorch.cli import LightningCLI


class CliNet(nets.Line):
    def __init__(self, lr: float = 0.05, head: L.LightningModule = None):
        super().__init__(lr)


if __name__ == "__main__":
    LightningCLI(CliNet, nets.Points, trainer_defaults={"accelerator": "cpu"})
    raise AssertionError("what follows is not run")
"""


@pytest.mark.parametrize("named", [["--cli", "script_of_cli.py"], ["script_of_cli.py:CliNet"]])
def test_a_script_of_a_lightning_cli_is_named_as_one(named, capsys, monkeypatch):
    Path("script_of_cli.py").write_text(CLI_SCRIPT)
    monkeypatch.delitem(sys.modules, "script_of_cli", raising=False)
    assert main(["init", *named, "--output", "conf/study.yaml"]) == 0
    assert "Fill in" not in capsys.readouterr().out
    text = Path("conf/study.yaml").read_text()
    assert "  # model.head:  # a class, as {class_path: package.LightningModule, init_args: {…}}; default null" in text
    read = load_yaml(text)
    assert read["cli"] == "../script_of_cli.py"
    assert not {"model_class", "datamodule_class"} & read.keys()
    assert {"model.lr", "data.batch_size"} <= read["search_space"].keys()
    sys.modules.pop("script_of_cli", None)


@pytest.mark.parametrize("line", [[], ["nets.Line", "--cli", "own_script.py"]])
def test_either_a_model_or_a_cli_is_named(line, capsys):
    assert main(["init", *line]) == 1
    assert "init takes a model, as train.py:Net, or --cli" in capsys.readouterr().err


def test_the_stages_of_a_shared_step_are_read_from_its_calls():
    class Shared(nets.Line):
        def step(self, batch, stage):
            self.log(f"{stage}/loss", 0.0)
            self.log(f"{stage}_{batch}", 0.0)

        def training_step(self, batch, batch_idx):
            self.step(batch, "train")

        def validation_step(self, batch, batch_idx):
            self.step(batch, stage="val")

    assert logged_metrics(Shared)[:2] == ["train/loss", "val/loss"]


def test_metrics_are_read_from_the_source():
    assert logged_metrics(nets.Line) == ["val_loss", "val_acc", "size"]
    assert logged_metrics(nets.loaders) == []
    assert best_guess(["val_acc", "val/loss"]) == ("val/loss", "minimize")
    assert best_guess(["valid_f1"]) == ("valid_f1", "maximize")
    assert best_guess(["interval_loss"]) is None
