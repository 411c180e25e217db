"""experiment_logs.csv: one row a trained model, appended by several processes at a time."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

# Of the reference, in its names and order.
REFERENCE_COLUMNS = (
    "Timestamp",
    "Hidden Size",
    "Learning Rate",
    "Layers",
    "Temperature",
    "Min Loss",
    "BPC Score",
)
COLUMNS = (
    *REFERENCE_COLUMNS,
    "Seed",
    "Seconds",
    "Chars/s",
    "Device",
    "Backend",
    "Run Directory",
)
LOCK_SECONDS = 60.0


class ExperimentLog:
    """A CSV file to append to.

    A new file gets :data:`COLUMNS`. One that exists keeps its columns, whatever their order: one
    that the reference wrote, with its seven, gets rows of seven and stays readable to what
    reads it. Each row is written whole, under a lock (a file ``.NAME.lock`` beside it).

    Raises:
        ValueError: the file exists and lacks one of :data:`REFERENCE_COLUMNS`.
        OSError: it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.columns()

    def columns(self) -> list[str]:
        """The columns of the file as it is, or those it will get."""
        try:
            with open(self.path, newline="", encoding="utf-8-sig") as file:
                found = next(csv.reader(file), [])
        except FileNotFoundError:
            found = []
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{self.path}: it is no CSV file; move it away ({error})") from error
        if not found:
            return list(COLUMNS)
        missing = [name for name in REFERENCE_COLUMNS if name not in found]
        if missing:
            raise ValueError(
                f"{self.path}: its header lacks {', '.join(missing)}, expected at least "
                f"{','.join(REFERENCE_COLUMNS)}; move the file away to start a new one"
            )
        return found

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; ``Timestamp`` is now unless given. What the file has no column for is left.

        Raises:
            ValueError: another program has changed the header to one without the columns.
            OSError: the disk is full or the like; the file is as it was.
            TimeoutError: another process held the lock for a minute.
        """
        row = {"Timestamp": time.strftime("%Y-%m-%d %H:%M:%S"), **row}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=LOCK_SECONDS):
            columns = self.columns()
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0))
            with os.fdopen(descriptor, "r+b") as file:
                head = file.readline()
                size = file.seek(0, os.SEEK_END)
                end = "\r\n" if head.endswith(b"\r\n") else "\n"
                text = io.StringIO()
                writer = csv.writer(text, lineterminator=end)
                if size == 0:
                    writer.writerow(columns)
                else:
                    file.seek(size - 1)
                    if file.read(1) != b"\n":  # the last writer was killed in mid-row
                        text.write(end)
                writer.writerow([row.get(name, "") for name in columns])
                try:
                    file.write(text.getvalue().encode())
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.ftruncate(file.fileno(), size)
                    raise
