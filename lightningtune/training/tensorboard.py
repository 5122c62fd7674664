"""TensorBoard's files of a trial: they go on with a trial that goes on."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger


def go_on_with_events(logger: TensorBoardLogger, before: Path, global_step: int) -> None:
    """Write again what a trial had logged before it was cut short.

    Args:
        logger: of the trial that goes on.
        before: the folder that it goes on from.
        global_step: what was logged from this step on is logged again.
    """
    files = sorted(before.glob("events.out.tfevents.*"))
    if not files:
        return
    # imported where it is used: it takes time, and the package may not be there
    from tensorboard.backend.event_processing import event_file_loader  # type: ignore[import-untyped]

    writer = logger.experiment.file_writer
    for file in files:
        for event in event_file_loader.LegacyEventFileLoader(str(file)).Load():
            is_metric = not any(value.tag.startswith("_hparams_/") for value in event.summary.value)
            if event.HasField("summary") and is_metric and event.step < global_step:
                writer.add_event(event, walltime=event.wall_time)
