"""Which metrics a model logs, as far as its source tells without running it."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

_HIGHER_IS_BETTER = r"acc|f1|auc|auroc|ap|precision|recall|dice|iou|r2|psnr|ssim|bleu|rouge|score|reward|kappa|mcc"


def logged_metrics(model: Any) -> list[str]:
    """Return the names that a model's methods hand to ``log`` and ``log_dict``, its own before its bases'.

    Where a name is an f-string of one stage, as ``f"{stage}_loss"``, the stages are those that the class names in its
    calls, as in ``self.step(batch, "val")``. A name that is put together in another way is not found.

    Example:
        >>> class Net:
        ...     def validation_step(self, batch): self.log("val_loss", 0.0)
        >>> logged_metrics(Net)  # no source is kept of what is typed in
        []
    """
    owners = model.__mro__ if inspect.isclass(model) else (model,)
    names: list[str] = []
    for owner in owners:
        if getattr(owner, "__module__", "").split(".")[0] in ("lightning", "torch", "builtins"):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
        except (OSError, TypeError, SyntaxError):  # no source, or none that stands alone
            continue
        names += _logged(tree)
    return list(dict.fromkeys(names))


_STAGES = ("train", "training", "val", "valid", "validation", "dev", "test")


def _logged(tree: ast.AST) -> Iterator[str]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    handed = [value for call in calls for value in (*call.args, *(keyword.value for keyword in call.keywords))]
    texts = [value.value for value in handed if isinstance(value, ast.Constant)]
    stages = [stage for stage in dict.fromkeys(texts) if stage in _STAGES]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            first = node.args[0]
            named = [first] if node.func.attr == "log" else []
            if node.func.attr == "log_dict" and isinstance(first, ast.Dict):
                named = [key for key in first.keys if key is not None]
            for key in named:
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    yield key.value
                elif isinstance(key, ast.JoinedStr):
                    yield from _of_each_stage(key, stages)


def _of_each_stage(name: ast.JoinedStr, stages: Sequence[Any]) -> Iterator[str]:
    """Return the names that an f-string has, where all it puts together is text and one variable, the stage."""
    inserted = [part for part in name.values if isinstance(part, ast.FormattedValue)]
    if len(inserted) == 1 and isinstance(inserted[0].value, ast.Name):
        for stage in stages:
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else stage for part in name.values)


def best_guess(metrics: list[str]) -> tuple[str, str] | None:
    """Return the metric of these that is to be tuned, and its direction; None where none is of a validation.

    Example:
        >>> best_guess(["train_loss", "val_acc"]), best_guess(["train_loss"])
        (('val_acc', 'maximize'), None)
    """
    validated = [name for name in metrics if re.search(r"(^|[_/ ])(val|valid|validation|dev)([_/ ]|$)", name.lower())]
    if not validated:
        return None
    chosen = next((name for name in validated if name.lower().endswith("loss")), validated[0])
    return chosen, "maximize" if re.search(rf"(^|[_/ ])({_HIGHER_IS_BETTER})", chosen.lower()) else "minimize"
