"""Whether a value from a file is of a setting's type."""

from __future__ import annotations

import dataclasses
from typing import Any

# What JSON and TOML hold for a field of the given annotation.
KINDS: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "int | None": (int, type(None)),
    "str | None": (str, type(None)),
}


def fits(field: dataclasses.Field[Any], value: Any) -> bool:
    """Whether a value is of the field's type, and no number that nothing can hold."""
    annotation, items = str(field.type), [value]
    if annotation.startswith("tuple["):
        annotation = annotation[len("tuple[") : -len(", ...]")]
        if not isinstance(value, list):
            return False
        items = value
    if any(type(item) is int and abs(item) >> 63 for item in items):
        return False
    return all(type(item) in KINDS[annotation] for item in items)
