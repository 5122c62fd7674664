"""A study file, written for a model of one's own, and what is guessed for it."""

import enum
import inspect
import sys
from pathlib import Path
from typing import Any, Literal

import nets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightningtune.cli.init import choose_metric, find_logged_metrics, guess_space
from lightningtune.cli.main import main
from lightningtune.files import load_yaml
from lightningtune.search.parameters import parse_parameter
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
        "  # model.num_heads: {type: categorical, choices: [1, 2, 4, 8]}  # must divide another size; default 2\n"
        in text
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
    assert main(["tune", *line, "--check=false", "--isolate=false", "--trainer.accelerator", "cpu"]) == 0
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
    [("pk_of_init.Net", "pk_of_init.inner:Data"), ("pk_of_init:Net", "pk_of_init.inner:Data"),
     ("shown.py:Net", "pk_of_init.inner:Data"), ("pk_of_init.inner.Net", "pk_of_init.inner:Data")],
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


def test_a_script_of_a_lightning_cli_is_named_as_one(capsys, monkeypatch):
    Path("script_of_cli.py").write_text(CLI_SCRIPT)
    monkeypatch.delitem(sys.modules, "script_of_cli", raising=False)
    assert main(["init", "--cli", "script_of_cli.py", "--output", "conf/study.yaml"]) == 0
    assert "Fill in" not in capsys.readouterr().out
    text = Path("conf/study.yaml").read_text()
    assert "  # model.head:  # not guessed; default null" in text
    read = load_yaml(text)
    assert read["cli"] == "../script_of_cli.py"
    assert not {"model_class", "datamodule_class"} & read.keys()
    assert {"model.lr", "data.batch_size"} <= read["search_space"].keys()
    sys.modules.pop("script_of_cli", None)


@pytest.mark.parametrize("line", [[], ["nets.Line", "--cli", "own_script.py"]])
def test_either_a_model_or_a_cli_is_named(line, capsys):
    assert main(["init", *line]) == 1
    assert "init takes a model, as train.py:Net, or --cli" in capsys.readouterr().err


def test_metrics_are_read_from_the_source():
    assert find_logged_metrics(nets.Line) == ["val_loss", "val_acc", "size"]
    assert find_logged_metrics(nets.loaders) == []
    assert choose_metric(["val_acc", "val/loss"]) == ("val/loss", "minimize")
    assert choose_metric(["valid_f1"]) == ("valid_f1", "maximize")
    assert choose_metric(["interval_loss"]) is None


class Solver(enum.Enum):
    ADAM = 1
    SGD = 2


def one(name, default=..., hint=None):
    """Return the guess for one argument."""

    def target(**kwargs): ...

    empty = inspect.Parameter.empty
    parameter = inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=empty if default is ... else default,
        annotation=empty if hint is None else hint,
    )
    target.__signature__ = inspect.Signature([parameter])
    target.__annotations__ = {} if hint is None else {name: hint}
    (guess,) = guess_space(target)
    return guess


TUNED = [
    ("lr", 1e-3, None, ["loguniform", 1e-5, 0.1]),
    ("learning_rate", 0.1, float, ["loguniform", 1e-3, 1.0]),
    ("lr_backbone", 3e-4, float, ["loguniform", 3e-6, 0.03]),
    ("head_lr", ..., float, ["loguniform", 1e-5, 0.1]),
    ("weight_decay", 0.01, float, ["loguniform", 1e-4, 1.0]),
    ("weight_decay", 0.0, float, ["categorical", [0.0, 1e-5, 1e-4, 1e-3, 1e-2]]),
    ("dropout", 0.1, float, ["uniform", 0.0, 0.5]),
    ("attn_drop", 0.0, float, ["uniform", 0.0, 0.5]),
    ("drop_path_rate", 0.6, float, ["uniform", 0.0, 0.6]),
    ("momentum", 0.9, float, ["uniform", 0.8, 0.99]),
    ("beta2", 0.999, float, ["uniform", 0.8, 0.9999]),
    ("hidden", 64, None, ["categorical", [16, 32, 64, 128, 256]]),
    ("hidden_size", ..., int, ["categorical", [16, 32, 64, 128, 256]]),
    ("width", 100, int, ["int_log", 25, 400]),
    ("batch_size", 32, int, ["categorical", [8, 16, 32, 64, 128]]),
    ("num_layers", 2, int, ["int", 1, 4]),
    ("depth", 0, int, ["int", 0, 2]),
    ("ema_decay", 0.999, float, ["uniform", 0.8, 0.9999]),
    ("l1_weight", 1e-4, float, ["loguniform", 1e-6, 1e-2]),
    ("hidden_channels", 16, int, ["categorical", [4, 8, 16, 32, 64]]),
    ("act", "relu", Literal["relu", "gelu"], ["categorical", ["relu", "gelu"]]),
    ("norm", None, Literal["batch", "layer"] | None, ["categorical", ["batch", "layer", None]]),
    ("solver", Solver.ADAM, Solver, ["categorical", ["ADAM", "SGD"]]),
]


@pytest.mark.parametrize(("name", "default", "hint", "expected"), TUNED)
def test_what_is_tuned(name, default, hint, expected):
    guess = one(name, default, hint)
    assert guess.is_tuned
    assert parse_parameter(name, guess.spec) == parse_parameter(name, expected)
    assert (guess.value is not None) is (default is ... or isinstance(default, Solver))


@pytest.mark.parametrize(
    ("name", "default", "hint", "note"),
    [
        ("num_heads", 8, int, "must divide another size; default 8"),
        ("kernel_size", 3, int, "changes the shapes; default 3"),
        ("warmup_steps", 100, int, "depends on how long a trial trains; default 100"),
        ("temperature", 0.07, float, "perhaps; default 0.07"),
        ("k", 5, int, "perhaps; default 5"),
        ("eps", 1e-8, float, "perhaps; default 1e-08"),
        ("lr_decay", 0.95, float, "depends on how long a trial trains; default 0.95"),
        ("lr_factor", 0.1, float, "depends on how long a trial trains; default 0.1"),
        ("step_size", 30, int, "depends on how long a trial trains; default 30"),
        ("lr_min", 1e-6, float, "perhaps; default 1e-06"),
        ("mlp_ratio", 4.0, float, "perhaps; default 4.0"),
        ("channels_last", 4, int, "perhaps; default 4"),
        ("mel_channels", 80, int, "perhaps; default 80"),
        ("l1_ratio", 0.5, float, "perhaps; default 0.5"),
        ("bias", True, None, "perhaps; default true"),
        ("pretrained", False, bool, "perhaps; default false"),
        ("backbone", "a", Literal["a", "b"], "perhaps; default 'a'"),
    ],
)
def test_what_is_proposed_and_not_tuned(name, default, hint, note):
    guess = one(name, default, hint)
    assert (guess.is_tuned, guess.note) == (False, note)
    assert parse_parameter(name, guess.spec).stored_as(default) == default


@pytest.mark.parametrize(
    ("name", "default", "hint", "note"),
    [
        ("num_classes", 10, int, "the task or the data decides it; default 10"),
        ("in_features", ..., int, "the task or the data decides it; no default"),
        ("img_channels", 3, int, "the task or the data decides it; default 3"),
        ("task", "a", Literal["a", "b"], "the task or the data decides it; default 'a'"),
        ("seed", 1, None, "the task or the data decides it; default 1"),
        ("data_dir", "data", str, "the task or the data decides it; default 'data'"),
        ("shuffle", True, bool, "the task or the data decides it; default true"),
        ("activation", "relu", str, "say the choices, as {type: categorical, choices: […, …]}; default 'relu'"),
        ("clip", None, float | None, "say a range, as {type: uniform, low: …, high: …}; default null"),
        ("backbone", None, Any, "not guessed; default null"),
        ("sizes", [64, 64], list[int], "not guessed; default [64, 64]"),
        ("lr", -1.0, float, "say a range, as {type: uniform, low: …, high: …}; default -1.0"),
        ("lr", float("inf"), float, "say a range, as {type: uniform, low: …, high: …}; default inf"),
        ("head", None, inspect.Signature | None, "not guessed; default null"),
        ("only", "a", Literal["a"], "not guessed; default 'a'"),
    ],
)
def test_what_cannot_be_guessed_is_said(name, default, hint, note):
    guess = one(name, default, hint)
    assert (guess.spec, guess.is_tuned) == (None, False)
    assert guess.note.replace("typing.", "") == note


def test_an_argument_without_a_default_is_given_one_that_a_config_can_hold():
    assert one("lr", ..., float).value == 1e-3
    assert one("hidden", ..., int).value == 64
    assert one("num_layers", ..., int).value == 2
    assert one("act", ..., Literal["relu", "gelu"]).value == "relu"
    assert one("solver", Solver.SGD, Solver).value == "SGD"
    assert one("lr", 0.1, float).value is None


NAMES = st.sampled_from(
    [
        *{name for name, *_ in TUNED},
        "temperature",
        "k",
        "num_heads",
        "kernel",
        "eps",
        "gamma",
        "p",
        "stages",
        "x",
        "noise",
        "lr_decay",
        "factor",
    ]
)
RATES = {"lr", "learning_rate", "lr_backbone", "head_lr", "weight_decay", "l1_weight"}
NUMBERS = st.floats(0, 1e6, allow_nan=False) | st.integers(0, 10**6)


@given(NAMES, st.floats(0.001, 0.999))
def test_what_has_a_default_below_one_may_be_a_probability_and_stays_below_one(name, default):
    guess = one(name, default, float)
    if guess.spec is not None and name not in RATES:
        assert parse_parameter(name, guess.spec).ends[-1] < 1


@given(NAMES, NUMBERS)
def test_the_default_is_always_a_point_of_what_is_guessed(name, default):
    guess = one(name, default, type(default))
    if guess.spec is not None:
        parameter = parse_parameter(name, guess.spec)
        stored = parameter.stored_as(default)
        assert parameter.choices or parameter.ends[0] <= stored <= parameter.ends[1]
