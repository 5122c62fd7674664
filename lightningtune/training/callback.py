"""The callback that watches one trial: thin Lightning hooks over the decisions of `decisions`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint

from lightningtune.contract import Objective, Reporter, Stop, StopReason, Values
from lightningtune.errors import MetricError
from lightningtune.training.callback_list import callbacks_of, set_callbacks
from lightningtune.training.checkpoint_file import STATE
from lightningtune.training.checkpoints import Need
from lightningtune.training.decisions import best_index, non_finite
from lightningtune.training.loops import (
    ask_for_loader_states,
    between_epochs,
    is_last_value,
    stop_softly,
)
from lightningtune.training.missing import cannot_come, missing, not_yet_logged, why_never_validated
from lightningtune.training.mixture import refuse_mixed_objects
from lightningtune.training.moments import AfterTrainEpochEnd, before_all_others, go_on
from lightningtune.training.monitored import MonitoredMetrics
from lightningtune.training.random_state import random_states
from lightningtune.training.resumption import TrialState

_LOOK_EVERY = 50
"""Training batches between two looks at the loss: a look waits for the device, and a NaN has come to stay."""


class TrialCallback(Callback):
    """Reports every validation of a fit to a `Reporter`, and ends the fit softly when it says so.

    Of a validation at the end of an epoch, the checkpoint is written between that epoch and the next: all hooks and
    schedulers of the one have been called, and none of the other. A fit that starts from there goes on as if it had
    never ended, to the last bit on a CPU: data order, dropout, optimizers, schedulers and other callbacks. Exceptions
    are what Lightning and torch do not save: random state that lives on in ``persistent_workers``, and whatever a
    model, a sampler or a datamodule keeps without putting it in its state.

    Within an epoch, the checkpoint is written after the validation, and the batches that are left of the epoch are
    trained as Lightning does it: a dataloader that has a ``state_dict`` goes on where it was; any other one starts
    again, with another order if it shuffles, so that some samples come twice in that epoch and others not. Schedulers
    that follow a metric by the epoch leave this one out.

    A metric may be logged by some validations only, or from a later one on. A validation that does not log all
    monitored metrics reports nothing, and its step is left out: steps count validations. Where no validation logs the
    metric and a training epoch does, values come from training epochs, and steps count those. A notice after the first
    epoch names what was logged instead, and a fit that ends without any value has an `absence`.

    Args:
        objective: what is monitored, and how.
        reporter: where values go, and where the decision to stop comes from.
        after_report: called after each value, at the moment that is to be saved, with the trainer, whether its
            checkpoint is the one to keep (the best so far, or the latest where the score is the last value), and
            whether one to go on from is needed.
        training: which training this is, as `training_of` says it. Checkpoints then hold where the trial stands, and a
            fit that starts from one goes on with its history; without it a checkpoint is taken for another training's.

    Attributes:
        history: the values of each validation of this fit, and of those that it goes on from, one tuple for each that
            logged the metrics.
        stop: why the fit was ended early, if it was.
        absence: what to raise for a fit that was trained to its end and logged no value.
        has_validated: whether a validation of this fit has begun.
    """

    def __init__(
        self,
        objective: Objective,
        reporter: Reporter,
        after_report: Callable[[Trainer, bool, Need], None] | None = None,
        training: str | None = None,
    ) -> None:
        self.objective = objective
        self.reporter = reporter
        self.after_report = after_report
        self.training = training
        self.history: list[Values] = []
        self.stop: Stop | None = None
        self.absence: MetricError | None = None
        self.interruption: BaseException | None = None
        self.has_validated = False
        self._metrics = MonitoredMetrics(objective.monitor)
        self._step = 0
        self._steps: list[int] = []
        self._first = (0, 0)
        self._is_noticed = False
        self._at_epoch_end = False
        self._epoch_batches: float = math.inf
        self._verdict: Stop | None = None
        self._loss: Any = None
        self._unseen = 0
        self._unsaved: bool | None = None
        self._between_epochs = False
        self._start: TrialState | None = None
        self._callbacks: list[Callback] | None = None
        self._give_back: Callable[[], None] = _nothing

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start afresh, after every callback that may stop the fit and before those that save."""
        if stage != "fit":
            return
        refuse_mixed_objects(trainer, pl_module)
        self.history, self.stop, self.interruption, self.has_validated = [], None, None, False
        self._steps, self.absence, self._metrics = [], None, MonitoredMetrics(self.objective.monitor)
        self._verdict, self._loss, self._unseen, self._is_noticed = None, None, 0, False
        self._epoch_batches = math.inf
        self._unsaved, self._between_epochs, self._start = None, False, None
        self._callbacks = callbacks_of(trainer)
        others = [callback for callback in self._callbacks if callback is not self]
        savers = [callback for callback in others if isinstance(callback, Checkpoint)]
        rest = [callback for callback in others if callback not in savers]
        for callback in others:
            refuse_other_mode(callback, self.objective)
        set_callbacks(trainer, [*rest, self, *savers])

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write down where the trial stands."""
        if self._between_epochs:
            checkpoint["epoch"] -= 1  # of the validation; Lightning itself does not read it
        if self.training is None:
            return
        state = TrialState(
            training=self.training,
            monitor=self.objective.monitor,
            history=list(self.history),
            steps=list(self._steps),
            step=self._step,
            old=self._metrics.old(trainer),
            global_step=trainer.global_step,
            at_epoch_end=self._at_epoch_end,
            epoch_batches=self._epoch_batches,
            between_epochs=self._between_epochs,
            should_stop=trainer.should_stop and self.stop is None,
            metrics={name: value.detach().cpu() for name, value in trainer.callback_metrics.items()},
            random=random_states(trainer),
        )
        checkpoint[STATE] = vars(state)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on with the history of the trial's own checkpoint; `find_start` has looked at it."""
        state = checkpoint.get(STATE) if self.training is not None and trainer.state.fn == "fit" else None
        if state is not None and state["history"] and self._start is None:  # others may load theirs before the first
            self._start = TrialState(**state)
            self.history, self._steps = list(self._start.history), list(self._start.steps)
            self._step = self._start.step
            self._epoch_batches = self._start.epoch_batches
            if self._start.between_epochs:
                ask_for_loader_states(checkpoint)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide whether values come from validations or from training epochs, and go on where the trial stood."""
        start, self._start = self._start, None
        self._at_epoch_end = why_never_validated(trainer) is not None or (start is not None and start.at_epoch_end)
        self._first = (self._step, trainer.current_epoch)
        if start is not None:
            go_on(trainer, start)
            self._metrics.skip(trainer, start.old)
            self._report_again(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Hold the training loss, which Lightning has detached, until the next look at it."""
        self._loss = outputs.get("loss") if isinstance(outputs, dict) else None
        self._unseen += 1
        if self._unseen >= _LOOK_EVERY and trainer.world_size == 1:  # several processes agree at validations
            detail = self._why_loss_not_finite(trainer)
            if detail is not None:
                self._end(trainer, Stop(StopReason.NON_FINITE, detail))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that there is one; that at the fit's start is none."""
        self.has_validated |= not trainer.sanity_checking

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report one validation of the fit."""
        if trainer.sanity_checking or trainer.state.fn != "fit" or self._at_epoch_end:
            return
        self._observe(trainer)
        if not trainer.is_last_batch:
            self._notice_missing(trainer)
            self._save(trainer, _need(self._verdict))
            self._decide(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Be called again when all others have been, unless there is nothing to decide then."""
        if self.history and self._verdict is None and not self._at_epoch_end:
            self.train_epoch_ended(trainer)
            return
        set_callbacks(trainer, [*callbacks_of(trainer), AfterTrainEpochEnd(self.train_epoch_ended)])

    def train_epoch_ended(self, trainer: Trainer) -> None:
        """Report one training epoch, where validation does not log the metric; decide after all other callbacks."""
        if trainer.is_last_batch:
            self._epoch_batches = trainer.fit_loop.batch_idx + 1
        if self._at_epoch_end:
            self._observe(trainer)
        elif not self.history and self.stop is None:
            self._look_for_training_metric(trainer)
        self._refuse_missing(trainer)
        self._notice_missing(trainer)
        self._decide(trainer)
        if self._unsaved is not None:
            before_all_others(trainer, self._epoch_is_over)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the trainer's callbacks as they were; report what was reported, if there was nothing left to train."""
        if self._start is not None:
            self._start = None
            self._report_again(trainer)
        if self._is_missing:
            self.absence = missing(trainer, self.objective.monitor)
        self._restore(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remember Ctrl-C and SIGTERM, which Lightning turns into an exit."""
        self._restore(trainer)
        if isinstance(exception, (KeyboardInterrupt, SystemExit)):
            self.interruption = exception

    def _observe(self, trainer: Trainer) -> None:
        """Report what was logged since the last validation or training epoch; its step passes in any case."""
        if self.stop is None:
            step, self._step = self._step, self._step + 1
            self._take(trainer, self._metrics.read(trainer), step)

    def _look_for_training_metric(self, trainer: Trainer) -> None:
        """Take values from training epochs from now on, where one has logged what no validation has."""
        values = self._metrics.read(trainer)
        if values is not None:
            self._at_epoch_end = True
            first_step, first_epoch = self._first
            step = first_step + trainer.current_epoch - first_epoch
            self._step = step + 1
            self._take(trainer, values, step)

    @property
    def _is_missing(self) -> bool:
        """Whether the metrics could have been logged by now, and were not."""
        return not self.history and self.stop is None and (self.has_validated or self._at_epoch_end)

    def _refuse_missing(self, trainer: Trainer) -> None:
        if self._is_missing and trainer.strategy.broadcast(cannot_come(trainer, self.objective.monitor)):
            raise missing(trainer, self.objective.monitor)

    def _notice_missing(self, trainer: Trainer) -> None:
        if self._is_missing and not self._is_noticed and trainer.is_global_zero:
            self._is_noticed = True
            self.reporter.notice(not_yet_logged(trainer, self.objective.monitor))

    def _take(self, trainer: Trainer, values: Values | None, step: int) -> None:
        detail = self._why_not_finite(trainer, values)
        if detail is not None:
            self._end(trainer, Stop(StopReason.NON_FINITE, detail))
        if detail is not None or values is None:
            return
        self.history.append(values)
        self._steps.append(step)
        verdict = self.reporter.report(values, step) if trainer.is_global_zero else None
        if verdict is not None and verdict.reason is StopReason.PRUNED:
            moment = f"{'epoch' if self._at_epoch_end else 'validation'} {step + 1}"
            verdict = Stop(verdict.reason, f"{verdict.detail} at {moment}")
        self._verdict = verdict
        if trainer.world_size > 1:
            self._verdict = trainer.strategy.broadcast(self._verdict)
        best = best_index(self.history, self.objective.mode[0])
        self._unsaved = self.objective.score == "last" or best == len(self.history) - 1

    def _report_again(self, trainer: Trainer) -> None:
        """Report what was reported before the checkpoint: the trial has a new number, and its pruner is to know."""
        if trainer.is_global_zero:
            for step, values in zip(self._steps, self.history, strict=True):
                self.reporter.report(values, step)

    def _decide(self, trainer: Trainer) -> None:
        """Follow the reporter's verdict, once every callback that may stop the fit here has had its say."""
        verdict, self._verdict = self._verdict, None
        if verdict is not None and not is_last_value(trainer, self._at_epoch_end, self._epoch_batches):
            self._end(trainer, verdict)

    def _epoch_is_over(self, trainer: Trainer, goes_on: bool) -> None:
        need = _need(self.stop)
        self._between_epochs = True
        with between_epochs(trainer):
            self._save(trainer, "never" if need == "when due" and not goes_on else need)
        self._between_epochs = False

    def _save(self, trainer: Trainer, last: Need) -> None:
        is_best, self._unsaved = self._unsaved, None
        if is_best is not None and self.after_report is not None:
            self.after_report(trainer, is_best, last)

    def _why_not_finite(self, trainer: Trainer, values: Values | None) -> str | None:
        if self.objective.non_finite == "ignore":
            return None
        detail = None if values is None else non_finite(self.objective.monitor, values)
        detail = detail or self._why_loss_not_finite(trainer)
        if trainer.world_size > 1:
            anyone = trainer.strategy.reduce_boolean_decision(detail is not None, all=False)
            detail = detail or ("the training loss is not finite on another rank" if anyone else None)
        return detail

    def _why_loss_not_finite(self, trainer: Trainer) -> str | None:
        """Say what is wrong with the latest training loss, if anything is."""
        loss, self._loss, self._unseen = self._loss, None, 0
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or self.objective.non_finite == "ignore":
            return None
        value = loss.item()
        return None if math.isfinite(value) else f"the training loss is {value} at step {trainer.global_step}"

    def _restore(self, trainer: Trainer) -> None:
        if self._callbacks is not None:
            set_callbacks(trainer, self._callbacks)
        self._give_back()
        self._give_back = _nothing

    def _end(self, trainer: Trainer, stop: Stop) -> None:
        """End the fit softly: Lightning leaves its loops by itself."""
        self.stop = stop
        self._give_back = stop_softly(trainer)


def _nothing() -> None:
    """Nothing is to be given back."""


def _need(stop: Stop | None) -> Need:
    """Whoever stops a trial from outside may want it to go on later."""
    from_outside = stop is not None and stop.reason in (StopReason.INTERRUPTED, StopReason.TIMED_OUT)
    return "always" if from_outside else "when due"


def refuse_other_mode(callback: Callback, objective: Objective) -> None:
    """Refuse a callback that watches a tuned metric the other way.

    Raises:
        MetricError: naming both.
    """
    monitor, mode = getattr(callback, "monitor", None), getattr(callback, "mode", None)
    expected = dict(zip(objective.monitor, objective.mode, strict=True)).get(str(monitor))
    if expected is not None and mode in ("min", "max") and mode != expected:
        raise MetricError(
            f"{type(callback).__name__}(monitor='{monitor}', mode='{mode}') contradicts the search, which tunes "
            f"'{monitor}' with mode='{expected}'. Did you mean mode='{expected}'?"
        )
