import sys

import clis
import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI
from nets import Line, Points

from lightningtune import ConfigurationError
from lightningtune.training.cli_call import catch_cli
from lightningtune.training.quiet import quiet_lightning


def test_the_form_knows_links_and_defaults():
    form = catch_cli(clis.linked).form()
    assert form.links == {"model.batch_size": "data.batch_size", "model.depth": "depth"}
    assert form.defaults["early_stopping"]["monitor"] == "val_loss"
    assert form.trainer_defaults == {"accelerator": "cpu", "max_epochs": 2}


def test_a_parser_that_cannot_be_set_up_is_said():
    class Wrong(LightningCLI):
        def add_arguments_to_parser(self, parser):
            parser.link_arguments("data.batch_sise", "model.lr")

    with pytest.raises(ConfigurationError, match="Wrong cannot set up its parser: .*batch_sise"):
        catch_cli(lambda: Wrong(Line, Points)).form()


def trainer_of(trainer_class, **settings):
    return trainer_class(**settings)


def test_a_cli_is_built_again_and_again_each_with_its_own(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pytest", "--not-for-the-cli"])
    call = catch_cli(clis.linked)
    config = {"seed_everything": 1, "depth": 3, "data": {"batch_size": 2}, "trainer": {"max_epochs": 1}}
    with quiet_lightning():
        built, again = (call.build(config, trainer_of) for _ in range(2))
    assert (built.model.hparams.depth, built.model.hparams.batch_size) == (3, 2)
    assert built.model.seen == again.model.seen == ["before", "after", "before_fit"]
    assert built.model is not again.model
    assert isinstance(built.trainer, Trainer)
    assert sys.argv[1:] == ["--not-for-the-cli"]
    assert call.state == {"seen": []}


def test_a_cli_that_is_not_run_is_built_as_it_is():
    call = catch_cli(clis.not_run)
    with quiet_lightning():
        built, without = call.build({"model": {"lr": 0.3}}, trainer_of), call.build({"model": {"lr": 0.3}})
    assert built.model.lr == without.model.lr == 0.3
    assert isinstance(built.trainer, Trainer)
    assert not hasattr(without, "trainer")


def test_what_cannot_be_copied_is_said():
    def main():
        LightningCLI(Line, Points, trainer_defaults={"callbacks": (value for value in ())})

    with pytest.raises(ConfigurationError, match="each trial gets a copy of what LightningCLI is given"):
        catch_cli(main).form()
