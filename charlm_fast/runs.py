"""The folder of one training run."""

from __future__ import annotations

import csv
import dataclasses
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .config import TrainConfig
from .files import write_text
from .model import CharLM


@dataclass
class History:
    """The loss curve: mean loss in nats per character over each ``plot_every`` epochs."""

    epochs: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def append(self, epoch: int, loss: float, seconds: float) -> None:
        self.epochs.append(epoch)
        self.losses.append(loss)
        self.seconds.append(seconds)


def claim(config: TrainConfig, mode: str) -> Path:
    """Make the folder of a new run.

    Raises:
        ValueError: it holds something already and ``--overwrite`` was not given.
    """
    parent = Path(config.run_dir)
    if config.name is not None:
        path = parent / config.name
        if path.is_file() or (path.is_dir() and any(path.iterdir()) and not config.overwrite):
            raise ValueError(
                f"--name: {path} exists; choose another name, or write over it with --overwrite"
            )
        path.mkdir(parents=True, exist_ok=True)
        return path
    stem = f"{mode}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in range(1, 1000):
        path = parent / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            if path.parent.is_file():
                raise
    raise ValueError(f"--run_dir: {parent} has too many runs of this second; give --name")


class RunFiles:
    """Writes config.json, metrics.csv, samples.txt, loss.png and model/ of a run.

    The metrics and samples grow while the run goes on; the rest is replaced as a whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Open for the whole run: closed by close() or finish().
        self._metrics = open(path / "metrics.csv", "w", newline="", encoding="utf-8")  # noqa: SIM115
        self._rows = csv.writer(self._metrics)
        self._rows.writerow(["epoch", "loss", "seconds"])
        self._samples = open(path / "samples.txt", "w", newline="\n", encoding="utf-8")  # noqa: SIM115

    def write_config(self, config: TrainConfig, **more: Any) -> None:
        values = {**dataclasses.asdict(config), **more, "torch": torch.__version__}
        write_text(self.path / "config.json", json.dumps(values, indent=2) + "\n")

    def add_metrics(self, epoch: int, loss: float, seconds: float) -> None:
        self._rows.writerow([epoch, f"{loss:.6f}", f"{seconds:.3f}"])

    def add_sample(self, line: str, sample: str) -> None:
        self._samples.write(f"{line}\n{sample}\n\n")
        self._samples.flush()
        self._metrics.flush()

    def close(self) -> None:
        self._samples.close()
        self._metrics.close()

    def finish(self, model: CharLM, history: History, notes: str) -> None:
        """Write the model and the loss curve."""
        self.close()
        model.save_pretrained(self.path / "model", notes=notes)
        from .plot import plot_losses

        plot_losses(self.path / "loss.png", {self.path.name: (history.epochs, history.losses)})
