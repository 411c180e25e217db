"""Which saved model a command is about."""

from __future__ import annotations

from pathlib import Path

from .lm import checkpoint
from .text.names import meant
from .training.config import TrainConfig


def find_model(name: str) -> Path:
    """The folder of a model: itself, a run's folder or the name of one, or a download.

    Raises:
        CheckpointError: there is none; a name that is like it is suggested.
    """
    runs = Path(TrainConfig.run_dir)
    for path in (Path(name), runs / name):
        if path.exists():
            return checkpoint.locate(path)
    found = checkpoint.locate(name)
    if not found.exists() and runs.is_dir():
        names = {run.name: run for run in runs.iterdir() if (run / checkpoint.IN_RUN).is_dir()}
        near = meant(Path(name).name, names)
        raise checkpoint.CheckpointError(
            f"--model: there is no {name}; expected a run's folder, such as "
            f"{next(iter(sorted(map(str, names.values()))), runs / 'NAME')}, or a directory "
            f"written by save_pretrained{near}"
        )
    return found
