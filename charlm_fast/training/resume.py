"""Which run to go on with, and the settings it was started with."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .config import TEMPERATURES, TrainConfig

CONFIG = "config.json"
# What JSON holds for a field of the given annotation.
KINDS: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "int | None": (int, type(None)),
    "str | None": (str, type(None)),
}


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
            if (path / CONFIG).is_file():
                return path
        raise ValueError(
            f"--resume: {named or parent / str(name)} is not a run's folder (it has no {CONFIG}); "
            f"name one, such as those in {parent}"
        )
    runs = [path.parent for path in parent.glob(f"*/{CONFIG}")]
    if not runs:
        raise ValueError(f"--resume: {parent} holds no run; start one without --resume")
    return max(runs, key=_changed)


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
        annotation, value = str(field.type), settings[field.name]
        right, items = True, [value]
        if annotation.startswith("tuple["):
            annotation = annotation[len("tuple[") : -len(", ...]")]
            right, items = isinstance(value, list), value if isinstance(value, list) else []
        too_large = any(type(item) is int and abs(item) >> 63 for item in items)
        right = right and all(type(item) in KINDS[annotation] for item in items)
        if too_large or not right:
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
                "which a resumed run keeps; leave the flag out"
            )
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    settings = {name: value for name, value in saved.items() if name in fields}
    for name in ("data", "test"):
        settings[name] = tuple(settings.get(name) or ())
    settings["temperatures"] = tuple(settings.get("temperatures", TEMPERATURES))
    place = {"run_dir": str(run.parent), "name": run.name, "resume": str(run), "overwrite": False}
    return str(saved.get("mode", "default_train")), {**settings, **values, **place}
