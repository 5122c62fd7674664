"""The note of a trial: what it was, in Markdown, as optuna-dashboard shows it."""

from __future__ import annotations

import re
import string

from lightningtune.study.results import TrialResult
from lightningtune.wording import counted, spent


def note_of(trial: TrialResult) -> str:
    """Say what a trial is, or was; "" where nothing is known but its state.

    Args:
        trial: the trial.
    """
    work = [counted(trial.epochs, "epoch")] if trial.epochs else []
    work += [spent(trial.duration)] if trial.duration else []
    work += [plain_text(trial.facts.device)] if trial.facts.device else []
    said = [plain_text(trial.detail)] if trial.detail else []
    said += ["It trains the untuned defaults."] if trial.is_baseline else []
    if trial.continues is not None:
        said.append(f"It goes on from trial {trial.continues}, which was cut short.")
    if trial.continued_by is not None:
        said.append(f"Trial {trial.continued_by} goes on from it, and counts in its place.")
    said += [f"Folder: {code(str(trial.directory))}"] if trial.directory.is_dir() else []
    return "\n\n".join([" · ".join([f"**{trial.outcome}**", *work]), *said]) if work or said else ""


def plain_text(text: str) -> str:
    r"""Return a text that Markdown shows as it is: whatever it could read as its own stands behind a backslash.

    Example:
        >>> print(plain_text("loss_1"))
        loss\_1
    """
    return re.sub(f"[{re.escape(string.punctuation)}]", r"\\\g<0>", " ".join(text.split()))


def code(text: str) -> str:
    """Return a text that Markdown shows as it is, in letters of one width.

    Example:
        >>> code("a/b"), code("a`b")
        ('`a/b`', '``a`b``')
    """
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"
