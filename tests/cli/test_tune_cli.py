import runpy
import sys

import clis
import pytest
from lightning import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from nets import Line, Points

from lightningtune import ConfigurationError, NoResultError
from lightningtune.cli import TuneCLI
from lightningtune.cli.main import main
from lightningtune.files import dump_yaml, read_mapping
from lightningtune.study.outage import mark
from lightningtune.training.cli_call import catch_cli
from lightningtune.training.process_state import quiet_lightning

TRAINER = {"accelerator": "cpu", "max_epochs": 1}


class Own(TuneCLI):
    def add_arguments_to_parser(self, parser):
        parser.link_arguments("data.batch_size", "model.width")


def make_trainer(max_epochs: int = 1, callbacks: list | None = None, logger: bool | None = None) -> Trainer:
    return Trainer(
        max_epochs=max_epochs, callbacks=callbacks, logger=logger, accelerator="cpu", enable_progress_bar=False
    )


@pytest.fixture(autouse=True)
def script(monkeypatch):
    """Have no options of pytest's, of which Lightning warns."""
    monkeypatch.setattr(sys, "argv", ["train.py"])


@pytest.fixture
def tune(tmp_path):
    """Run ``tune`` in this process; return the CLI."""
    config = {"model": {"lr": 0.01}, "data": {"batch_size": 4}, "ckpt_path": None}
    (tmp_path / "config.yaml").write_text(dump_yaml(config))
    (tmp_path / "space.yaml").write_text(dump_yaml({"lr": ["loguniform", 1e-3, 1.0]}))
    given = ["--config", str(tmp_path / "config.yaml"), "--space", str(tmp_path / "space.yaml")]
    own = [
        "--experiment_dir",
        str(tmp_path),
        "--verbose",
        "false",
        "--isolate",
        "false",
        "--check",
        "false",
        "--n_trials",
        "2",
    ]

    def tune(*options, cli=Own, **keywords):
        keywords = {"trainer_defaults": TRAINER, "seed_everything_default": 3, **keywords}
        return cli(Line, Points, args=["tune", *given, *own, *options], **keywords)

    return tune


@pytest.mark.slow
def test_the_subcommand_runs_a_study_with_the_config_of_fit(tune, tmp_path):
    cli = tune("--study_name", "mine", "--sampler", "RandomSampler", "--trainer.max_epochs", "2", "--seed", "1")
    assert [trial.state.name for trial in cli.study.trials] == ["COMPLETE", "COMPLETE"]
    assert cli.study.trials[0].params == {"lr": 0.01}, "the config as it is comes first"
    assert type(cli.study.sampler).__name__ == "RandomSampler"
    assert cli.tuner.directory == tmp_path / "mine"
    best = cli.tuner.get_best_config()
    assert best["trainer"] == {**TRAINER, "max_epochs": 2}
    assert (best["seed_everything"], best["data"]) == (3, {"batch_size": 4})
    assert cli.tuner.best_model().hparams.width == 4, "linked"
    assert not hasattr(cli, "model"), "nothing is built here"


SCRIPT = """
from nets import Line, Points
from lightningtune.cli import TuneCLI

if __name__ == "__main__":
    TuneCLI(Line, Points, trainer_defaults={"accelerator": "cpu", "max_epochs": 1})
"""


@pytest.mark.slow
def test_a_study_of_a_script_goes_on_and_is_replayed_by_the_command(tune, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (script := tmp_path / "script_of_tune.py").write_text(SCRIPT)
    given = {"space": tmp_path / "space.yaml", "experiment_dir": tmp_path, "isolate": "false", "check": "false"}
    options = [part for name, value in {**given, "n_trials": 1}.items() for part in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", [str(script), "tune", *options])
    runpy.run_path(str(script), run_name="__main__")
    folder = str(tmp_path / "optuna_study")
    assert main(["resume", folder, "--n_trials", "2", "--check", "false"]) == 0
    assert main(["replay", folder, "1"]) == 0
    assert "identical" in capsys.readouterr().out
    assert main(["replay", folder, "1", "--script", str(script)]) == 0
    sys.modules.pop("script_of_tune")


@pytest.mark.slow
def test_a_function_may_make_the_trainer(tune):
    cli = tune(cli=TuneCLI, trainer_class=make_trainer, trainer_defaults={"max_epochs": 1})
    assert len(cli.study.trials) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--space", "{model.lrr: [uniform, 0.1, 1.0]}"], "Did you mean 'model.lr'"),
        (["--space", "{model.width: [int, 1, 2]}"], "Own sets it from 'data.batch_size'"),
        (["--space", "nowhere.yaml"], "The file 'nowhere.yaml' does not exist"),
        (["--sampler", "TPESampla"], "Did you mean 'TPESampler'"),
        (["--direction", "up"], "up"),
        (["--ckpt_path", "old.ckpt"], "ckpt_path is for one fit"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_epoch(tune, options, said):
    with pytest.raises(ConfigurationError, match=said):
        tune(*options)


def test_a_mistake_on_the_command_line_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/somewhere/train.py", "tune", "--space", "nowhere.yaml"])
    with pytest.raises(SystemExit) as end:
        Own(Line, Points)
    assert end.value.code == 1
    assert capsys.readouterr().err.startswith("train.py tune: search_space: The file 'nowhere.yaml' does not exist.")


def failing(error):
    """A CLI whose study ends with an error."""

    class Failing(Own):
        def _tune(self, given, is_command):
            raise error

    return Failing


def of_a_storage(error):
    mark(error)
    return error


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (NoResultError("There is none."), 1, "train.py tune: There is none.\n"),
        (PermissionError(13, "Permission denied"), 1, "train.py tune: [Errno 13] Permission denied.\n"),
        (
            of_a_storage(ConnectionError("refused")),
            1,
            "train.py tune: The storage is away: refused. Try again when it is back.\n",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_ends_the_subcommand_is_a_line_and_a_code_as_of_the_command(monkeypatch, capsys, error, code, says):
    monkeypatch.setattr(sys, "argv", ["/somewhere/train.py", "tune"])
    with pytest.raises(SystemExit) as end:
        failing(error)(Line, Points)
    assert end.value.code == code
    assert capsys.readouterr().err == says


def test_of_a_fault_that_nobody_has_foreseen_there_is_the_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/train.py", "tune"])
    with pytest.raises(KeyError, match="fault"):
        failing(KeyError("fault"))(Line, Points)


def test_its_help_tells_of_every_option(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "tune", "--help"])
    with pytest.raises(SystemExit):
        Own(Line, Points)
    shown = " ".join(capsys.readouterr().out.split())
    for said in ("--space SPACE what may vary", "--n_trials N_TRIALS the study's total.", "--model.lr", "--optimizer"):
        assert said in shown


def test_fit_is_what_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []

    class Fits(Own):
        def fit(self, model, **kwargs):
            seen.append((model.lr, type(self.trainer)))

    with quiet_lightning():
        Fits(Line, Points, args=["fit", "--seed_everything", "1", "--model.lr", "0.25"], trainer_defaults=TRAINER)
    assert seen == [(0.25, Trainer)]


class Taken(Own):
    def add_arguments_to_parser(self, parser):
        super().add_arguments_to_parser(parser)
        parser.add_argument("--metric", default="accuracy")
        parser.add_argument("--check", default="a")
        parser.add_lightning_class_args(EarlyStopping, "sampler")
        parser.set_defaults({"sampler.monitor": "val_loss"})


@pytest.mark.slow
def test_an_option_that_the_users_cli_has_is_theirs_and_ours_is_called_otherwise(tune, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    theirs = ["--metric", "f1", "--check", "b"]
    with quiet_lightning():
        fitted = Taken(Line, Points, args=["fit", "--seed_everything", "1", *theirs], trainer_defaults=TRAINER)
    assert (fitted.config.fit.metric, fitted.config.fit.check, fitted.config.fit.sampler.patience) == ("f1", "b", 3)
    cli = tune(
        *["--metric", "f1", "--study_metric", "val_acc", "--study_check", "false", "--check", "c"],
        *["--sampler.patience", "7", "--study_sampler", "RandomSampler", "--n_trials", "1"],
        cli=Taken,
    )
    best = cli.tuner.get_best_config()
    assert (best["metric"], best["check"], best["sampler"]["patience"]) == ("f1", "c", 7)
    assert cli.study.metric_names == ["val_acc"]
    assert type(cli.study.sampler).__name__ == "RandomSampler"


def test_it_is_tuned_from_outside_too():
    call = catch_cli(lambda: Own(Line, Points))
    assert (call.cli, call.arguments) == (Own, {"model_class": Line, "datamodule_class": Points})
    with quiet_lightning():
        built = call.build({"seed_everything": False, "data": {"batch_size": 2}})
    assert built.model.hparams.width == 2
    assert clis.LinkedCLI.subcommands().keys() == Own.subcommands().keys() - {"tune"}


@pytest.fixture
def command(tmp_path):
    """Run ``lightningtune tune --cli`` in this process; return its exit code."""
    (tmp_path / "config.yaml").write_text(dump_yaml({"optimizer": {"class_path": "torch.optim.SGD"}}))
    (tmp_path / "space.yaml").write_text(
        dump_yaml({"model.width": ["int", 2, 8], "optimizer.lr": ["uniform", 0.1, 0.5]})
    )
    given = ["--config", str(tmp_path / "config.yaml"), "--space", str(tmp_path / "space.yaml"), "--n_trials", "1"]
    quiet = ["--experiment_dir", str(tmp_path), "--verbose", "false", "--isolate", "false", "--check=false"]
    return lambda cli, *options: main(["tune", "--cli", cli, *given, *quiet, *options])


@pytest.mark.slow
def test_the_command_takes_a_cli_by_its_name(command, tmp_path):
    assert command("clis:linked", "--optimizer.momentum", "0.5", "--early_stopping.patience", "2") == 0
    config = read_mapping(tmp_path / "optuna_study" / "best" / "config.yaml")
    assert config["optimizer"]["init_args"]["momentum"] == 0.5
    assert config["early_stopping"] == {"patience": 2}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["clis:linkd"], "Did you mean 'linked'"),
        (["nowhere.py"], "there is no file 'nowhere.py'"),
        (["clis:Bare"], "cli must be a LightningCLI"),
        (["clis:linked", "--model_class", "clis:Bare"], "model_class and cli both say what to train"),
        (["clis:linked", "--early_stoping.patience", "2"], "Did you mean 'early_stopping'"),
        (["clis:linked", "--early_stopping.patienc", "2"], "Did you mean 'early_stopping.patience'"),
        (["clis:linked", "--space", "{optimizer.lrr: [uniform, 0.0, 1.0]}"], "Did you mean 'optimizer.init_args.lr'"),
    ],
)
def test_what_the_command_is_given_wrong_is_one_line(command, capsys, options, said):
    assert command(*options) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
