"""Texts that can be read once: pipes, process substitutions and standard input."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

STANDARD_INPUT = "-"
PREFIX = "charlm_fast-"


def is_pipe(name: str) -> bool:
    """Whether a name is standard input or a pipe rather than a file."""
    return name == STANDARD_INPUT or (os.path.exists(name) and Path(name).is_fifo())


def name_of(path: str | os.PathLike[str]) -> str:
    """What to call a file in a message, be it what came through a pipe."""
    return "the pipe" if Path(path).name.startswith(PREFIX) else str(path)


@functools.cache
def spooled(name: str) -> Path:
    """What comes through a pipe, as a file that other processes can read as well.

    It is read once, however often it is asked for, and goes when this process ends.
    """
    handle, path = tempfile.mkstemp(prefix=PREFIX, suffix=".txt")
    atexit.register(_remove, path, os.getpid())
    source = 0 if name == STANDARD_INPUT else name
    with open(source, "rb", closefd=source != 0) as pipe, os.fdopen(handle, "wb") as file:
        shutil.copyfileobj(pipe, file)
    return Path(path)


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:
        with suppress(OSError):
            os.unlink(path)
