"""The text of a study file for a model and its data: guessed where that can be done, commented where not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lightningtune.cli.guessing import Guess, guess_space
from lightningtune.cli.logged import best_guess, logged_metrics
from lightningtune.files import dump_yaml
from lightningtune.search.spaces import SimpleSearchSpace
from lightningtune.search.tunable import search_space_of


@dataclass(frozen=True)
class Draft:
    """A study file that was written for somebody.

    Attributes:
        text: the file's.
        tuned: how many parameters are tuned.
        left: how many stand there commented.
        missing: what has to be filled in for it to run, in a phrase each.
    """

    text: str
    tuned: int
    left: int
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """The model, or the data.

    Attributes:
        section: of the config, "model" or "data".
        name: as the study file names it.
        target: the class or the function.
    """

    section: str
    name: str
    target: Callable[..., Any]

    def guesses(self) -> list[Guess]:
        """Return what its arguments might vary over; of the data's numbers, only the batch size is sure."""
        return [
            dataclasses.replace(guess, is_sure=False, note=f"the model may depend on it; {guess.note}")
            if self.section == "data" and guess.is_sure and _is_count(guess) and not guess.name.endswith("batch_size")
            else guess
            for guess in guess_space(self.target)
        ]


def _is_count(guess: Guess) -> bool:
    values = {} if guess.spec is None else guess.spec
    return all(type(value) is int for value in values.get("choices", [values.get("low")]))


def draft_of(model: Part, data: Part | None, brings_data: bool = False, cli: str | None = None) -> Draft:
    """Write a study file for a model.

    Args:
        model: the model.
        data: its data, where that is known.
        brings_data: whether the model has dataloaders of its own.
        cli: the script or the name of a LightningCLI, which builds both.

    Example:
        >>> def net(lr: float = 1e-3): ...
        >>> draft = draft_of(Part("model", "net:net", net), None, brings_data=True)
        >>> draft.tuned, draft.missing
        (1, ('metric: nothing that a validation logs was found in net:net',))
    """
    parts = [model] if data is None else [model, data]
    guesses = [(part, guess) for part in parts for guess in part.guesses()]
    declared = any(search_space_of(part.target) is not None for part in parts)
    logged = logged_metrics(model.target)
    chosen = best_guess(logged)
    missing = [
        f"base_config.{part.section}.{guess.name}, which has no default"
        for part, guess in guesses
        if guess.is_required and guess.value is None
    ]
    if data is None and not brings_data and cli is None:
        missing.append("datamodule_class, the data that the model trains on")
    if chosen is None:
        missing.append(f"metric: nothing that a validation logs was found in {model.name}")
    tuned = [guess for _, guess in guesses if guess.is_sure]
    if not tuned and not declared:
        missing.append("search_space: nothing could be guessed")
    lines = [
        *_head(model),
        *(_named(model, data, brings_data) if cli is None else (f"cli: {cli}", "")),
        *_config(guesses, parts, has_cli=cli is not None),
        *(_declared(parts) if declared else _space(guesses, bool(tuned))),
        *_objective(logged, chosen),
        *_search(),
    ]
    count = sum(_size(part) for part in parts) if declared else len(tuned)
    return Draft("\n".join(lines) + "\n", count, 0 if declared else len(guesses) - len(tuned), tuple(missing))


def _head(model: Part) -> Iterator[str]:
    yield f"# A study of {model.name}. What is guessed here is a beginning: change it as you like."
    yield "# 'lightningtune tune' runs this file; its --help says what else may stand here. Any value can be given on"
    yield "# the command line too: --n_trials 100 --trainer.max_epochs 20"
    yield ""


def _named(model: Part, data: Part | None, brings_data: bool) -> Iterator[str]:
    yield f"model_class: {model.name}"
    if data is not None:
        yield f"datamodule_class: {data.name}"
    elif brings_data:
        yield "# datamodule_class:  # the model has dataloaders of its own"
    else:
        yield "# datamodule_class: package.module:Data  # fill in: a LightningDataModule, or what returns dataloaders"
    yield ""


def _config(guesses: list[tuple[Part, Guess]], parts: list[Part], has_cli: bool) -> Iterator[str]:
    yield "# What is the same in every trial." + (" It may be the path of a config of the CLI." if has_cli else "")
    yield "base_config:"
    yield "  trainer:"
    yield "    max_epochs: 10"
    yield "    # accelerator: gpu  # what this machine has, when not given"
    for part in parts:
        held = [guess for owner, guess in guesses if owner is part and (guess.is_required or guess.value is not None)]
        if held:
            is_open = all(guess.value is None for guess in held)
            yield f"  {part.section}:{'  # fill in' if is_open else ''}"
        for guess in held:
            if guess.value is None:
                yield f"    # {guess.name}:  # fill in: {guess.note}"
            else:
                yield f"    {guess.name}: {_flow(guess.value)}"
    yield ""


def _space(guesses: list[tuple[Part, Guess]], has_any: bool) -> Iterator[str]:
    yield "# What varies: each line without a '#'. The types are uniform, loguniform, discrete_uniform, int, int_log"
    yield "# and categorical. The trainer's settings can vary too, as in trainer.gradient_clip_val"
    yield "search_space:" if has_any else "# search_space:  # fill in: nothing could be guessed"
    for part, guess in guesses:
        entry = f"{part.section}.{guess.name}:" + ("" if guess.spec is None else f" {_flow(guess.spec)}")
        yield f"  {'' if guess.is_sure else '# '}{entry}  # {guess.note}"
    yield ""


def _declared(parts: list[Part]) -> Iterator[str]:
    yield "# What varies is declared with @tunable, and can be replaced here as a whole:"
    yield "# search_space:"
    for part in parts:
        space = search_space_of(part.target)
        if isinstance(space, SimpleSearchSpace):
            for name, spec in space.to_dict().items():
                yield f"#   {part.section}.{name}: {_flow(spec)}"
        elif space is not None:
            yield f"#   a function of the trial, of {part.name}"
    yield ""


def _size(part: Part) -> int:
    space = search_space_of(part.target)
    return 0 if space is None else len(space.parameters or ())


def _objective(logged: list[str], chosen: tuple[str, str] | None) -> Iterator[str]:
    metric, direction = chosen or ("val_loss", "minimize")
    found = f"the model logs {', '.join(logged)}" if logged else "as the model logs it in a validation"
    yield f"metric: {_flow(metric)}  # {'' if chosen else 'fill in: '}{found}"
    yield f"direction: {direction}  # or {'maximize' if direction == 'minimize' else 'minimize'}"
    yield ""


def _search() -> Iterator[str]:
    yield "n_trials: 30  # in all: a larger number, and the study goes on"
    yield "n_jobs: 1  # trials at a time; -1 for as many as fit this machine"
    yield "sampler: TPESampler  # any of Optuna's, such as GPSampler, CmaEsSampler, RandomSampler"
    yield "pruner:  # any of Optuna's; it stops trials that fall behind"
    yield "  class_path: MedianPruner"
    yield "  init_args: {n_startup_trials: 5}  # trials that are never stopped"
    yield "# storage: sqlite:///study.db  # or PostgreSQL, for many machines; else a journal in its folder"
    yield "# trial_timeout: 3600  # seconds that one trial may take"


def _flow(value: Any) -> str:
    """Write a value in one line of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return dump_yaml(value).removesuffix("\n...\n").strip() if not isinstance(value, str) else _text(value)


def _text(value: str) -> str:
    return dump_yaml([value]).removeprefix("- ").strip()
