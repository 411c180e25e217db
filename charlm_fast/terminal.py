"""Standard output and standard error that cannot end a program.

A training must not fail because nobody can read about it. So what a terminal's encoding lacks is
replaced, and a stream that is closed, broken or full is left alone from then on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Patient:
    """A text stream whose ``write`` and ``flush`` never fail; ``lost`` is the first error."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.lost: Exception | None = None

    def write(self, text: str) -> int:
        if self.lost is None:
            try:
                return int(self._stream.write(text))
            except UnicodeEncodeError:  # of a stream that could not be reconfigured
                return self.write(text.encode("ascii", "replace").decode())
            except (OSError, ValueError) as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        if self.lost is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _lose(self, error: Exception) -> None:
        self.lost = error
        with suppress(OSError, ValueError):  # so that what is still in a buffer has a place to go
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
        if self is sys.stdout and isinstance(error, OSError) and _is_news(error):
            print(
                f"warning: standard output cannot be written ({error.strerror or error}); "
                "going on without it",
                file=sys.stderr,
            )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_news(error: OSError) -> bool:
    """Whether the user has not made it so, as by ``| head``."""
    return not isinstance(error, BrokenPipeError)


@contextmanager
def patient_streams() -> Iterator[None]:
    """Inside, ``sys.stdout`` and ``sys.stderr`` are :class:`Patient`, even where closed."""
    _occupy_descriptors()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_patient(s, e) for s, e in zip(before, ERRORS, strict=True))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


ERRORS = ("replace", "backslashreplace")  # what a stream does with what its encoding lacks


def _patient(stream: Any, errors: str) -> Any:
    if isinstance(stream, Patient):
        return stream
    if stream is None:  # its descriptor was closed when Python started
        stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    elif hasattr(stream, "reconfigure"):
        with suppress(OSError, ValueError):
            stream.reconfigure(errors=errors)
        with suppress(OSError, ValueError):  # or a slow terminal refuses what it has no room for
            os.set_blocking(stream.fileno(), True)
    return Patient(stream)


def _occupy_descriptors() -> None:
    """Open what is closed of 0, 1 and 2: the next file would take its number, and its messages."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            else:
                os.set_inheritable(number, True)


def lost() -> bool:
    """Whether something printed to standard output has not arrived."""
    sys.stdout.flush()
    return isinstance(sys.stdout, Patient) and sys.stdout.lost is not None
