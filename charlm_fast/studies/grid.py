"""Lists of settings to train: the reference's nine, a grid, or a file."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..text.names import file_meant, nearest
from ..training.config import TrainConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Setting = dict[str, Any]  # fields of TrainConfig

# The settings of the reference's --custom_train, in its order.
REFERENCE_SETTINGS: tuple[Setting, ...] = tuple(
    {"hidden_size": hidden, "lr": lr, "n_layers": layers, "temperature": temperature}
    for hidden, lr, layers, temperature in (
        (128, 0.005, 2, 0.8),
        (64, 0.005, 2, 0.8),
        (256, 0.005, 2, 0.8),
        (128, 0.001, 2, 0.8),
        (128, 0.01, 2, 0.8),
        (128, 0.005, 1, 0.8),
        (128, 0.005, 3, 0.8),
        (128, 0.005, 2, 0.5),
        (128, 0.005, 2, 1.0),
    )
)
REFERENCE_LRS = (0.0001, 0.001, 0.005, 0.01, 0.1)  # of its --plot_loss

# What one sweep has in common; seeds have a flag of their own.
COMMON_GROUPS = ("text", "output", "machine")
COMMON = ("seed", "temperatures")
MAX_SETTINGS = 10_000


def swept_fields() -> dict[str, dataclasses.Field[Any]]:
    """The fields of TrainConfig that may differ between the settings of a sweep."""
    return {
        field.name: field
        for field in dataclasses.fields(TrainConfig)
        if field.metadata["group"] not in COMMON_GROUPS and field.name not in COMMON
    }


def parse_grid(text: str) -> list[Setting]:
    """All combinations of ``"hidden_size=64,128 lr=0.001,0.005"``; the last name varies fastest.

    Raises:
        ValueError: a part is not ``name=value,value``, or :func:`product` refuses.
    """
    grid: dict[str, list[str]] = {}
    for part in text.split():
        name, equals, values = part.partition("=")
        if not equals or not name or not all(values.split(",")):
            raise ValueError(
                f"--grid: got {part!r}, expected name=value,value and spaces between names only, "
                "such as 'hidden_size=64,128 lr=0.001,0.005'"
            )
        if name in grid:
            raise ValueError(f"--grid: {name} is given twice; join its values with commas")
        grid[name] = values.split(",")
    if not grid:
        raise ValueError("--grid: it is empty, expected name=value,value")
    return product(grid, "--grid")


def read_settings(path: str | Path) -> list[Setting]:
    """The settings of a JSON or TOML file.

    JSON holds a list of objects, one a setting, or one object, a grid: each name with a value or a
    list of values. TOML holds the same as ``[[settings]]`` tables or as top-level names.

    Raises:
        ValueError: the file cannot be read or parsed, or holds something else.
    """
    path = Path(path)
    if path.suffix.lower() not in (".json", ".toml"):
        raise ValueError(
            f"--grid: got {path}, expected name=value,value or a file that ends in .json or .toml"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except FileNotFoundError:
        raise ValueError(f"--grid: there is no file {path}{file_meant(str(path))}") from None
    except OSError as error:
        raise ValueError(f"--grid: {path} cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"--grid: {path} cannot be read: {error}") from error
    where = f"--grid: {path}"
    if isinstance(found, dict) and set(found) == {"settings"}:
        found = found["settings"]
    if isinstance(found, dict) and found:
        return product({k: v if isinstance(v, list) else [v] for k, v in found.items()}, where)
    if not isinstance(found, list) or not found or not all(isinstance(s, dict) for s in found):
        raise ValueError(
            f"{where}: expected a list of settings, or names with lists of values; it holds "
            f"{str(found)[:60]}"
        )
    return [checked(setting, f"{where}, setting {k}") for k, setting in enumerate(found, 1)]


def product(grid: Mapping[str, Sequence[Any]], where: str) -> list[Setting]:
    """All combinations of a grid's values, checked.

    Args:
        where: begins the messages.

    Raises:
        ValueError: a name is no field, a value does not fit it, or there are too many.
    """
    count = 1
    for name, values in grid.items():
        if not values:
            raise ValueError(f"{where}: {name} has no value, expected at least one")
        count *= len(values)
    if count > MAX_SETTINGS:
        raise ValueError(f"{where}: it makes {count:,} settings, expected at most {MAX_SETTINGS:,}")
    combinations = itertools.product(*grid.values())
    return [checked(dict(zip(grid, values, strict=True)), where) for values in combinations]


def checked(setting: Mapping[str, Any], where: str) -> Setting:
    """A setting whose names and values TrainConfig accepts; text becomes the field's type."""
    fields = swept_fields()
    out: Setting = {}
    for given, value in setting.items():
        name = given.replace("-", "_")
        if name not in fields:
            expected = f"expected some of {', '.join(fields)}"
            if near := nearest(name, fields):
                expected = f"did you mean {near}?"
            raise ValueError(f"{where}: {given} is unknown, {expected}")
        out[name] = _converted(fields[name], value, where)
    try:
        TrainConfig(**out)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return out


def _converted(field: dataclasses.Field[Any], value: Any, where: str) -> Any:
    """The value in the field's type, from text as well; None where the field's default is None."""
    arguments = field.metadata["arguments"]
    kind = arguments.get("type", type(field.default))
    refused = ValueError(f"{where}: {field.name} got {value!r}, expected {_described(field)}")
    if value is None or (value == "none" and field.default is None):
        if field.default is None:
            return None
        raise refused
    if kind is bool:
        words = {"true": True, "false": False, "1": True, "0": False}
        out = value if isinstance(value, bool) else words.get(str(value).lower())
        if out is None:
            raise refused
        return out
    # Numbers may come as text, from --grid all do; nothing else changes its type.
    if isinstance(value, bool) or (kind is int and isinstance(value, float) and value % 1):
        raise refused
    if not isinstance(value, str if kind is str else (str, int, float)):
        raise refused
    try:
        out = kind(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise refused from error
    if "choices" in arguments and out not in arguments["choices"]:
        raise refused
    return out


def _described(field: dataclasses.Field[Any]) -> str:
    arguments = field.metadata["arguments"]
    if "choices" in arguments:
        return f"one of {', '.join(map(str, arguments['choices']))}"
    kind = arguments.get("type", type(field.default))
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return names.get(kind, str(kind))


def label(setting: Mapping[str, Any]) -> str:
    """A setting in one line: ``hidden_size 128, lr 0.005``."""
    return ", ".join(f"{name} {_short(value)}" for name, value in setting.items())


def folder(setting: Mapping[str, Any]) -> str:
    """The same as the name of a folder: ``hidden_size128-lr0.005``."""
    name = "-".join(f"{name}{_short(value)}" for name, value in setting.items())
    return "".join(c if c.isalnum() or c in "-_.=+" else "_" for c in name)[:120]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
