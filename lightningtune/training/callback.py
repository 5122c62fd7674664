"""The callback that watches one trial: thin Lightning hooks over the decisions of `metrics` and `loops`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint

from lightningtune.contract import Objective, Reporter, Stop, StopReason, Values
from lightningtune.errors import MetricError, NonFiniteError
from lightningtune.training.checkpoints import LastNeeded
from lightningtune.training.loops import (
    ask_for_loader_states,
    call_after_train_epoch_end,
    call_between_epochs,
    count_completed_epochs,
    get_callbacks,
    is_last_value,
    set_callbacks,
    stop_softly,
)
from lightningtune.training.metrics import (
    MonitoredMetrics,
    best_index,
    cannot_come,
    describe_non_finite,
    find_missing_metric,
    missing_metric_error,
    missing_metric_notice,
    reduce_to_score,
    why_never_validated,
)
from lightningtune.training.mixture import refuse_mixed_objects
from lightningtune.training.process_state import random_states
from lightningtune.training.resumption import STATE, ResumeState, restore_fit

_CHECK_LOSS_EVERY = 50
"""Training batches between two checks of the loss: a check waits for the device, and a NaN does not go away."""


class TrialCallback(Callback):
    """Reports every validation of a fit to a `Reporter`, and ends the fit softly when it says so.

    After a validation at the end of an epoch, the checkpoint is written before the next epoch starts. A fit that starts
    from there goes on as if it had never ended, to the last bit on a CPU. Exceptions are what Lightning and torch do
    not save: random state that lives on in ``persistent_workers``, and whatever a model, a sampler or a datamodule
    keeps without putting it in its state. Within an epoch, the checkpoint is written after the validation, and the rest
    of the epoch is trained as Lightning does it: a dataloader without a ``state_dict`` starts again there.

    A validation that does not log all monitored metrics reports nothing, and its step is left out: steps count
    validations. Where no validation logs the metric and a training epoch does, steps count training epochs.

    Args:
        objective: what is monitored, and how.
        reporter: where values go, and where the decision to stop comes from.
        after_report: called after each value, at the moment that is to be saved, with the trainer, whether its
            checkpoint is the one to keep, and whether one to go on from is needed.
        training: the digest of the config. Checkpoints then hold a `ResumeState`, and a fit that starts from one goes
            on with its history; without it a checkpoint is taken for another training's.

    Attributes:
        history: the values of each validation that logged the metrics; also of those that this fit goes on from.
        stop: why the fit was ended early, if it was.
        fit_error: a `MetricError` if the fit logged no value, or the Ctrl-C, SIGTERM or ``sys.exit`` that ended it.
    """

    def __init__(
        self,
        objective: Objective,
        reporter: Reporter,
        after_report: Callable[[Trainer, bool, LastNeeded], None] | None = None,
        training: str | None = None,
    ) -> None:
        self.reporter = reporter
        self._objective = objective
        self._after_report = after_report
        self._training = training
        self._step = 0
        self._callbacks: list[Callback] | None = None
        self._give_back_limits: Callable[[], None] | None = None
        self._between_epochs = False
        self._forget_fit()

    def _forget_fit(self) -> None:
        """Start afresh, but for the step: those of a trial go on from fit to fit."""
        self.history: list[Values] = []
        self.stop: Stop | None = None
        self.fit_error: BaseException | None = None
        self._steps: list[int] = []
        self._metrics = MonitoredMetrics(self._objective.monitor)
        self._has_validated = False
        self._has_noticed_missing = False
        self._at_epoch_end = False  # whether values come from training epochs instead of validations
        self._epoch_batches: float = math.inf
        self._first = (0, 0)  # the step and the epoch with which the fit began
        self._verdict: Stop | None = None  # the reporter's, until all callbacks that may stop the fit were called
        self._loss: Any = None
        self._unchecked_losses = 0
        self._is_unsaved_best: bool | None = None  # None where the latest value is saved
        self._resumed: ResumeState | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start afresh, after every callback that may stop the fit and before those that save."""
        if stage != "fit":
            return
        refuse_mixed_objects(trainer, pl_module)
        self._forget_fit()
        self._callbacks = get_callbacks(trainer)
        others = [callback for callback in self._callbacks if callback is not self]
        for callback in others:
            refuse_other_mode(callback, self._objective)
        savers = [callback for callback in others if isinstance(callback, Checkpoint)]
        rest = [callback for callback in others if callback not in savers]
        set_callbacks(trainer, [*rest, self, *savers])

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write down where the trial stands."""
        if self._between_epochs:
            # the epoch of the validation, and not the one that Lightning has just begun; it does not read it again
            checkpoint["epoch"] -= 1
        if self._training is None:
            return
        state = ResumeState(
            training=self._training,
            monitor=self._objective.monitor,
            history=list(self.history),
            steps=list(self._steps),
            step=self._step,
            old=self._metrics.list_old(trainer),
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
        """Go on with the history of the trial's own checkpoint, which `find_resume_point` has checked."""
        state = checkpoint.get(STATE) if self._training is not None and trainer.state.fn == "fit" else None
        # other callbacks, such as a search for a learning rate, may load checkpoints of their own after ours
        if state is not None and state["history"] and self._resumed is None:
            self._resumed = ResumeState(**state)
            self.history, self._steps = list(self._resumed.history), list(self._resumed.steps)
            self._step = self._resumed.step
            self._epoch_batches = self._resumed.epoch_batches
            if self._resumed.between_epochs:
                ask_for_loader_states(checkpoint)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on where the trial stood; find out whether values come from validations or from training epochs."""
        state, self._resumed = self._resumed, None
        self._at_epoch_end = why_never_validated(trainer) is not None or (state is not None and state.at_epoch_end)
        self._first = (self._step, trainer.current_epoch)
        if state is not None:
            restore_fit(trainer, state)
            self._metrics.mark_old(trainer, state.old)
            self._report_again(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Hold the training loss, which Lightning has detached, until it is checked."""
        self._loss = outputs.get("loss") if isinstance(outputs, dict) else None
        self._unchecked_losses += 1
        if self._unchecked_losses >= _CHECK_LOSS_EVERY and trainer.world_size == 1:  # ranks agree at validations
            detail = self._why_loss_not_finite(trainer)
            if detail is not None:
                self._end(trainer, Stop(StopReason.NON_FINITE, detail))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that there is a validation; the sanity check is none."""
        self._has_validated |= not trainer.sanity_checking

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report one validation of the fit; decide at once within an epoch, and at its end after all other hooks."""
        if trainer.sanity_checking or trainer.state.fn != "fit" or self._at_epoch_end:
            return
        self._observe(trainer)
        if not trainer.is_last_batch:
            self._notice_missing(trainer)
            self._save(trainer, _last_needed(self._verdict))
            self._decide(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the epoch, after all other hooks where they may log the metric or stop the fit."""
        if self.history and self._verdict is None and not self._at_epoch_end:
            self._end_epoch(trainer)
        else:
            call_after_train_epoch_end(trainer, self._end_epoch)

    def _end_epoch(self, trainer: Trainer) -> None:
        """Report one training epoch, where validation does not log the metric, and decide."""
        if trainer.is_last_batch:
            self._epoch_batches = trainer.fit_loop.batch_idx + 1
        if self._at_epoch_end:
            self._observe(trainer)
        elif not self.history and self.stop is None:
            self._look_for_training_metric(trainer)
        if self._is_missing and trainer.strategy.broadcast(cannot_come(trainer, self._objective.monitor)):
            raise missing_metric_error(trainer, self._objective.monitor)
        self._notice_missing(trainer)
        self._decide(trainer)
        if self._is_unsaved_best is not None:
            call_between_epochs(trainer, self._save_between_epochs)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the trainer as it was; report what was reported, if there was nothing left to train."""
        if self._resumed is not None:
            self._resumed = None
            self._report_again(trainer)
        if self._is_missing:
            self.fit_error = missing_metric_error(trainer, self._objective.monitor)
        self._restore(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remember Ctrl-C and SIGTERM, which Lightning turns into an exit."""
        self._restore(trainer)
        if exception is not self.fit_error:
            self.fit_error = self._explain(trainer, exception)

    def _explain(self, trainer: Trainer, exception: BaseException) -> BaseException | None:
        if isinstance(exception, (KeyboardInterrupt, SystemExit)):
            return exception
        names, is_first = self._objective.monitor, self._has_validated and not self.history
        if is_first and find_missing_metric(exception) in names:
            return missing_metric_error(trainer, names)
        return None

    def compute_score(self) -> Values:
        """Return the score of a fit that was not stopped.

        Raises:
            MetricError: when no value was reported.
            NonFiniteError: when the score is not finite.
        """
        if isinstance(self.fit_error, MetricError):
            raise self.fit_error
        if not self.history:
            raise MetricError(
                f"There is no score: no value of {', '.join(self._objective.monitor)} was reported. Has a fit with a "
                "validation ended? See max_epochs, check_val_every_n_epoch and limit_val_batches of the Trainer."
            )
        score = reduce_to_score(self.history, self._objective)
        if not all(map(math.isfinite, score)):
            raise NonFiniteError(f"the score is {score[0] if len(score) == 1 else score}")
        return score

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
        return not self.history and self.stop is None and (self._has_validated or self._at_epoch_end)

    def _notice_missing(self, trainer: Trainer) -> None:
        if self._is_missing and not self._has_noticed_missing and trainer.is_global_zero:
            self._has_noticed_missing = True
            self.reporter.notice(missing_metric_notice(trainer, self._objective.monitor))

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
        self._verdict = trainer.strategy.broadcast(verdict) if trainer.world_size > 1 else verdict
        best = best_index(self.history, self._objective.mode[0])
        self._is_unsaved_best = self._objective.score == "last" or best == len(self.history) - 1

    def _report_again(self, trainer: Trainer) -> None:
        """Report what was reported before the checkpoint: the trial has a new number, which its pruner must know."""
        if trainer.is_global_zero:
            for step, values in zip(self._steps, self.history, strict=True):
                self.reporter.report(values, step)

    def _decide(self, trainer: Trainer) -> None:
        """Follow the reporter's verdict, unless the fit ends here by itself."""
        verdict, self._verdict = self._verdict, None
        if verdict is not None and not is_last_value(trainer, self._at_epoch_end, self._epoch_batches):
            self._end(trainer, verdict)

    def _save_between_epochs(self, trainer: Trainer, goes_on: bool) -> None:
        last = _last_needed(self.stop)
        self._between_epochs = True
        with count_completed_epochs(trainer):
            self._save(trainer, "never" if last == "when due" and not goes_on else last)
        self._between_epochs = False

    def _save(self, trainer: Trainer, last: LastNeeded) -> None:
        is_best, self._is_unsaved_best = self._is_unsaved_best, None
        if is_best is not None and self._after_report is not None:
            self._after_report(trainer, is_best, last)

    def _why_not_finite(self, trainer: Trainer, values: Values | None) -> str | None:
        if self._objective.non_finite == "ignore":
            return None
        detail = describe_non_finite(self._objective.monitor, values) if values is not None else None
        detail = detail or self._why_loss_not_finite(trainer)
        if trainer.world_size > 1:
            anyone = trainer.strategy.reduce_boolean_decision(detail is not None, all=False)
            detail = detail or ("the training loss is not finite on another rank" if anyone else None)
        return detail

    def _why_loss_not_finite(self, trainer: Trainer) -> str | None:
        loss, self._loss, self._unchecked_losses = self._loss, None, 0
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or self._objective.non_finite == "ignore":
            return None
        value = loss.item()
        return None if math.isfinite(value) else f"the training loss is {value} at step {trainer.global_step}"

    def _end(self, trainer: Trainer, stop: Stop) -> None:
        """End the fit softly: Lightning leaves its loops by itself."""
        self.stop = stop
        self._give_back_limits = stop_softly(trainer)

    def _restore(self, trainer: Trainer) -> None:
        if self._callbacks is not None:
            set_callbacks(trainer, self._callbacks)
        if self._give_back_limits is not None:
            self._give_back_limits()
            self._give_back_limits = None


def _last_needed(stop: Stop | None) -> LastNeeded:
    """Whoever stops a trial from outside may want it to go on later."""
    return "always" if stop and stop.reason in (StopReason.INTERRUPTED, StopReason.TIMED_OUT) else "when due"


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
