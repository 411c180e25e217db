"""The folder of one training run."""

from __future__ import annotations

import csv
import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from ..lm.checkpoint import CheckpointError
from ..lm.model import CharLM
from ..text.files import make_folder, write_text
from .config import TrainConfig
from .snapshot import FILE as CHECKPOINT
from .snapshot import Snapshot, discard_parts
from .snapshot import write as write_snapshot


@dataclass
class History:
    """The loss curve: mean loss in nats per character over each ``plot_every`` epochs."""

    epochs: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    # Epoch, bits per character and seconds of each validation.
    validations: list[tuple[int, float, float]] = field(default_factory=list)

    def append(self, epoch: int, loss: float, seconds: float) -> None:
        self.epochs.append(epoch)
        self.losses.append(loss)
        self.seconds.append(seconds)

    def add_validation(self, epoch: int, bits: float, seconds: float) -> None:
        self.validations.append((epoch, bits, seconds))

    def save(self) -> dict[str, Tensor]:
        """The curves as tensors (N, 3), float64."""
        points = list(zip(self.epochs, self.losses, self.seconds, strict=True))
        return {
            name: torch.tensor(rows, dtype=torch.float64).view(-1, 3)
            for name, rows in (("points", points), ("validations", self.validations))
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        for name in ("points", "validations"):
            found = tensors.get(name)
            if found is None or found.shape[1:] != (3,) or not bool(found[:, 0].isfinite().all()):
                raise CheckpointError(
                    f"--resume: the checkpoint holds no loss curve (history.{name}); copy the "
                    "run's folder again or train anew"
                )
        points = tensors["points"].tolist()
        self.epochs = [int(row[0]) for row in points]
        self.losses = [row[1] for row in points]
        self.seconds = [row[2] for row in points]
        self.validations = [(int(e), b, s) for e, b, s in tensors["validations"].tolist()]


LOCK = ".lock"
VALIDATION = "validation text"  # its name in a picture


def hold(path: Path) -> FileLock:
    """Keep other processes from writing a run's folder, until the lock is released or dies with us.

    Raises:
        ValueError: another process is writing it.
    """
    lock = FileLock(path / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"--name: another process is writing {path}; wait for it to end, or choose another name"
        ) from None
    except NotImplementedError:  # a file system that has no locks
        pass
    return lock


def claim(config: TrainConfig, mode: str, held: ExitStack) -> Path:
    """Make the folder of a new run, or find that of one to resume; ``held`` keeps its lock.

    Raises:
        ValueError: it holds something already and ``--overwrite`` was not given, or another
            process is writing it.
    """
    if config.resume is not None:
        held.callback(hold(Path(config.resume)).release)
        discard_parts(Path(config.resume))
        return Path(config.resume)
    parent = make_folder(config.run_dir, "--run_dir")
    if config.name is not None:
        path = parent / config.name
        taken = path.is_dir() and any(file.name != LOCK for file in path.iterdir())
        if path.is_file() or (taken and not config.overwrite):
            raise ValueError(
                f"--name: {path} exists; choose another name, go on with it (--resume {path}), or "
                "write over it (--overwrite)"
            )
        make_folder(path, "--run_dir")
        held.callback(hold(path).release)
        (path / CHECKPOINT).unlink(missing_ok=True)  # of the run that is written over
        return path
    stem = f"{mode}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in range(1, 1000):
        path = parent / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
            held.callback(hold(path).release)
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise ValueError(f"--run_dir: {path} cannot be made ({error.strerror})") from None
    raise ValueError(f"--run_dir: {parent} has too many runs of this second; give --name")


@contextmanager
def kept_on_disk_errors(path: Path) -> Iterator[None]:
    """Errors of writing, such as a full disk, end with what is kept of the run and how to go on."""
    try:
        yield
    except BrokenPipeError:  # the reader of what is printed has gone
        raise
    except OSError as error:
        kept = "no checkpoint had been made yet"
        if (path / CHECKPOINT).exists():
            kept = f"--resume {path} goes on from the last checkpoint once it can be written"
        raise OSError(f"{error}; {kept}") from error


class RunFiles:
    """Writes config.json, metrics.csv, validation.csv, samples.txt, loss.png and model/ of a run.

    The metrics and samples grow while the run goes on; the rest is replaced as a whole.

    Args:
        path: the run's folder.
        history: the points that metrics.csv starts with, of a run that goes on.
        samples: the bytes of samples.txt that stay.
    """

    def __init__(self, path: Path, history: History | None = None, samples: int = 0) -> None:
        self.path = path
        history = history or History()
        # Open for the whole run: closed by close() or finish().
        self._metrics = open(path / "metrics.csv", "w", newline="", encoding="utf-8")  # noqa: SIM115
        self._rows = csv.writer(self._metrics)
        self._rows.writerow(["epoch", "loss", "seconds"])
        for point in zip(history.epochs, history.losses, history.seconds, strict=True):
            self.add_metrics(*point)
        self._validations = history.validations[:]
        if self._validations:
            self._write_validations()
        else:
            (path / "validation.csv").unlink(missing_ok=True)
        self._samples = open(path / "samples.txt", "ab")  # noqa: SIM115
        self._samples.truncate(min(samples, self._samples.tell()))

    def write_config(self, config: TrainConfig, **more: Any) -> None:
        values = {**dataclasses.asdict(config), **more, "torch": torch.__version__}
        write_text(self.path / "config.json", json.dumps(values, indent=2) + "\n")

    def add_metrics(self, epoch: int, loss: float, seconds: float) -> None:
        self._rows.writerow([epoch, f"{loss:.6f}", f"{seconds:.3f}"])

    def add_validation(self, epoch: int, bits: float, seconds: float) -> None:
        self._validations.append((epoch, bits, seconds))
        self._write_validations()

    def _write_validations(self) -> None:
        rows = [f"{epoch},{bits:.6f},{seconds:.3f}" for epoch, bits, seconds in self._validations]
        write_text(self.path / "validation.csv", "\n".join(["epoch,bpc,seconds", *rows, ""]))

    def add_sample(self, line: str, sample: str) -> None:
        self._samples.write(f"{line}\n{sample}\n\n".encode())
        self._samples.flush()
        self._metrics.flush()

    def save(self, snapshot: Snapshot) -> None:
        """Replace the checkpoint that the run resumes from."""
        snapshot.values["samples"] = self._samples.tell()
        write_snapshot(self.path, snapshot)

    def flush(self) -> None:
        """Hand all rows to the system, which may find the disk full."""
        for file in (self._samples, self._metrics):
            if not file.closed:
                file.flush()

    def close(self) -> None:
        for file in (self._samples, self._metrics):
            with suppress(OSError):  # of rows that :meth:`flush` could not write either
                file.close()

    def finish(self, model: CharLM, history: History, notes: str) -> None:
        """Write the model first, then the loss curve."""
        model.save_pretrained(self.path / "model", notes=notes)
        self.flush()
        self.close()
        from .plot import plot_losses

        validations = {VALIDATION: [(epoch, bits) for epoch, bits, _ in history.validations]}
        plot_losses(
            self.path / "loss.png",
            {self.path.name: (history.epochs, history.losses)},
            validations=validations if history.validations else {},
        )
