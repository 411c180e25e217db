"""Writing files so that a reader sees the old one or the new one, never a part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new path beside ``path``: write there; it takes the place of ``path`` at the end.

    If the block raises, what was written is removed and ``path`` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield beside
        os.chmod(beside, 0o666 & ~_umask())  # some writers make private files
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file with :func:`replacing`."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
