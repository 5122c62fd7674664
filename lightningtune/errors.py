"""Every error LightningTune raises, and what its message is written with: the nearest name, and no password.

::

    LightningTuneError
    ├── ConfigurationError (ValueError)   a mistake in what the user asked for; it ends the study
    │   ├── SearchSpaceError              in a search space
    │   ├── InvalidConfigError            in a config, or in a path into one
    │   ├── MetricError                   a metric that is not logged, or a mode that contradicts
    │   └── SharedWeightsError            weights that one trial hands on to the next
    ├── TrialError                        one trial went wrong; the study goes on
    │   └── NonFiniteError                the metric or the loss became NaN or infinite
    └── NoResultError (LookupError)       a best trial was asked for and there is none
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any


class LightningTuneError(Exception):
    """The root of the tree: catches everything raised by this package on purpose. No message shows a URL's password."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*(redact(arg) if isinstance(arg, str) else arg for arg in args))


class ConfigurationError(LightningTuneError, ValueError):
    """What was asked for cannot be done, and no trial would succeed; raised before the first epoch if possible.

    Example:
        ``n_jobs must be at most 1000, which is what one machine runs, but got 2000.``
    """


class SearchSpaceError(ConfigurationError):
    """A search space is malformed, or names a parameter that does not exist; raised when it is given.

    Example:
        ``{"lr": ("loguniform", 0, 1)}``, whose lower end must be above 0.
    """


class InvalidConfigError(ConfigurationError):
    """A config is malformed, or a path leads nowhere in it; raised when it is read or checked.

    Example:
        ``The file 'config.yml' does not exist. In its folder: config.yaml.``
    """


class MetricError(ConfigurationError):
    """A metric is not logged, or its mode contradicts the study's direction; raised by the first trial at the latest.

    Example:
        ``metric="val_los"`` where the model logs ``val_loss``.
    """


class SharedWeightsError(ConfigurationError):
    """Models of several trials hold the same parameters; raised by the second trial, which would train the first's on.

    Example:
        A ``model_class`` that is a function and returns the same backbone each time.
    """


class TrialError(LightningTuneError):
    """One trial failed; raised where its failure is not caught, and kept as the ``error`` of its outcome.

    Example:
        ``the trial's process was killed by SIGSEGV``
    """


class NonFiniteError(TrialError):
    """The metric or the training loss became NaN or infinite; raised where the policy is ``"fail"``, and for a score.

    Example:
        A learning rate that is far too large, where non-finite values are to fail a trial.
    """


class NoResultError(LightningTuneError, LookupError):
    """There is no completed trial, or no single best one; raised where the best is asked for.

    Example:
        ``get_best_config()`` before the first trial has completed.
    """


_SECRETS = (
    re.compile(r"\A(?P<before>[\w+.-]{1,40}://)(?!/).{0,1000}(?=@)"),  # the text is a URL: a password may hold spaces
    re.compile(r"(?P<before>(?P<quote>['\"`])[\w+.-]{1,40}://)(?!/)(?:(?!(?P=quote)).){0,1000}(?=@)"),
    re.compile(r"(?P<before>://)(?!/)[^\s'\"`]{0,1000}(?=@)"),
    re.compile(r"(?P<before>[?&;][\w.-]{0,40}(?:pass|pwd|secret|token|key)[\w.-]{0,40}=)[^\s&;'\"`]+", re.IGNORECASE),
)
"""What a URL shows of its user: the user and the password before the host, and such parameters behind it.

The limits of length keep a search through a long text short.
"""


def redact(text: str) -> str:
    """Return a text in which no URL has a user, a password, a token or a key.

    Args:
        text: a URL, or any text with URLs in it.

    Example:
        >>> redact("no route to postgresql://me:1234@host/db?sslmode=off&password=1234")
        'no route to postgresql://***@host/db?sslmode=off&password=***'
    """
    if "://" not in text:
        return text
    for secret in _SECRETS:
        text = secret.sub(r"\g<before>***", text)
    return text


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the option nearest to ``name``, or an empty string.

    Of a dotted path the last component counts, and the rest decides between equals; ``lr`` and ``learning_rate`` are
    near each other.

    Example:
        >>> did_you_mean("val_los", ["train_loss", "val_loss"])
        " Did you mean 'val_loss'?"
        >>> did_you_mean("model.lr", ["data.lr", "model.init_args.learning_rate"])
        " Did you mean 'model.init_args.learning_rate'?"
    """
    nearest = max(options, key=lambda option: _nearness(name, option), default="")
    return f" Did you mean '{nearest}'?" if nearest and _nearness(name, nearest) > 0.66 else ""


def _nearness(name: str, option: str) -> float:
    leaf, other = (text.rpartition(".")[2].lower() for text in (name, option))
    near = difflib.SequenceMatcher(None, leaf, other).ratio()
    if leaf in other or other in leaf:
        near = max(near, 0.7) if min(len(leaf), len(other)) > 2 else near
    if leaf == _initials(other) or other == _initials(leaf):
        near = max(near, 0.9)
    same_section = "." not in name or name.partition(".")[0] == option.partition(".")[0]
    whole = difflib.SequenceMatcher(None, name, option).ratio()
    return near + 0.01 * whole if same_section else near * 0.8 + 0.01 * whole


def _initials(name: str) -> str:
    """Return ``lr`` for ``learning_rate``, and nothing for a name of one word."""
    parts = name.split("_")
    return "".join(part[:1] for part in parts) if len(parts) > 1 else ""
