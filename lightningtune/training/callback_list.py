"""The list of a trainer's callbacks: public, but unknown to type checkers, since Lightning sets it elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import Callback, Trainer


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """Return the callbacks, in the order in which their hooks are called."""
    return list(trainer.callbacks)  # type: ignore[attr-defined]


def set_callbacks(trainer: Trainer, callbacks: Sequence[Callback]) -> None:
    """Replace the list; a hook that is being called goes on over the old one."""
    trainer.callbacks = list(callbacks)  # type: ignore[attr-defined]
