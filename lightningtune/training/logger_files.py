"""Files of Lightning's loggers, which go on with a trial that goes on."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lightningtune.files import write_text


def flush_tables(trainer: Trainer) -> None:
    """Write what has been logged, so that no checkpoint is newer than the table beside it."""
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            logger.save()


def go_on_with_table(logger: CSVLogger, before: Path, global_step: int) -> None:
    """Write again the rows that a trial had logged before it was cut short; Lightning would remove them."""
    table = before / "metrics.csv"
    if not table.is_file():
        return
    with table.open(newline="") as file:
        reader = csv.DictReader(file)
        names = list(reader.fieldnames or ())
        whole = [row for row in reader if [*row] == names and (row.get("step") or "").isdecimal()]
    writer = logger.experiment  # Lightning removes the file here
    writer.metrics_keys = names  # public, but described nowhere: without it the next row would bring another header
    text = io.StringIO(newline="")
    out = csv.DictWriter(text, names)
    out.writeheader()
    out.writerows(row for row in whole if int(row["step"]) < global_step)
    write_text(Path(writer.metrics_file_path), text.getvalue())


def go_on_with_events(logger: TensorBoardLogger, before: Path, global_step: int) -> None:
    """Write again the events that a trial had logged before it was cut short."""
    files = sorted(before.glob("events.out.tfevents.*"))
    if not files:
        return
    # deferred import: it takes time, and the package may be missing
    from tensorboard.backend.event_processing import event_file_loader  # type: ignore[import-untyped]

    writer = logger.experiment.file_writer
    for file in files:
        for event in event_file_loader.LegacyEventFileLoader(str(file)).Load():
            is_metric = not any(value.tag.startswith("_hparams_/") for value in event.summary.value)
            if event.HasField("summary") and is_metric and event.step < global_step:
                writer.add_event(event, walltime=event.wall_time)
