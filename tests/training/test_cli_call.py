import sys
import textwrap

import clis
import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI
from nets import Line, Points

from lightningtune import ConfigurationError
from lightningtune.training.cli_call import catch_cli
from lightningtune.training.process_state import quiet_lightning


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


def test_a_function_is_caught_where_it_constructs_its_cli():
    call = catch_cli(clis.linked)
    assert call.cli is clis.LinkedCLI
    assert call.arguments["model_class"] is clis.Bare
    assert call.state == {"seen": []}
    assert LightningCLI.__init__.__qualname__ == "LightningCLI.__init__", "it is put back"


def test_a_class_stands_for_itself():
    class Own(LightningCLI):
        def __init__(self):
            super().__init__(Line, Points)

    assert catch_cli(Own).arguments == {"model_class": Line, "datamodule_class": Points}
    assert catch_cli(LightningCLI).arguments == {}
    assert catch_cli(catch_cli(Own)) == catch_cli(Own)


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Write a script; its folder is searched, and forgotten at the end."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    written = []

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        written.append(name)
        return tmp_path / f"{name}.py"

    yield write
    for name in written:
        sys.modules.pop(name, None)


def test_a_script_is_run_as_far_as_its_cli(script, capsys):
    path = script(
        "script_of_cli",
        """
        import sys
        from lightning.pytorch.cli import LightningCLI
        from nets import Line, Points

        class Own(Line): ...

        if __name__ == "__main__":
            print("runs", len(sys.argv))
            LightningCLI(Own, Points)
            raise AssertionError("what follows is not run")
        """,
    )
    call = catch_cli(path)
    assert call.arguments["model_class"] is sys.modules["script_of_cli"].Own
    assert capsys.readouterr().out == "runs 1\n"
    assert catch_cli(str(path)).arguments["model_class"] is call.arguments["model_class"], "it is imported once"


def test_a_script_may_have_no_guard(script):
    path = script(
        "script_without_guard",
        """
        from lightning.pytorch.cli import LightningCLI
        from nets import Line, Points

        LightningCLI(Line, Points)
        """,
    )
    assert catch_cli(path).arguments["model_class"] is Line


def test_a_script_that_is_not_there_or_does_something_else_is_said(script, tmp_path):
    with pytest.raises(ConfigurationError, match=r"there is no file '.*nowhere.py'"):
        catch_cli(tmp_path / "nowhere.py")
    with pytest.raises(ConfigurationError, match="constructs no LightningCLI"):
        catch_cli(script("script_of_nothing", "x = 1"))
    with pytest.raises(ConfigurationError, match="another module is called 'json'"):
        catch_cli(script("json", "x = 1"))
    with pytest.raises(ConfigurationError, match="ZeroDivisionError: division by zero"):
        catch_cli(script("script_that_raises", "1 / 0"))
    with pytest.raises(ConfigurationError, match="cannot be imported under the name 'my-train'"):
        catch_cli(script("my-train", "x = 1"))


def test_a_script_that_trains_by_itself_trains_nothing_and_names_the_other_doors(script):
    path = script(
        "script_that_trains",
        """
        from lightning.pytorch import Trainer

        Trainer(max_epochs=1, accelerator="cpu")
        raise AssertionError("what follows is not run")
        """,
    )
    with pytest.raises(ConfigurationError, match="makes a Trainer of its own, and no LightningCLI.*lightningtune init"):
        catch_cli(path)
    assert Trainer(accelerator="cpu", logger=False, enable_checkpointing=False).max_epochs is None, "it is whole again"


@pytest.mark.parametrize("line", ["import pytorch_lightning as pl", "from pytorch_lightning.cli import LightningCLI"])
def test_a_script_of_the_other_lightning_is_not_run(script, line):
    with pytest.raises(ConfigurationError, match="imports pytorch_lightning"):
        catch_cli(script("script_of_the_other_lightning", f"{line}\nraise AssertionError('this is not run')"))


def needs(argument):
    LightningCLI(Line, Points)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Line, "cli must be a LightningCLI"),
        (3, "cli must be a LightningCLI"),
        (needs, "needs cannot be run without arguments"),
        (lambda: None, "constructs no LightningCLI"),
        (lambda: sys.exit("usage"), "SystemExit: usage"),
    ],
)
def test_what_constructs_none_is_refused(given, said):
    with pytest.raises(ConfigurationError, match=said):
        catch_cli(given)
