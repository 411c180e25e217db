"""Names that somebody may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

NEAR = 0.7  # how alike two names must be, of 1


def nearest(name: str, names: Iterable[str]) -> str:
    """The most similar of some names; empty if none is like it."""
    found = difflib.get_close_matches(name.strip("-_").lower(), list(names), 1, NEAR)
    return found[0] if found else ""


def meant(name: str, names: Iterable[str]) -> str:
    """``"; did you mean ...?"``, or nothing."""
    near = nearest(name, names)
    return f"; did you mean {near}?" if near else ""


def file_meant(name: str) -> str:
    """The same for a path: what lies beside it under a similar name."""
    path = Path(name)
    try:
        beside = [found.name for found in path.parent.iterdir() if found.name != path.name]
        near = nearest(path.name, beside)
    except OSError:
        return ""
    return f"; did you mean {path.with_name(near)}?" if near else ""
