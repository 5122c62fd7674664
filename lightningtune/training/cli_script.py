"""How a user's script constructs its LightningCLI: run once, as far as it does."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI

from lightningtune.errors import ConfigurationError
from lightningtune.files import expand_home
from lightningtune.training.cli_call import CliCall, understood, with_argv
from lightningtune.training.mixture import IMPORT_INSTEAD, of_pytorch_lightning

CliLike: TypeAlias = "CliCall | Callable[..., Any] | str | os.PathLike[str]"
"""A LightningCLI, a subclass, a function that constructs one, or the path of a script that does."""


def caught(given: CliLike) -> CliCall:
    """Find out how a LightningCLI is constructed; nothing of it is built.

    Args:
        given: a LightningCLI, a subclass, a function that constructs one, or the path of a script that does.

    Raises:
        ConfigurationError: when it is none of these, or constructs none.
    """
    if isinstance(given, CliCall):
        return given
    if isinstance(given, (str, os.PathLike)):
        path = expand_home(given).absolute()
        _check_script(path)
        return _caught(lambda: _run_script(path), f"the script '{given}'", [str(path)])
    name = getattr(given, "__name__", repr(given))
    if not callable(given) or (inspect.isclass(given) and not issubclass(given, LightningCLI)):
        raise ConfigurationError(
            "cli must be a LightningCLI, a subclass, a function that constructs one, or a path of a script that does, "
            f"but got {given!r}.{of_pytorch_lightning(given)}"
        )
    return _caught(given, name, sys.argv[:1])


class _Constructed(BaseException):
    """A LightningCLI is being constructed."""

    def __init__(self, call: CliCall) -> None:
        self.call = call


class _Trains(BaseException):
    """A Trainer is being constructed outside of a LightningCLI."""


def _caught(construct: Callable[[], Any], name: str, argv: list[str]) -> CliCall:
    original, original_of_trainer = LightningCLI.__init__, Trainer.__init__

    def catch(self: LightningCLI, *args: Any, **kwargs: Any) -> None:
        raise _Constructed(CliCall.of(self, *args, **kwargs))

    def refuse(self: Trainer, *args: Any, **kwargs: Any) -> None:
        raise _Trains

    LightningCLI.__init__ = catch  # type: ignore[method-assign]
    Trainer.__init__ = refuse  # type: ignore[method-assign]
    try:
        with understood(f"cli: {name} cannot be run without arguments to find its LightningCLI"), with_argv(argv):
            construct()
    except _Constructed as caught:
        return caught.call
    except _Trains:
        raise ConfigurationError(f"cli: {name} makes a Trainer of its own, and no LightningCLI. {_DOORS}") from None
    finally:
        LightningCLI.__init__ = original  # type: ignore[method-assign]
        Trainer.__init__ = original_of_trainer  # type: ignore[method-assign]
    raise ConfigurationError(f"cli: {name} constructs no LightningCLI.")


def _check_script(path: Path) -> None:
    if not path.is_file():
        raise ConfigurationError(f"cli: there is no script '{path}'.")
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise ConfigurationError(f"cli: the script '{path.name}' cannot be imported under the name '{path.stem}'.")


def _run_script(path: Path) -> None:
    """Import a script, and then do what it does when it is run: so its classes can be found in trials' processes."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    if any(_imports_other_lightning(node) for node in ast.walk(tree)):  # neither its CLI nor its Trainer is caught
        raise ConfigurationError(f"cli: '{path}' imports pytorch_lightning, {IMPORT_INSTEAD}")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    module = importlib.import_module(path.stem)
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).samefile(path):
        raise ConfigurationError(
            f"cli: another module is called '{path.stem}', which is '{file or 'built in'}'. Give '{path}' another name."
        )
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) in _GUARDS:
            exec(compile(ast.Module(node.body, []), str(path), "exec"), vars(module))


def _imports_other_lightning(node: ast.AST) -> bool:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
    return any(name.partition(".")[0] == "pytorch_lightning" for name in names)


_DOORS = (
    "A script that calls Trainer.fit by itself is tuned without cli: `lightningtune init train.py:Net` writes a study "
    "file for its model, OptunaDrivenOptimizer(model_class=Net) runs the study from Python, and TuneCallback(trial) "
    "makes its Trainer.fit an Optuna objective."
)
_GUARDS = ("__name__ == '__main__'", "'__main__' == __name__")
