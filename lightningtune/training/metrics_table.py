"""The table of what a trial logs, ``metrics.csv``: it goes on with a trial that goes on."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger

from lightningtune.files import write_text

log = logging.getLogger(__name__)


def flush_tables(trainer: Trainer) -> None:
    """Write what has been logged: a checkpoint is of no later time than the table beside it."""
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            logger.save()


def go_on_with_table(trainer: Trainer, table: Path, directory: Path, global_step: int) -> None:
    """Have the logger of a folder append to the table of before; Lightning would remove it.

    A table that cannot be read is left out: it is not gone on from.

    Args:
        trainer: before its fit, on rank 0.
        table: the table of before.
        directory: the folder that the trial logs to now.
        global_step: rows from this step on are logged again.
    """
    mine = [one for one in trainer.loggers if isinstance(one, CSVLogger) and Path(one.log_dir) == directory]
    if not mine or not table.is_file():
        return
    try:
        names, rows = _rows_before(table, global_step)
    except (OSError, ValueError, csv.Error) as error:
        log.warning("%s cannot be gone on with: %s", table, error)
        return
    writer = mine[0].experiment  # the file is removed here
    writer.metrics_keys = names  # public, but described nowhere: without it the next row would bring another header
    text = io.StringIO(newline="")
    out = csv.DictWriter(text, names)
    out.writeheader()
    out.writerows(rows)
    write_text(Path(writer.metrics_file_path), text.getvalue())


def _rows_before(table: Path, global_step: int) -> tuple[list[str], list[dict[str, str]]]:
    """Return the header of a table, and its rows of earlier steps; what is not of its form is left out."""
    with table.open(newline="") as file:
        reader = csv.DictReader(file)
        names = list(reader.fieldnames or ())
        whole = [row for row in reader if [*row] == names and (row.get("step") or "").isdecimal()]
    return names, [row for row in whole if int(row["step"]) < global_step]
