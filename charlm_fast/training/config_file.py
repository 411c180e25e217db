"""The settings of a run from a TOML or JSON file."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from ..text.names import file_meant, meant
from .config import SweepConfig, TrainConfig
from .kinds import fits

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUFFIXES = (".toml", ".json")
# What a run writes into its config.json besides settings, and what belongs to that run alone.
OF_RUN = ("mode", "text", "characters", "torch", "vocabulary", "changes")
NOT_TAKEN = ("name", "resume", "overwrite")


def read_config(name: str) -> tuple[str | None, dict[str, Any]]:
    """The mode, if it has one, and the settings of a file.

    A run's own ``config.json`` may be given: its name is left out, for the run that comes.

    Raises:
        ValueError: it cannot be read, or holds a name or value that is no setting.
    """
    path = Path(name)
    if path.is_dir():
        path = path / "config.json"
    if not path.exists():
        raise ValueError(f"--config: there is no file {path}{file_meant(str(path))}")
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--config: got {name}, expected a name that ends in .toml or .json")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"--config: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"--config: {path} is not UTF-8 ({error})") from error
    try:
        found = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--config: {path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"--config: {path} holds no names with values")
    left_out = {*OF_RUN, *NOT_TAKEN} if "torch" in found else {"mode"}
    mode = found.get("mode")
    fields = {
        field.name: field
        for kind in (TrainConfig, SweepConfig)
        for field in dataclasses.fields(kind)
    }
    settings: dict[str, Any] = {}
    for given, value in found.items():
        name = given.replace("-", "_")
        if name in left_out:
            continue
        if name not in fields:
            raise ValueError(
                f"--config: {path} has {given}, which is no setting{meant(name, fields)}"
            )
        if not fits(fields[name], value):
            raise ValueError(
                f"--config: {path} has {given} = {value!r:.40}, expected {fields[name].type}"
            )
        settings[name] = tuple(value) if isinstance(value, list) else value
    return (mode if mode in MODES else None), settings


MODES = ("default_train", "diff_temp", "custom_train", "plot_loss")
