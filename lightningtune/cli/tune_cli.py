"""`TuneCLI`: LightningCLI with the subcommand ``tune``; a user's own command line tunes itself."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace, class_from_function  # type: ignore[attr-defined]  # it is public all the same
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lightningtune.cli.building import build_optimizer
from lightningtune.cli.check import check_first
from lightningtune.cli.main import COULD_NOT, INTERRUPTED, describe_error
from lightningtune.cli.output import tell
from lightningtune.cli.start import StudyStart, get_exit_code, run_started
from lightningtune.cli.study_file import StudyFile, descriptions, fill_in_storage, hints, read_study, read_value
from lightningtune.config.base import FIT
from lightningtune.errors import InvalidConfigError, LightningTuneError
from lightningtune.files import load_yaml
from lightningtune.study.outage import is_of_storage
from lightningtune.training.cli_call import CliCall
from lightningtune.training.lightning_cli import without_defaults

if TYPE_CHECKING:
    import optuna

    from lightningtune.optimizer import OptunaDrivenOptimizer

TUNE = "tune"
_CHECK = "check"
_HINTS = {**hints(), _CHECK: bool}
_DEFAULTS = {**{field.name: field.default for field in dataclasses.fields(StudyFile)}, _CHECK: True}
_DESCRIPTIONS = {
    **descriptions(),
    "study_name": "the study's name, and its folder's; optuna_study when not given.",
    _CHECK: "check the study before it runs.",
}


class TuneCLI(LightningCLI):
    """LightningCLI with one more subcommand: ``tune`` takes the config of ``fit``, and runs a study with it.

    It takes LightningCLI's arguments, and is subclassed as LightningCLI is. After ``tune``, the attributes ``tuner``
    and ``study`` hold the optimizer and Optuna's study; there is no model and no Trainer.

    Example:
        ::

            # train.py
            from lightningtune.cli import TuneCLI

            if __name__ == "__main__":
                TuneCLI(Net, Data)

            # in a shell:
            # python train.py tune --config config.yaml --space space.yaml --metric val_loss --n_trials 30
    """

    tuner: OptunaDrivenOptimizer
    study: optuna.Study

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._call = CliCall.of(self, *args, **kwargs)
        with contextlib.suppress(_Tuned):
            super().__init__(*args, **kwargs)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """List the subcommands: Lightning's, and ``tune``."""
        return {**LightningCLI.subcommands(), TUNE: set()}

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """Set up the parser; Lightning takes a subcommand's options from a method of the Trainer's class."""
        trainer_class = self.trainer_class
        if add_subcommands:
            self.trainer_class = _with_tune(trainer_class, _options())
        try:
            super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
        finally:
            self.trainer_class = trainer_class

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Make a parser; one for ``tune`` calls an option of ours otherwise where the user's CLI has its name."""
        parser = super().init_parser(**kwargs)
        add = parser.add_method_arguments

        def add_method_arguments(klass: type, method: str, *args: Any, **kwargs: Any) -> Any:
            if method == TUNE:  # what the user's CLI adds, it has added
                self._options = _options(_get_names(parser))
                klass = _with_tune(klass, self._options)
            return add(klass, method, *args, **kwargs)

        parser.add_method_arguments = add_method_arguments
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line; for ``tune``, run the study in place of all that follows."""
        super().parse_arguments(parser, args)
        if self.config.get("subcommand") != TUNE:
            return
        try:
            self._tune(self.config[TUNE], args is None)
            code = get_exit_code(self.tuner.results())
        except (Exception, KeyboardInterrupt) as error:
            is_foreseen = isinstance(error, (LightningTuneError, OSError, KeyboardInterrupt)) or is_of_storage(error)
            if args is not None or not is_foreseen:  # of what is not, the traceback is needed
                raise
            if isinstance(error, Exception):
                tell(f"{Path(sys.argv[0]).name} {TUNE}: {describe_error(error)}")
            raise SystemExit(COULD_NOT if isinstance(error, Exception) else INTERRUPTED) from None
        if args is None and code:
            raise SystemExit(code)
        raise _Tuned

    def _tune(self, given: Namespace, is_command: bool) -> None:
        study = self._read_study(given)
        self.tuner = build_optimizer(study, Path(), self._call)
        check = self._options[_CHECK]
        if given[check]:
            check_first(self.tuner, study, f"--{check} false")
        script = Path(sys.argv[0]).absolute()
        if is_command and script.suffix == ".py":  # `lightningtune resume` can run it again
            start = StudyStart(dataclasses.replace(study, cli=str(script)), script.parent, Path.cwd())
            self.study = run_started(self.tuner, start)
        else:
            self.study = self.tuner.optimize()

    def _read_study(self, given: Namespace) -> StudyFile:
        """Return what a study file would hold for these options, the config of ``fit`` among it."""
        form = self._call.form()
        known = vars(form.defaults)
        for name in _get_fit_parameters(self.trainer_class):
            if name not in known and given.get(name) is not None:
                raise InvalidConfigError(f"{name} is for one fit, but each trial begins afresh. Leave it out.")
        config = Namespace()  # type: ignore[no-untyped-call]
        for name, value in vars(given).items():
            if name in known and name != "config":
                config[name] = value
        written = load_yaml(form.parser.dump(config, skip_default=True, skip_validation=True))
        options = {name: given.get(option) for name, option in self._options.items() if name != _CHECK}
        texts = {name: read_value(name, value) for name, value in options.items() if isinstance(value, str)}
        study = read_study(None, {name: value for name, value in {**options, **texts}.items() if value is not None})
        return fill_in_storage(dataclasses.replace(study, base_config=without_defaults(written or {})))


class _Tuned(BaseException):
    """A study has been run, and the command is done."""


def _options(taken: Collection[str] = ()) -> Mapping[str, str]:
    """Return the options of ``tune``, by the names of a study file; one that is taken has ``study_`` before it."""
    of_the_cli = ("base_config", "model_class", "datamodule_class", "cli")
    options = {name: "space" if name == "search_space" else name for name in _HINTS if name not in of_the_cli}
    return {name: f"study_{option}" if option in taken else option for name, option in options.items()}


def _get_names(parser: LightningArgumentParser) -> Collection[str]:
    """Return the names at the top of what a parser takes so far, which a config of defaults need not fit yet."""
    files, parser.default_config_files = parser.default_config_files, []
    try:
        return vars(parser.get_defaults(skip_validation=True)).keys()
    finally:
        parser.default_config_files = files


def _get_fit_parameters(trainer_class: type[Trainer] | Callable[..., Trainer]) -> list[str]:
    """Return what stands in a config that ``fit`` has printed, beside what every subcommand has."""
    fit = inspect.signature(getattr(trainer_class, FIT, Trainer.fit))
    return [name for name in fit.parameters if name not in {"self", *LightningCLI.subcommands()[FIT]}]


def _with_tune(trainer_class: type[Trainer] | Callable[..., Trainer], options: Mapping[str, str]) -> type[Trainer]:
    """Return the Trainer's class with a method that has the options of ``tune``, and does nothing."""
    base: Any = trainer_class if inspect.isclass(trainer_class) else class_from_function(trainer_class)
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(option, keyword, default=_DEFAULTS[name], annotation=_HINTS[name])
        for name, option in options.items()
    ]
    described = {option: _DESCRIPTIONS[name] for name, option in options.items()}
    for name in _get_fit_parameters(trainer_class):
        parameters.append(inspect.Parameter(name, keyword, default=None, annotation=Any))
        described[name] = "stands in configs that fit has printed; only null."

    def tune(self: Trainer, **given: Any) -> None: ...

    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    tune.__signature__ = inspect.Signature([this, *parameters])  # type: ignore[attr-defined]
    tune.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    tune.__doc__ = "\n".join(
        ["Runs a study, in which each trial is a fit, or goes on with it.", "", "Args:"]
        + [f"    {name}: {text}" for name, text in described.items()]
    )
    return type(base.__name__, (base,), {TUNE: tune, "__module__": base.__module__, "__doc__": base.__doc__})
