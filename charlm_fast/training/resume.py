"""Which run to go on with, and the settings it was started with."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..lm import checkpoint
from ..text.names import nearest
from ..text.vocab import Vocabulary
from .config import TEMPERATURES, TrainConfig
from .kinds import fits

CONFIG = "config.json"


def find_run(named: str, run_dir: str, name: str | None) -> Path:
    """The folder of the run to resume.

    Args:
        named: a run's folder, or its name in ``run_dir``; empty for the run ``name``, and without
            that for the one in ``run_dir`` whose files changed last.

    Raises:
        ValueError: there is no such run.
    """
    parent = Path(run_dir)
    if named or name:
        for path in [Path(named), parent / named] if named else [parent / str(name)]:
            if is_run(path.parent) and not is_run(path):  # a file or folder of a run
                path = path.parent
            if is_run(path):
                return path
        beside = [path.parent.name for path in parent.glob(f"*/{CONFIG}")]
        near = nearest(Path(named or str(name)).name, beside)
        hint = f"did you mean {parent / near}?" if near else f"name one, such as those in {parent}"
        raise ValueError(
            f"--resume: {named or parent / str(name)} is not a run's folder (it has no {CONFIG} of "
            f"a run); {hint}"
        )
    runs = [path.parent for path in parent.glob(f"*/{CONFIG}")]
    if not runs:
        raise ValueError(f"--resume: {parent} holds no run; start one without --resume")
    return max(runs, key=_changed)


def is_run(path: Path) -> bool:
    """Whether it holds a run's settings, which may be damaged, and not a model's."""
    return (path / CONFIG).is_file() and not (path / checkpoint.WEIGHTS).is_file()


def _changed(run: Path) -> int:
    return max((path.stat().st_mtime_ns for path in run.iterdir()), default=0)


def read_settings(run: Path) -> dict[str, Any]:
    """The settings in a run's config.json.

    Raises:
        ValueError: it is not one that a run has written.
    """
    path = run / CONFIG
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--resume: {path} is not valid JSON ({error}); train anew") from error
    if not isinstance(settings, dict) or "seed" not in settings:
        raise ValueError(f"--resume: {path} does not hold a run's settings; train anew")
    return settings


def check_kinds(
    run: Path, settings: dict[str, Any], fields: Iterable[dataclasses.Field[Any]]
) -> None:
    """Raise ValueError unless each setting is of its field's type, which no program checked yet."""
    for field in fields:
        if field.name not in settings:
            continue
        value = settings[field.name]
        if not fits(field, value):
            raise ValueError(
                f"--resume: {run / CONFIG} has {field.name} = {value!r:.40}, expected "
                f"{field.type}; copy the run's folder again or train anew"
            )


# What a resumed run must not change: its checkpoint would not fit.
FIXED = (
    "hidden_size",
    "n_layers",
    "tie_weights",
    "vocab",
    "seed",
    "chunk_len",
    "batch_size",
    "stateful",
    "ema",
    "val_fraction",
    "plot_every",
    "overwrite",
)
# What makes no difference to the model.
APART = ("run_dir", "name", "resume", "overwrite", "data", "test", "device", "threads", "n_epochs")


def changes_of(config: TrainConfig, after: int) -> list[dict[str, Any]]:
    """What the settings of a run that goes on differ in from those it had, and since when.

    Args:
        after: the epoch that it goes on after.

    Returns:
        those of earlier times, and the new one: ``{"after_epoch": 20, "lr": [0.005, 0.001]}``.
    """
    assert config.resume is not None
    saved = read_settings(Path(config.resume))
    known = saved.get("changes")
    changes = [change for change in known if isinstance(change, dict)] if known else []
    new = {
        field.name: [saved[field.name], getattr(config, field.name)]
        for field in dataclasses.fields(config)
        if field.name in saved
        and field.name not in APART
        and field.metadata["group"] not in ("reports", "output")
        and saved[field.name] != getattr(config, field.name)
    }
    return [*changes, {"after_epoch": after, **new}] if new and after else changes


def kept_vocabulary(config: TrainConfig) -> Vocabulary | None:
    """The characters that a run to go on with has kept, if it started from another model's.

    Raises:
        ValueError: they are damaged.
    """
    if config.resume is None or config.init is None:
        return None
    try:
        return Vocabulary.from_config(read_settings(Path(config.resume)).get("vocabulary"))
    except ValueError as error:
        raise ValueError(f"--resume: {config.resume}: {error}; train anew") from error


def described(changes: list[dict[str, Any]]) -> str:
    """Changes in one clause: ``lr 0.005 until epoch 20, then 0.001``."""
    parts = [
        f"{name} {value[0]} until epoch {change.get('after_epoch')}, then {value[1]}"
        for change in changes
        for name, value in change.items()
        if isinstance(value, list) and len(value) == 2
    ]
    return "; ".join(parts)


def resumed(values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The mode and fields of a run to go on with, where flags change them.

    Raises:
        ValueError: there is no such run, or a flag would change what must stay.
    """
    run_dir = values.get("run_dir", TrainConfig.run_dir)
    run = find_run(values["resume"], run_dir, values.get("name"))
    saved = read_settings(run)
    check_kinds(run, saved, dataclasses.fields(TrainConfig))
    for name in FIXED:
        if name in values and values[name] != saved.get(name):
            raise ValueError(
                f"--{name}: got {values[name]!r}, but {run} was started with {saved.get(name)!r}, "
                "which a resumed run keeps; leave the flag out, or start a run from its model with "
                f"--init {run / 'model'}"
            )
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    settings = {name: value for name, value in saved.items() if name in fields}
    for name in ("data", "test"):
        settings[name] = tuple(settings.get(name) or ())
    settings["temperatures"] = tuple(settings.get("temperatures", TEMPERATURES))
    place = {"run_dir": str(run.parent), "name": run.name, "resume": str(run), "overwrite": False}
    return str(saved.get("mode", "default_train")), {**settings, **values, **place}
