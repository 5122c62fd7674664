"""Every error LightningTune raises, and the one helper that writes "did you mean".

::

    LightningTuneError
    ├── ConfigurationError (ValueError)   a mistake in what the user asked for; it ends the study
    │   ├── SearchSpaceError              in a search space
    │   ├── ConfigError                   in a config, or in a path into one
    │   └── MetricError                   a metric that is not logged, or a mode that contradicts
    ├── TrialError                        one trial went wrong; the study goes on
    │   └── NonFiniteError                the metric or the loss became NaN or infinite
    └── NoResultError (LookupError)       a best trial was asked for and there is none
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LightningTuneError(Exception):
    """The root of the tree: catches everything raised by this package on purpose."""


class ConfigurationError(LightningTuneError, ValueError):
    """What the user asked for cannot be done; no trial would succeed."""


class SearchSpaceError(ConfigurationError):
    """A search space is malformed, or names something that does not exist."""


class ConfigError(ConfigurationError):
    """A config is malformed, or a path leads nowhere in it."""


class MetricError(ConfigurationError):
    """A metric is not logged, or its mode contradicts the study's direction."""


class TrialError(LightningTuneError):
    """One trial failed."""


class NonFiniteError(TrialError):
    """The monitored metric or the training loss became NaN or infinite, and the policy is ``"fail"``."""


class NoResultError(LightningTuneError, LookupError):
    """There is no completed trial, or no single best one."""


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the option nearest to ``name``, or an empty string.

    The last component of a dotted path counts on its own, so that ``model.lr`` is near ``model.init_args.lr``.

    Example:
        >>> did_you_mean("val_los", ["train_loss", "val_loss"])
        " Did you mean 'val_loss'?"
    """
    options = list(options)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if not near:
        leaves = {option.rpartition(".")[2]: option for option in reversed(options)}
        leaf = name.rpartition(".")[2]
        found = difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.5)
        found = found or [other for other in leaves if leaf in _initials_and_parts(other)]
        near = [leaves[found[0]]] if found else []
    return f" Did you mean '{near[0]}'?" if near else ""


def _initials_and_parts(name: str) -> set[str]:
    parts = name.split("_")
    return {"".join(part[:1] for part in parts), *parts}
