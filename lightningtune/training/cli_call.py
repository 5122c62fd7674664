"""One construction of a LightningCLI, done again for each trial."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from torch.utils.data import Dataset

from lightningtune.errors import ConfigurationError
from lightningtune.training.data import seeded
from lightningtune.training.messages import one_line
from lightningtune.training.quiet import quiet_lightning

FIT = "fit"
_PARAMETERS = inspect.signature(LightningCLI.__init__)


@dataclass
class BuiltCli:
    """What a LightningCLI has built.

    Attributes:
        model: the model.
        datamodule: the datamodule; None where the model has the dataloaders.
        trainer: the Trainer; None where it was not asked for.
        fit: the CLI's own method for the subcommand ``fit``, where it has one.
    """

    model: LightningModule
    datamodule: LightningDataModule | None
    trainer: Trainer | None
    fit: Callable[..., Any] | None


@dataclass(frozen=True)
class CliForm:
    """What a LightningCLI takes, read from its own parser.

    Attributes:
        parser: takes a config as the subcommand ``fit`` does.
        links: target to source, as ``link_arguments`` has linked them.
        defaults: of every key.
        trainer_defaults: those that a config could hold.
    """

    parser: LightningArgumentParser
    links: Mapping[str, str]
    defaults: Namespace
    trainer_defaults: Mapping[str, Any]


@dataclass(frozen=True)
class CliCall:
    """One construction of a LightningCLI.

    Attributes:
        cli: the class.
        state: what the user's ``__init__`` has set before it calls Lightning's.
        arguments: of Lightning's ``__init__``, by name.
    """

    cli: type[LightningCLI]
    state: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)

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
        """Set up the parser, and nothing else.

        Raises:
            ConfigurationError: when that raises, saying what.
        """
        cli, arguments = self._again()
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

        def parse_arguments(parser: Any, args: Any) -> None:
            raise _Enough

        cli.init_parser, cli.parse_arguments = init_parser, parse_arguments  # type: ignore[method-assign]
        given = arguments.get("parser_kwargs") or {}
        names = cli.subcommands()
        flat = {key: value for key, value in given.items() if key not in names} | given.get(FIT, {})
        arguments |= {"run": False, "args": {}, "parser_kwargs": {**flat, "exit_on_error": False}}
        with understood(f"{self.name} cannot set up its parser"):
            self._construct(cli, arguments)
            defaults = cli.parser.get_defaults(skip_validation=True)
        plain = {key: value for key, value in cli.trainer_defaults.items() if _is_plain(value)}
        return CliForm(cli.parser, links, defaults, plain)

    def build(
        self,
        config: Mapping[str, Any],
        make_trainer: Callable[..., Trainer] | None = None,
        instantiators: Sequence[Any] = (),
        data_seed: int | None = None,
    ) -> BuiltCli:
        """Have the CLI build model, data and Trainer from a config, as ``fit`` does before it trains.

        Args:
            config: of the subcommand ``fit``.
            make_trainer: called with the CLI's own ``trainer_class``, and with each of its arguments by name; without
                it there is no Trainer.
            instantiators: what the CLI's parser is to make instances with.
            data_seed: the study's, with which the datamodule and datasets are made.

        Raises:
            ConfigurationError: when the CLI's parser refuses the config.
        """
        cli, arguments = self._again()
        instantiate_trainer, make_parser = cli.instantiate_trainer, cli.init_parser
        own_fit = getattr(cli, FIT, None)

        def with_ours(**kwargs: Any) -> Trainer:
            if make_trainer is None:
                raise _Enough
            trainer_class = cli.trainer_class
            cli.trainer_class = lambda **settings: make_trainer(trainer_class, **settings)
            try:
                return instantiate_trainer(**kwargs)
            finally:
                cli.trainer_class = trainer_class

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

            for make, kind, _ in (*instantiators, (_construct, Dataset, True), (_construct, LightningDataModule, True)):
                add_instantiator(make, kind)
            parser.add_instantiator = add_instantiator
            return parser

        given_to_fit: dict[str, Any] = {}

        def stop(**kwargs: Any) -> None:
            given_to_fit.update(kwargs)
            raise _Enough

        cli.instantiate_trainer = with_ours  # type: ignore[method-assign]
        cli.init_parser = init_parser  # type: ignore[method-assign]
        given: dict[str, Any] = {**(arguments.get("parser_kwargs") or {})}
        args: dict[str, Any] = copy.deepcopy({**config})
        if arguments.get("run", True):
            cli.fit = stop  # type: ignore[attr-defined]
            names = cli.subcommands()
            given = {key: value for key, value in given.items() if key == FIT or key not in names}
            given[FIT] = {**given.get(FIT, {}), "exit_on_error": False}
            cli.subcommands = lambda: {FIT: names[FIT]}  # type: ignore[method-assign]
            args = {"subcommand": FIT, FIT: args}
        arguments |= {"args": args, "parser_kwargs": {**given, "exit_on_error": False}}
        self._construct(cli, arguments)
        fit = None if own_fit is None else functools.partial(own_fit, **given_to_fit)
        return BuiltCli(cli.model, cli.datamodule, getattr(cli, "trainer", None), fit)

    def _again(self) -> tuple[LightningCLI, dict[str, Any]]:
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

    def _construct(self, cli: LightningCLI, arguments: Mapping[str, Any]) -> None:
        with contextlib.suppress(_Enough), with_argv(sys.argv[:1]):
            LightningCLI.__init__(cli, **arguments)


def _construct(kind: type, *args: Any, **kwargs: Any) -> Any:
    return kind(*args, **kwargs)


class _Enough(BaseException):  # it is no error, and nothing but this file is to catch it
    """A LightningCLI has got as far as is wanted."""


@contextlib.contextmanager
def understood(what: str) -> Iterator[None]:
    """Say what it means that the user's code raises."""
    try:
        with quiet_lightning():
            yield
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {one_line(error) if isinstance(error, Exception) else error}"
        raise ConfigurationError(f"{what}: {said}") from error


@contextlib.contextmanager
def with_argv(argv: list[str]) -> Iterator[None]:
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
