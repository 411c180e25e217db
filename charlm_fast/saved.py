"""Which saved model a command is about."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from . import cli
from .lm import checkpoint
from .lm.checkpoint import CheckpointError
from .lm.model import CharLM
from .text.called import called
from .text.names import meant
from .training.config import TrainConfig
from .training.resume import is_run

SHOWN_MODELS = 3  # in a message


def load_model(name: str, flag: str = "--model") -> tuple[CharLM, Path]:
    """The model that a flag names, on the CPU, and its folder.

    Raises:
        CheckpointError: there is none, or it cannot be loaded.
    """
    directory = find_model(name, flag)
    with cli.flags_named(model=flag.removeprefix("--")):
        return CharLM.from_pretrained(directory), directory


def find_model(name: str, flag: str = "--model") -> Path:
    """The folder of a model: itself, a run's folder, its name, a file in it, or a download.

    Raises:
        CheckpointError: there is none; a name that is like it is suggested.
    """
    if not name:
        raise CheckpointError(f"{flag}: got '', expected {_expected()}")
    for path in (Path(name), Path(TrainConfig.run_dir) / name):
        if path.exists():
            return _inside(path, flag)
    local = Path(name).parent != Path() and Path(name).parent.is_dir()
    if local or not re.fullmatch(checkpoint.ON_HUB, name):
        raise CheckpointError(
            f"{flag}: there is no {name}; expected {_expected()}{_near(Path(name))}"
        )
    with cli.flags_named(model=flag.removeprefix("--")):
        return checkpoint.locate(name)


def _inside(path: Path, flag: str) -> Path:
    """The model at a path that exists, be it a file of the model or of its run."""
    folders = [path] if path.is_dir() else [path.parent, path.parent.parent]
    for folder in folders:
        found = checkpoint.locate(folder)
        if (found / checkpoint.WEIGHTS).is_file() or (found / checkpoint.CONFIG).is_file():
            if found.name != checkpoint.IN_RUN and is_run(found):
                raise CheckpointError(
                    f"{flag}: the run {found} has no model yet; finish it with: "
                    f"{called('train')} --resume {shlex.quote(str(found))}"
                )
            return found
    if path.is_file():
        raise CheckpointError(f"{flag}: {path} is no file of a model; expected {_expected()}")
    inner = sorted(str(found.parent.parent) for found in path.glob(f"*/{_WEIGHTS_IN_RUN}"))
    if inner:
        more = f" and {len(inner) - SHOWN_MODELS} more" if len(inner) > SHOWN_MODELS else ""
        raise CheckpointError(
            f"{flag}: {path} holds several models, name one of {', '.join(inner[:SHOWN_MODELS])}"
            f"{more}"
        )
    raise CheckpointError(f"{flag}: {path} holds no model; expected {_expected()}")


_WEIGHTS_IN_RUN = f"{checkpoint.IN_RUN}/{checkpoint.WEIGHTS}"


def _models(folder: Path) -> dict[str, Path]:
    """The runs in a folder that have a model, by name."""
    try:
        return {run.name: run for run in folder.iterdir() if (run / _WEIGHTS_IN_RUN).is_file()}
    except OSError:
        return {}


def _expected() -> str:
    runs = Path(TrainConfig.run_dir)
    example = next(iter(sorted(map(str, _models(runs).values()))), runs / "NAME")
    return f"a run's folder or name, such as {example}, or a directory written by save_pretrained"


def _near(path: Path) -> str:
    beside = _models(path.parent) if path.parent != Path() else {}
    return meant(path.name, {**beside, **_models(Path(TrainConfig.run_dir))})
