"""The study file, and everything that can be wrong with it or with a command line."""

import dataclasses
import inspect
import re
import sys
from pathlib import Path

import pytest

from lightningtune import ConfigurationError, OptunaDrivenOptimizer
from lightningtune.arguments import OPTUNA_KWARGS
from lightningtune.cli.building import build_optimizer
from lightningtune.cli.main import main
from lightningtune.cli.study_file import (
    StudyFile,
    StudyParser,
    describe_type,
    descriptions,
    fits,
    hints,
    read_study,
    read_value,
)
from lightningtune.config.base import place_at
from lightningtune.errors import InvalidConfigError
from lightningtune.files import dump_yaml, load_yaml
from lightningtune.search.parameters import FORMS

STUDY = {
    "model_class": "nets.Line",
    "datamodule_class": "nets.Points",
    "base_config": {"trainer": {"max_epochs": 1, "accelerator": "cpu"}},
    "search_space": {"lr": ["loguniform", 1e-4, 1e-1]},
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def write(path="study.yaml", **changes):
    values = {name: value for name, value in {**STUDY, **changes}.items() if value is not ...}
    Path(path).parent.mkdir(exist_ok=True, parents=True)
    Path(path).write_text(dump_yaml(values))
    return path


# what it is


def test_its_names_and_defaults_are_those_of_the_optimizer():
    facade = inspect.signature(OptunaDrivenOptimizer).parameters
    names = {*facade, *OPTUNA_KWARGS} - {"optuna_kwargs"}
    # trials run in processes of their own, where neither has anything to do
    assert names - {*hints()} == {"gc_after_trial", "show_progress_bar"}
    assert {*hints()} <= names
    own = {"isolate": True, "study_name": None}  # a command line isolates, and a file has a name
    for field in dataclasses.fields(StudyFile):
        if field.name in facade:
            assert field.default == own.get(field.name, facade[field.name].default), field.name


def test_its_docstring_is_the_optimizers_where_a_file_says_it_alike():
    facade = inspect.cleandoc(OptunaDrivenOptimizer.__doc__).partition("Args:\n")[2].partition("\n\n")[0]
    said = {
        name: " ".join(text.split()).replace('"', "").replace("``", "")
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", facade, re.MULTILINE)
    }
    alike = {name for name, text in descriptions().items() if said.get(name) == text}
    of_its_own = {"base_config", "search_space", "model_class", "datamodule_class", "cli", "sampler", "pruner", "catch"}
    of_its_own |= {"study_name", "callbacks", "score", "isolate", "trial_timeout"}
    of_its_own |= {"storage"}  # an optimizer also takes an object
    assert alike == {*hints()} - of_its_own
    assert descriptions().keys() == hints().keys()


# reading it


def test_files_are_found_from_the_study_file_and_those_of_the_command_line_from_here(folder):
    write("config/base.yaml")
    Path("config/base.yaml").write_text("trainer: {max_epochs: 7}\n")
    Path("here.yaml").write_text("trainer: {max_epochs: 8}\n")
    path = write("config/digits.yaml", base_config="base.yaml")
    study = read_study(path)
    assert (study.study_name, study.base_config) == ("digits", {"trainer": {"max_epochs": 7}})
    assert read_study(path, {"base_config": "here.yaml"}).base_config == {"trainer": {"max_epochs": 8}}
    Path("space.json").write_text('{"lr": ["uniform", 0, 1]}')
    assert read_study(path, {"search_space": "space.json"}).search_space == {"lr": ["uniform", 0, 1]}


def test_a_path_leads_into_a_config_of_a_whole_command_too():
    Path("whole.yaml").write_text("fit:\n  model: {width: 4}\n  trainer: {max_epochs: 7}\n")
    expected = {"model": {"width": 4}, "trainer": {"max_epochs": 2}}
    placed = [("trainer.max_epochs", 2)]
    assert read_study(write(base_config="whole.yaml"), {}, placed).base_config == expected
    assert read_study(None, {"cli": "train.py", "base_config": "whole.yaml"}, placed).base_config == expected
    own = {"fit": {"robust": True}, "model": {}}
    assert read_study(write(cli="train.py", base_config=own)).base_config == own, "an option of the user's own"


def test_sections_may_be_files_beside_the_config():
    Path("conf").mkdir()
    Path("conf/model.yaml").write_text("width: 4\n")
    Path("conf/opt.json").write_text('{"class_path": "SGD"}')
    Path("conf/whole.yaml").write_text("{model: model.yaml, optimizer: opt.json, labels: labels.json}\n")
    study = read_study(None, {"cli": "train.py", "base_config": "conf/whole.yaml"}, [("model.lr", 0.5)])
    assert study.base_config == {
        "model": {"width": 4, "lr": 0.5},
        "optimizer": {"class_path": "SGD"},
        "labels": "labels.json",
    }
    assert read_study(write("conf/study.yaml", base_config={"model": "model.yaml"})).base_config["model"] == {
        "width": 4
    }
    Path("conf/whole.yaml").write_text("{model: modle.yaml}\n")
    with pytest.raises(
        InvalidConfigError, match=r"base_config.model: The file 'conf/modle.yaml' does not exist. In its fold"
    ):
        read_study(None, {"base_config": "conf/whole.yaml"})


def test_json_is_read_as_well():
    Path("digits.json").write_text('{"n_trials": 3, "sampler": "TPESampler"}')
    study = read_study("digits.json")
    assert (study.n_trials, study.sampler, study.study_name) == (3, {"class_path": "TPESampler"}, "digits")


def test_what_is_printed_reads_back():
    study = read_study(write(sampler="GPSampler"), {"metric": ["val_loss", "val_acc"]}, [("sampler.seed", 1)])
    Path("whole.yaml").write_text(study.to_yaml())
    assert read_study("whole.yaml") == study
    assert {*load_yaml(study.to_yaml())} == {*hints()}


@pytest.mark.parametrize(
    ("whole", "path", "value", "expected"),
    [
        (None, "trainer.max_epochs", 3, {"trainer": {"max_epochs": 3}}),
        ({"model": {"class_path": "N"}}, "model.lr", 1, {"model": {"class_path": "N", "init_args": {"lr": 1}}}),
        (
            {"model": {"class_path": "N", "init_args": {"a": {"class_path": "M"}}}},
            "model.init_args.a.b",
            1,
            {"model": {"class_path": "N", "init_args": {"a": {"class_path": "M", "init_args": {"b": 1}}}}},
        ),
        ({"model": {"lr": 0}}, "model.init_args.lr", 1, {"model": {"lr": 1}}),
        ({"model": {"class_path": "N"}}, "model.class_path", "M", {"model": {"class_path": "M"}}),
        ({"trainer": {"callbacks": [{"class_path": "E"}]}}, "trainer.callbacks.0.patience", 2,
         {"trainer": {"callbacks": [{"class_path": "E", "init_args": {"patience": 2}}]}}),
        ({"trainer": {"logger": None}}, "trainer.logger.x", 2, {"trainer": {"logger": {"x": 2}}}),
        ({"trainer": {"callbacks": ["E"]}}, "trainer.callbacks.0.patience", 2,
         {"trainer": {"callbacks": [{"class_path": "E", "init_args": {"patience": 2}}]}}),
        ({"optimizer": "Adam"}, "optimizer.lr", 1, {"optimizer": {"class_path": "Adam", "init_args": {"lr": 1}}}),
    ],
)  # fmt: skip
def test_a_path_of_the_command_line_leads_into_the_config(whole, path, value, expected):
    assert place_at(whole, "base_config", path, value) == expected


def test_what_a_lightning_cli_has_at_its_top_can_be_given():
    line = ["--cli", "train.py", "--depth", "3", "--optimizer", "Adam", "--optimizer.lr=0.1", "--robust=true"]
    given = StudyParser("tune", print, "").parse_args(line)
    study = given.read_study()
    assert (given.study, study.cli) == (None, "train.py")
    optimizer = {"class_path": "Adam", "init_args": {"lr": 0.1}}
    assert study.base_config == {"depth": 3, "optimizer": optimizer, "robust": True}
    study = StudyParser("tune", print, "").parse_args([write(), "--seed_everything", "5"]).read_study()
    assert study.base_config["seed_everything"] == 5, "every config has one"


def test_a_callback_that_is_a_name_takes_arguments():
    path = write(callbacks=["EarlyStopping"])
    study = StudyParser("tune", print, "").parse_args([path, "--callbacks.0.monitor", "val_loss"]).read_study()
    assert study.callbacks == [{"class_path": "EarlyStopping", "init_args": {"monitor": "val_loss"}}]


def test_what_stands_in_a_list_of_the_space_has_the_names_of_its_form():
    space = {"depth": ["int", 1, 9], "act": ["categorical", ["relu"]]}
    assert place_at(space, "search_space", "depth.low", 3, FORMS)["depth"] == ["int", 3, 9]
    assert place_at(space, "search_space", "depth.step", 2, FORMS)["depth"] == ["int", 1, 9, 2]
    assert place_at(space, "search_space", "act.choices", ["tanh"], FORMS)["act"] == ["categorical", ["tanh"]]


def test_a_name_with_dots_in_it_is_found_in_the_space():
    space = {"model.lr": {"type": "uniform", "low": 0, "high": 1}, "model.lr_decay": ["uniform", 0, 1]}
    assert place_at(space, "search_space", "model.lr.high", 2, FORMS)["model.lr"]["high"] == 2
    assert place_at(space, "search_space", "model.lr_decay.1", 2, FORMS)["model.lr_decay"] == ["uniform", 2, 1]
    assert place_at(space, "search_space", "data.batch_size", ["int", 1, 2], FORMS)["data.batch_size"] == ["int", 1, 2]
    assert space["model.lr"]["high"] == 1


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("n_trials", "5", 5),
        ("timeout", "1e3", 1e3),
        ("timeout", "null", None),
        ("study_name", "007", "007"),
        ("metric", "[a, b]", ["a", "b"]),
        ("metric", "val: loss", "val: loss"),
        ("baseline", "{lr: 0.1}", {"lr": 0.1}),
        ("sampler", "{class_path: TPESampler}", {"class_path": "TPESampler"}),
        ("verbose", "false", False),
    ],
)
def test_text_of_the_command_line_means_what_it_means_in_the_file(name, text, value):
    assert read_value(name, text) == value


def test_a_path_may_begin_with_the_files_own_name():
    path = write(callbacks=[{"class_path": "EarlyStopping", "init_args": {"monitor": "val_loss"}}])
    study = read_study(path, placed=[("base_config.model.width", 3), ("model.act", "a"), ("callbacks.0.patience", 5)])
    assert study.base_config["model"] == {"width": 3, "act": "a"}
    assert study.callbacks[0]["init_args"] == {"monitor": "val_loss", "patience": 5}


def test_a_value_may_begin_as_an_option_does():
    line = ["--n_jobs", "-1", "--study_name=--x.y", "--trainer.max_steps", "-1"]
    given = StudyParser("tune", print, "").parse_args(line)
    study = given.read_study()
    assert (given.study, study.n_jobs, study.study_name) == (None, -1, "--x.y")
    assert study.base_config == {"trainer": {"max_steps": -1}}


def test_every_annotation_can_be_said_and_holds_its_default():
    for field in dataclasses.fields(StudyFile):
        assert fits(hints()[field.name], field.default)
        assert describe_type(hints()[field.name])


# building it


def test_a_study_is_built_from_names(folder):
    Path("parts").mkdir()
    Path("parts/own.py").write_text(
        "import optuna\nfrom nets import Line\n"
        "class Mine(optuna.samplers.RandomSampler): ...\n"
        "def space(trial): trial.suggest_float('lr', 0.1, 0.2)\n"
        "def last(values): return values[-1]\n"
        "def note(study, trial): ...\n"
    )
    path = write(
        "parts/study.yaml",
        model_class="own.py:Line",
        datamodule_class="nets:loaders",
        sampler="own.Mine",
        search_space="own:space",
        score="own:last",
        callbacks=["own.note", {"class_path": "EarlyStopping", "init_args": {"monitor": "val_loss"}}],
        catch=["ValueError", "own:optuna.TrialPruned"],
        pruner={
            "class_path": "PatientPruner",
            "init_args": {"wrapped_pruner": {"class_path": "MedianPruner"}, "patience": 1},
        },
        n_trials=2,
        isolate=False,
        verbose=False,
    )
    study = build_optimizer(read_study(path), Path("parts")).optimize()
    assert [trial.params["lr"] >= 0.1 for trial in study.trials] == [True, True]
    assert type(study.sampler).__name__ == "Mine"
    assert study.study_name == "study"


# what is wrong with it

WRONG_FILES = [
    ({"trials": 5}, "'study.yaml': there is no 'trials' in a study file. Did you mean 'n_trials'? Allowed: base_confi"),
    ({"metrics": "x"}, "there is no 'metrics' in a study file. Did you mean 'metric'?"),
    ({"config": "x.yaml"}, "there is no 'config' in a study file. Did you mean 'base_config'?"),
    ({"trainer": {"max_epochs": 3}}, "'trainer' is a part of the config, and belongs under base_config."),
    ({"n_trials": "many"}, "n_trials must be an integer, but got 'many'."),
    ({"n_trials": None}, "n_trials must be an integer, but got null."),
    ({"n_trials": 2.5}, "n_trials must be an integer, but got 2.5."),
    ({"n_trials": 0}, "n_trials must be an integer from 1, but got 0."),
    ({"n_jobs": True}, "n_jobs must be an integer, but got true."),
    ({"verbose": "please"}, "verbose must be true or false, but got 'please'."),
    ({"seed": -1}, "seed must be an integer from 0, but got -1."),
    ({"timeout": -1}, "timeout must be a number of seconds from 0"),
    ({"trial_timeout": "1h"}, "trial_timeout must be a number or null, but got '1h'."),
    ({"study_name": 7}, "study_name must be text or null, but got 7. Text that reads as something else is quoted."),
    ({"study_name": "a/b"}, "study_name='a/b' must be usable as a folder's name."),
    ({"metric": 7}, "metric must be text or a list of text, but got 7."),
    ({"direction": "maximise"}, "direction must be one of 'minimize', 'maximize', but got 'maximise'. Did you mean 'm"),
    ({"direction": ["minimize", "maximize"]}, "metric names 1 metric (val_loss), but direction 2"),
    ({"score": "bst"}, "score must be one of 'best', 'last' or a function of all values, but got 'bst'. Did you mean "),
    ({"score": "statistics:medain"}, "score: the module 'statistics' has no 'medain'. Did you mean 'median'?"),
    ({"non_finite": "prun"}, "non_finite must be 'prune', 'fail' or 'ignore', but got 'prun'. Did you mean 'prune'?"),
    ({"baseline": "yes!"}, "baseline must be true or false or a mapping, but got 'yes!'."),
    ({"storage": "sqlite:/x.db"}, "storage='sqlite:/x.db' is no URL"),
    ({"catch": ["ValueEror"]}, "catch: builtins has no 'ValueEror'. Did you mean 'ValueError'?"),
    ({"catch": "ValueError"}, "catch must be a list of text or null, but got 'ValueError'."),
    ({"sampler": "TPE"}, "sampler: optuna.samplers has no 'TPE'. Did you mean 'TPESampler'?"),
    ({"sampler": 3}, "sampler must be text, a mapping or null, but got 3."),
    ({"sampler": {"init_args": {}}}, "sampler names no class_path. Write it as {'class_pa"),
    ({"sampler": {"class_path": "TPESampler", "args": {}}}, "'sampler.args' may not stand beside class_p"),
    ({"sampler": {"class_path": "TPESampler", "init_args": [1]}}, "sampler.init_args must be a mapping of argu"),
    (
        {"sampler": {"class_path": "TPESampler", "init_args": {"sed": 1}}},
        "sampler: TPESampler has no 'sed'. Did you mean 'seed'? It takes: ",
    ),
    (
        {"sampler": {"class_path": "TPESampler", "init_args": {"seed": "x"}}},
        "sampler: TPESampler's seed must be int | None, but got 'x'.",
    ),
    ({"sampler": "optuna.pruners.MedianPruner"}, "must be a class that derives from optuna.samplers.BaseSampler."),
    ({"pruner": "Hyperband"}, "pruner: optuna.pruners has no 'Hyperband'. Did you mean 'HyperbandPruner'?"),
    ({"pruner": {"class_path": "PatientPruner"}}, "pruner: PatientPruner needs wrapped_pruner and patience, under ini"),
    (
        {"pruner": {"class_path": "MedianPruner", "init_args": {"n_startup_trials": -3}}},
        "pruner: MedianPruner cannot be made: Number of startup trials cannot be negative",
    ),
    ({"callbacks": "EarlyStopping"}, "callbacks must be a list or null, but got 'EarlyStopping'."),
    ({"callbacks": ["EarlyStoping"]}, "callbacks.0: the module 'lightning.pytorch.callbacks' has no 'EarlyStoping'. D"),
    ({"callbacks": [{"class_path": "EarlyStopping"}]}, "callbacks.0: EarlyStopping needs monitor, under init_args."),
    ({"callbacks": [{"class_path": "os.mkdir", "init_args": {"path": "made"}}]}, "callbacks.0: 'os.mkdir' is a func"),
    ({"callbacks": [{"class_path": "tempfile.TemporaryDirectory", "init_args": {"dir": "."}}]},
     "callbacks.0: 'tempfile.TemporaryDirectory' must be a Lightning callback, or an Optuna callback, which is called"),
    ({"model_class": "nets.py"}, "model_class: 'nets.py' is a script. Name what is in it too, as 'nets.py:Name'"),
    ({"model_class": "Line"}, "model_class: 'Line' names no module. It is written as 'package.module.Line' or as 'tra"),
    ({"model_class": "nets.Lin"}, "model_class: the module 'nets' has no 'Lin'. Did you mean 'Line'?"),
    ({"model_class": "optuna.sampler.X"}, "there is no module 'optuna.sampler', which 'optuna.sampler.X' is to be in."),
    ({"model_class": "mynets:Lin"}, "there is no module 'mynets', which 'mynets:Lin' is to be in. Did you mean 'mynet"),
    ({"model_class": "nets:Points"}, "model_class=Points must derive from lightning.pytorch.LightningModule."),
    ({"model_class": "nets:points.x"}, "model_class: the module 'nets' has no 'x'."),
    ({"model_class": "mynt.py:Line"}, "model_class: there is no file 'mynt.py'. Did you mean 'mynet.py'?"),
    ({"model_class": "my-net.py:Line"}, "model_class: 'my-net.py' cannot be imported under the name 'my-net'. Give it"),
    ({"model_class": "json.py:Line"}, "model_class: another module is called 'json', which is '"),
    ({"model_class": "ends.py:Line"}, "importing 'ends.py' raises SystemExit: 3 (ends.py, line 2). Put what the"),
    ({"model_class": "broken.py:Line"}, "importing 'broken.py' raises ModuleNotFoundError: No module named 'notthere'"),
    ({"model_class": "mynet.py:x"}, "model_class: 'mynet.py:x' must be a class or a function, but is 3."),
    ({"model_class": ...}, "The config's 'model' has no class_path, and model_class is not given"),
    ({"cli": "nets.Line"}, "model_class and cli both say what to train. Leave model_class out"),
    ({"cli": "mynt.py"}, "cli: there is no file 'mynt.py'. Did you mean 'mynet.py'?"),
    ({"base_config": "confg.yaml"}, "base_config: The file 'confg.yaml' does not exist. In its folder: list.yaml"),
    ({"base_config": "list.yaml"}, "base_config: 'list.yaml' must hold a mapping at its top, but holds a list."),
    ({"base_config": 3}, "base_config must be text, a mapping or null, but got 3."),
    ({"base_config": {"trainr": {}}}, "The config has no section 'trainr'. Did you mean 'trainer'?"),
    ({"base_config": {"trainer": {"max_epoch": 3}}}, "'trainer.max_epoch' leads nowhere in the config. Did you mean '"),
    ({"base_config": {"trainer": {"max_epochs": "three"}}}, "The config is not valid. trainer.max_epochs: "),
    ({"base_config": {"model": {"lrr": 1}}}, "'model.lrr' leads nowhere in the config. Did you mean 'model.lr'?"),
    ({"search_space": "space.yaml"}, "search_space: The file 'space.yaml' does not exist."),
    ({"search_space": "spaces.space"}, "search_space: there is no module 'spaces', which 'spaces.space' is to be in."),
    ({"search_space": {}}, "A search space must name at least one parameter, but it is empty."),
    ({"search_space": ...}, "There is nothing to tune: pass search_space, or decorate"),
    ({"search_space": {"lrr": ["uniform", 0, 1]}}, "'lrr' is a parameter of neither the model nor the data. Did you m"),
    ({"search_space": {"lr": ["log", 0, 1]}}, "'lr': 'log' is not a kind of parameter. Did you mean 'loguniform'?"),
    ({"search_space": {"lr": {"type": "uniform", "low": 0, "hihg": 1}}}, "'lr': uniform has no 'hihg'. Did you mean '"),
    ({"search_space": {"model": {"lr": ["uniform", 0, 1]}}}, "'model': a search space is flat, with dotted names. Did"),
    ({"search_space": {"width": ["categorical", ["a"]]}}, "'width'='a' does not fit."),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), WRONG_FILES, ids=[message for _, message in WRONG_FILES])
def test_a_wrong_study_file_is_refused_in_one_line_that_names_it(changes, message, capsys):
    for name, text in {
        "list.yaml": "- 1\n",
        "mynet.py": "from nets import Line\nx = 3\n",
        "my-net.py": "",
        "json.py": "",
        "ends.py": "import sys\nsys.exit(3)\n",
        "broken.py": "import lightning\n\nimport notthere\n",
    }.items():
        Path(name).write_text(text)
    assert main(["tune", write(**changes), "--check=false"]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert not Path("lightningtune_runs").exists()
    assert not Path("made").exists(), "what is no callback was called"


WRONG_LINES = [
    ([], 2, "there is no study file. 'lightningtune init package.module:Net' writes one."),
    (["--trials", "5"], 2, "unknown option '--trials'. Did you mean '--n_trials'?"),
    (["--n-trials", "5"], 2, "unknown option '--n-trials'. Did you mean '--n_trials'?"),
    (["--lr", "0.1"], 2, "'--lr'. What stands in the config is given by its path, such as --model.lr."),
    (["--no_check", "study.yaml"], 2, "unknown option '--no_check'. Did you mean '--check'?"),
    (["study.yaml", "--seed_everything", "x"], 1, "seed_everything must be true, false or an integer from 0, but got"),
    (["study.yaml", "--model_class.lr", "1"], 1, "'model_class' is 'nets.Line': there is no 'lr' in it."),
    (["--n_trials", "many"], 2, "argument --n_trials: must be an integer, but got 'many'."),
    (["--n_trials"], 2, "argument --n_trials: expected one argument."),
    (["--trainer.max_epochs"], 2, "--trainer.max_epochs needs a value."),
    (["--non_finite=prun"], 2, "argument --non_finite: must be 'prune', 'fail' or 'ignore', but got 'prun'. Did you m"),
    (["--verbose", "yep"], 2, "argument --verbose: must be true or false, but got 'yep'."),
    (["study.yaml", "other.yaml"], 2, "unknown argument 'other.yaml'."),
    (["study.yaml", "--no_check"], 2, "unknown option '--no_check'. Did you mean '--check'?"),
    (["studdy.yaml"], 1, "The file 'studdy.yaml' does not exist. In its folder: bad.yaml, study.yaml, twice.yml."),
    (["bad.yaml"], 1, "'bad.yaml' is not valid YAML: "),
    (["twice.yml"], 1, "the key 'n_trials' is given twice"),
    (["train.py"], 1, "'train.py' is no study file, whose name ends in .yaml, .yml, .json. A script that constructs a"),
    (["."], 1, "'.' is no study file, whose name ends in .yaml, .yml, .json."),
    (["study.yaml", "--config", "confg.yaml"], 1, "base_config: The file 'confg.yaml' does not exist."),
    (["study.yaml", "--direction", "up"], 1, "direction must be one of 'minimize', 'maximize', but got 'up'."),
    (["study.yaml", "--model_class", "nets.Lin"], 1, "model_class: the module 'nets' has no 'Lin'. Did you mean 'Line"),
    (["study.yaml", "--trainer.max_epoch", "5"], 1, "'trainer.max_epoch' leads nowhere in the config. Did you mean 't"),
    (["study.yaml", "--trainer.max_epochs", ""], 1, "The config is not valid. trainer.max_epochs: "),
    (["study.yaml", "--trainer.max_epochs", "x"], 1, "The config is not valid. trainer.max_epochs: "),
    (["study.yaml", "--trianer.x", "5"], 1, "there is no 'trianer' in a study file or its config. Did you mean 'trai"),
    (["study.yaml", "--model.lrr=1"], 1, "'model.lrr' leads nowhere in the config. Did you mean 'model.lr'?"),
    (["study.yaml", "--trainer.max_epochs.x=1"], 1, "'base_config.trainer.max_epochs' is 1: there is no 'x' in it."),
    (["study.yaml", "--sampler.sed", "1"], 1, "sampler: TPESampler has no 'sed'. Did you mean 'seed'?"),
    (["study.yaml", "--pruner.n_warmup_step", "1"], 1, "pruner: MedianPruner has no 'n_warmup_step'. Did you mean"),
    (["study.yaml", "--search_space.lrr.high", "1"], 1, "search_space has no 'lrr'. Did you mean 'lr'? It has: lr."),
    (["study.yaml", "--search_space.lr.hihg", "1"], 1, "'search_space.lr' is a list: 'hihg' is none of its places, wh"),
    (["study.yaml", "--model_class", "named.py:Nameless"], 1, "model_class=Nameless: lr, width cannot be given by nam"),
    (["study.yaml", "--search_space.lr.2", "x"], 1, "'lr': high must be a finite number, but got 'x'."),
    (["study.yaml", "--n_trials.x", "3"], 1, "'n_trials' is 2: there is no 'x' in it."),
]  # fmt: skip


@pytest.mark.parametrize(("line", "code", "message"), WRONG_LINES, ids=[" ".join(line) for line, *_ in WRONG_LINES])
def test_a_wrong_command_line_is_refused_in_one_line_that_names_it(line, code, message, capsys):
    write(n_trials=2)
    Path("bad.yaml").write_text("a: [1\n")
    Path("named.py").write_text(
        "import lightning as L\nclass Nameless(L.LightningModule):\n    def __init__(self, lr=1, width=2, /): ...\n"
    )
    Path("twice.yml").write_text("n_trials: 3\nn_trials: 4\n")
    assert main(["tune", *line, *(["--check=false"] if code == 1 else [])]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert not Path("lightningtune_runs").exists()


def test_there_are_enough_of_them():
    assert len(WRONG_FILES) + len(WRONG_LINES) >= 40


def test_what_is_wrong_is_an_error_of_this_package():
    with pytest.raises(InvalidConfigError, match="is no study file"):
        read_study("study.toml")
    with pytest.raises(ConfigurationError, match="must derive from"):
        build_optimizer(read_study(write(model_class="nets.Points")), Path())


def test_scripts_of_every_part_lie_beside_the_study_file(tmp_path, monkeypatch):
    folder = tmp_path / "study"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    (folder / "beside.py").write_text(
        "import optuna\nclass Sampler(optuna.samplers.RandomSampler): ...\nclass Odd(Exception): ...\n"
        "class Pruner(optuna.pruners.NopPruner): ...\n"
    )
    study = StudyFile(
        base_config={},
        model_class="nets.Line",
        datamodule_class="nets.Points",
        search_space={"lr": ["uniform", 0, 1]},
        sampler="beside.py:Sampler",
        pruner="beside.py:Pruner",
        catch=["beside.py:Odd"],
        experiment_dir=str(tmp_path),
        storage=str(tmp_path / "journal.log"),
        verbose=False,
    )
    made = build_optimizer(study, folder).study
    assert (type(made.sampler).__name__, type(made.pruner).__name__) == ("Sampler", "Pruner")
