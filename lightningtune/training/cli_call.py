"""How a user constructs a LightningCLI: caught once, and done again for each trial."""

from __future__ import annotations

import ast
import contextlib
import copy
import functools
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from torch.utils.data import Dataset

from lightningtune.config.base import FIT
from lightningtune.config.importing import find_script, import_script
from lightningtune.errors import ConfigurationError
from lightningtune.training.data import seeded
from lightningtune.training.messages import one_line
from lightningtune.training.mixture import IMPORT_INSTEAD, of_pytorch_lightning
from lightningtune.training.process_state import quiet_lightning

_PARAMETERS = inspect.signature(LightningCLI.__init__)


@dataclass(frozen=True)
class CliForm:
    """What a LightningCLI takes, read from its own parser."""

    parser: LightningArgumentParser  # takes a config as the subcommand ``fit`` does
    links: Mapping[str, str]  # target to source, as ``link_arguments`` has linked them
    defaults: Namespace
    trainer_defaults: Mapping[str, Any]  # those that a config can hold


@dataclass(frozen=True)
class CliCall:
    """One construction of a LightningCLI."""

    cli: type[LightningCLI]
    state: Mapping[str, Any]  # what the user's ``__init__`` has set before it calls Lightning's
    arguments: Mapping[str, Any]  # of Lightning's ``__init__``, by name

    @classmethod
    def of(cls, cli: LightningCLI, *args: Any, **kwargs: Any) -> CliCall:
        """Return the call in which an instance is about to be given these arguments."""
        arguments = dict(_PARAMETERS.bind(cli, *args, **kwargs).arguments)
        arguments.pop("self")
        return cls(type(cli), dict(vars(cli)), arguments)

    @property
    def name(self) -> str:
        """The class's name."""
        return self.cli.__name__

    def form(self) -> CliForm:
        """Set up the parser, and nothing else."""
        cli, arguments = self._copy()
        links: dict[str, str] = {}
        make = cli.init_parser

        def init_parser(**kwargs: Any) -> LightningArgumentParser:
            parser = make(**kwargs)
            link = parser.link_arguments

            def link_arguments(source: str | tuple[str, ...], target: str, *args: Any, **kwargs: Any) -> None:
                link(source, target, *args, **kwargs)
                links[target] = source if isinstance(source, str) else " and ".join(source)

            parser.link_arguments = link_arguments  # type: ignore[method-assign]
            return parser

        cli.init_parser = init_parser  # type: ignore[method-assign]
        cli.parse_arguments = _stop  # type: ignore[method-assign, assignment]
        # the parser of `fit` alone, as it is without subcommands
        given = arguments.get("parser_kwargs") or {}
        names = cli.subcommands()
        flat = {key: value for key, value in given.items() if key not in names} | given.get(FIT, {})
        arguments |= {"run": False, "args": {}, "parser_kwargs": {**flat, "exit_on_error": False}}
        with _explaining(f"{self.name} cannot set up its parser"):
            _construct(cli, arguments)
            defaults = cli.parser.get_defaults(skip_validation=True)
        plain = {key: value for key, value in cli.trainer_defaults.items() if _is_plain(value)}
        return CliForm(cli.parser, links, defaults, plain)

    def build(
        self,
        config: Mapping[str, Any],
        make_trainer: Callable[..., Trainer] | None = None,
        instantiators: Sequence[Any] = (),
        data_seed: int | None = None,
    ) -> LightningCLI:
        """Return a CLI that has built model, data and Trainer from a config, as ``fit`` does before it trains.

        Its own ``fit``, where it has one, trains then. ``make_trainer`` gets the CLI's class of Trainer, and each
        argument by name; without that function there is no Trainer.
        """
        cli, arguments = self._copy()
        _replace_trainer(cli, make_trainer)
        _add_instantiators(cli, instantiators, data_seed)
        given: dict[str, Any] = {**(arguments.get("parser_kwargs") or {})}
        args: dict[str, Any] = copy.deepcopy({**config})
        if arguments.get("run", True):  # the CLI has subcommands: its hooks expect the config below `fit`
            _hold_fit(cli)
            names = cli.subcommands()
            given = {key: value for key, value in given.items() if key == FIT or key not in names}
            given[FIT] = {**given.get(FIT, {}), "exit_on_error": False}
            cli.subcommands = lambda: {FIT: names[FIT]}  # type: ignore[method-assign]
            args = {"subcommand": FIT, FIT: args}
        arguments |= {"args": args, "parser_kwargs": {**given, "exit_on_error": False}}
        _construct(cli, arguments)
        return cli

    def _copy(self) -> tuple[LightningCLI, dict[str, Any]]:
        """Return an instance as it was when it called Lightning's ``__init__``, and the arguments for that."""
        cli = self.cli.__new__(self.cli)
        try:
            state, arguments = copy.deepcopy((dict(self.state), dict(self.arguments)))
        except Exception as error:  # copying runs whatever code the objects have
            raise ConfigurationError(
                f"cli: each trial gets a copy of what {self.name} is given, which cannot be copied: {error}."
            ) from error
        vars(cli).update(state)
        return cli, arguments


def _hold_fit(cli: LightningCLI) -> None:
    """Have a CLI end where it would call its own ``fit``, which is then to be called with the same arguments."""
    own_fit = getattr(cli, FIT, None)

    def hold(**kwargs: Any) -> None:
        cli.fit = own_fit and functools.partial(own_fit, **kwargs)  # type: ignore[attr-defined]
        raise _FarEnough

    cli.fit = hold  # type: ignore[attr-defined]


def _replace_trainer(cli: LightningCLI, make_trainer: Callable[..., Trainer] | None) -> None:
    """Have a CLI make its Trainer with a function of ours; without one, end before there is a Trainer."""
    instantiate_trainer = cli.instantiate_trainer

    def instantiate_ours(**kwargs: Any) -> Trainer:
        if make_trainer is None:
            raise _FarEnough
        trainer_class = cli.trainer_class
        cli.trainer_class = lambda **settings: make_trainer(trainer_class, **settings)
        trainer: Trainer = instantiate_trainer(**kwargs)
        cli.trainer_class = trainer_class
        return trainer

    cli.instantiate_trainer = instantiate_ours  # type: ignore[method-assign]


def _add_instantiators(cli: LightningCLI, instantiators: Sequence[Any], data_seed: int | None) -> None:
    """Have a CLI's parser make instances with ours, and datamodules and datasets with the data's seed."""
    make_parser = cli.init_parser

    def init_parser(**kwargs: Any) -> LightningArgumentParser:
        parser = make_parser(**kwargs)
        add = parser.add_instantiator

        def add_instantiator(make: Callable[..., Any], kind: type, *args: Any, **kwargs: Any) -> None:
            if isinstance(kind, type) and issubclass(kind, (LightningDataModule, Dataset)):
                make = seeded(make, data_seed)
                kwargs["prepend"] = True  # Lightning's own notes the arguments, and comes before ours
            with warnings.catch_warnings():  # jsonargparse deprecates what Lightning calls too
                warnings.simplefilter("ignore", DeprecationWarning)
                add(make, kind, *args, **kwargs)

        for make, kind, _ in (*instantiators, (_instantiate, Dataset, True), (_instantiate, LightningDataModule, True)):
            add_instantiator(make, kind)
        parser.add_instantiator = add_instantiator
        return parser

    cli.init_parser = init_parser  # type: ignore[method-assign]


def _instantiate(kind: type, *args: Any, **kwargs: Any) -> Any:
    return kind(*args, **kwargs)


class _FarEnough(BaseException):  # it is no error, and nothing but this file is to catch it
    """A LightningCLI has got as far as is wanted."""


def _stop(*args: Any) -> None:
    raise _FarEnough


def _construct(cli: LightningCLI, arguments: Mapping[str, Any]) -> None:
    with contextlib.suppress(_FarEnough), _with_argv(sys.argv[:1]):
        LightningCLI.__init__(cli, **arguments)


@contextlib.contextmanager
def _explaining(what: str) -> Iterator[None]:
    """Turn what the user's code raises into a `ConfigurationError` that says what could not be done."""
    try:
        with quiet_lightning():
            yield
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:
        reason = one_line(error) if isinstance(error, Exception) else error
        raise ConfigurationError(f"{what}: {type(error).__name__}: {reason}") from error


@contextlib.contextmanager
def _with_argv(argv: list[str]) -> Iterator[None]:
    """Hide the command line: it is another program's."""
    before = sys.argv
    sys.argv = argv
    try:
        yield
    finally:
        sys.argv = before


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, (bool, int, float, str))


CliLike: TypeAlias = CliCall | Callable[..., Any] | str | os.PathLike[str]
"""A LightningCLI, a subclass, a function that constructs one, or the path of a script that does."""
_OTHER_WAYS = (
    "A script that calls Trainer.fit by itself is tuned without cli: `lightningtune init train.py:Net` writes a study "
    "file for its model, OptunaDrivenOptimizer(model_class=Net) runs the study from Python, and TuneCallback(trial) "
    "makes its Trainer.fit an Optuna objective."
)


def catch_cli(given: CliLike) -> CliCall:
    """Run what constructs a LightningCLI until it does, and return how; nothing of it is built."""
    if isinstance(given, CliCall):
        return given
    if isinstance(given, (str, os.PathLike)):
        path = os.fspath(given)
        script = find_script("cli", path)
        if script is None:
            raise ConfigurationError(f"cli: '{path}' is no script, whose name ends in .py.")
        return _run_until_cli(lambda: _run_script(path, script), f"the script '{path}'", [str(script)])
    if not callable(given) or (inspect.isclass(given) and not issubclass(given, LightningCLI)):
        raise ConfigurationError(
            "cli must be a LightningCLI, a subclass, a function that constructs one, or a path of a script that does, "
            f"but got {given!r}.{of_pytorch_lightning(given)}"
        )
    return _run_until_cli(given, getattr(given, "__name__", repr(given)), sys.argv[:1])


class _Constructed(BaseException):
    """A LightningCLI is being constructed."""

    def __init__(self, call: CliCall) -> None:
        self.call = call


class _Trains(BaseException):
    """A Trainer is being constructed outside of a LightningCLI."""


def _run_until_cli(construct: Callable[[], Any], name: str, argv: list[str]) -> CliCall:
    original, original_of_trainer = LightningCLI.__init__, Trainer.__init__

    def catch(self: LightningCLI, *args: Any, **kwargs: Any) -> None:
        raise _Constructed(CliCall.of(self, *args, **kwargs))

    def refuse(self: Trainer, *args: Any, **kwargs: Any) -> None:
        raise _Trains

    LightningCLI.__init__ = catch  # type: ignore[method-assign]
    Trainer.__init__ = refuse  # type: ignore[method-assign]
    try:
        with _explaining(f"cli: {name} cannot be run without arguments to find its LightningCLI"), _with_argv(argv):
            construct()
    except _Constructed as constructed:
        return constructed.call
    except _Trains:
        raise ConfigurationError(
            f"cli: {name} makes a Trainer of its own, and no LightningCLI. {_OTHER_WAYS}"
        ) from None
    finally:
        LightningCLI.__init__ = original  # type: ignore[method-assign]
        Trainer.__init__ = original_of_trainer  # type: ignore[method-assign]
    raise ConfigurationError(f"cli: {name} constructs no LightningCLI.")


def _run_script(path: str, script: Path) -> None:
    """Import a script, and then do what it does when it is run: so its classes can be found in trials' processes."""
    tree = ast.parse(script.read_text(encoding="utf-8"), str(script))
    if any(map(_imports_other_lightning, ast.walk(tree))):  # neither its CLI nor its Trainer is caught
        raise ConfigurationError(f"cli: '{path}' imports pytorch_lightning, {IMPORT_INSTEAD}")
    module = import_script("cli", path, script)
    guards = ("__name__ == '__main__'", "'__main__' == __name__")
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) in guards:
            exec(compile(ast.Module(node.body, []), str(script), "exec"), vars(module))


def _imports_other_lightning(node: ast.AST) -> bool:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
    return any(name.partition(".")[0] == "pytorch_lightning" for name in names)
